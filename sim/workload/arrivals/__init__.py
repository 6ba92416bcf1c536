"""Arrival processes, one registered class per file."""
