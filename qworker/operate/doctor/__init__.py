"""Checks whether a worker could do its work."""
