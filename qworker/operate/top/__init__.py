"""Follows queues, workers and tasks as they change."""
