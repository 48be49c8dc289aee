"""Gets messages: when, from which queue, how many, and whose turn it is to start."""
