"""Runs several processes: starts them alike, passes signals on, and replaces those that end."""
