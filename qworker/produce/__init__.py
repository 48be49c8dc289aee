"""A call becomes a message: produced, put together, and put into a queue."""
