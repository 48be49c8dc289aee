"""Answers what operators ask of queues, jobs and workers, for whatever shows it."""
