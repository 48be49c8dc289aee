"""qworker enqueue: one job from the command line, or many from lines."""
