"""RabbitMQ's ledger: two streams, what is written to them, and the index by which they are read."""
