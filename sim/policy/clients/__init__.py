"""Clients, one file each."""
