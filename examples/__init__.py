"""One idea a file; README.md beside this says which is which."""
