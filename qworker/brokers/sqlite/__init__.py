"""Keeps queues in an SQLite file, or in memory; nothing else imports sqlite3."""
