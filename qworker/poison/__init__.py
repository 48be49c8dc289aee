"""Keeps jobs that were given up: their records, and the ways back to work or to an end."""
