"""Runs handlers: on the event loop, in threads and in child processes."""
