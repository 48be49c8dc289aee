"""How fast qworker is, beside its peers: `make bench`."""
