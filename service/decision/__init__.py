"""The decision itself: pure functions of their arguments, without clock, network or environment."""
