"""Settles messages: decides what is done about an outcome, and does it."""
