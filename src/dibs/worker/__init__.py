"""A worker: a supervisor and its executors, as processes of one host."""
