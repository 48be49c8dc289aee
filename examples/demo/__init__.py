"""What `make demo` runs: two worker processes measure the running Python's standard library."""
