"""Keeps queues in Azure Queue Storage; nothing else imports its SDK."""
