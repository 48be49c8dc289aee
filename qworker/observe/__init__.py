"""Tells others what workers do: logs, metrics, probes."""
