"""What several commands have: options, ways to a broker, ways to print and to end."""
