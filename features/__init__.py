"""What we know about a customer, and in which order a model sees it. Imports nothing else of ours."""
