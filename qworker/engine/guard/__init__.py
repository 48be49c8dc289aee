"""Watches over what a worker asks of its broker, and what it can say of itself."""
