"""Everything that touches network or disk while a request is answered, with an in-memory twin of each."""
