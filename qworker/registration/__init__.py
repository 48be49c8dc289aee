"""Makes a task of a function: its name, its options, and what is refused."""
