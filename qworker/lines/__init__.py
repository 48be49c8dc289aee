"""Writes lines that a person can read and nobody can forge, log records among them."""
