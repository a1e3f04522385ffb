"""What a worker and its queues measure, as Prometheus reads it."""
