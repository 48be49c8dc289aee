"""What probes and Prometheus are told: of one worker process, or of several as one."""
