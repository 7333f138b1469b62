"""What can be offered, where and to whom: the reviewed document, its validation, its compiled form."""
