"""Producers in other languages, and the tasks that they enqueue."""
