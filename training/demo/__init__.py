"""The demonstration: the whole loop on real input, told as it happens."""
