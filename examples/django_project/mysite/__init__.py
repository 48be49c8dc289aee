"""The project: its settings, and what its background jobs share."""
