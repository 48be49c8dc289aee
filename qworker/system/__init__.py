"""Knows the operating system and the interpreter, as far as qworker has to."""
