"""What a good engineer would put together instead, and the floor below which this stack cannot go."""
