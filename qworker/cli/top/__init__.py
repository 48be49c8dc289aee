"""qworker top: queues, workers, tasks and failures, as they change."""
