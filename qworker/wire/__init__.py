"""Knows what is in a message: how arguments, jobs and notes become text, and are read again."""
