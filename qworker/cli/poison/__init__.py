"""qworker poison: what to do with jobs that were given up."""
