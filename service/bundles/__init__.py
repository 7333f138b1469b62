"""A trained model as a folder that can be trusted."""
