"""Keeps the exclusive right to a message while its job waits and runs."""
