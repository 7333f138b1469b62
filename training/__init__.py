"""Learns from what was written down. Never imported by the serving process."""
