"""Decisions, one small file each: a read-only snapshot in, a decision out."""
