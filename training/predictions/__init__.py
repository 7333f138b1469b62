"""Predictions as features: models of what customers will do, trained from what they did, scored in batch."""
