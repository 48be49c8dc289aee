"""What happens to a message between get and delete."""
