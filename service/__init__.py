"""Answers requests: read, eligible, score, choose, answer, append."""
