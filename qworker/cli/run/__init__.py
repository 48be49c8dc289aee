"""qworker run: a worker, or several processes of them."""
