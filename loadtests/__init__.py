"""Load scenarios and their budgets."""
