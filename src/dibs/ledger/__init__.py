"""The ledger: the record of jobs, that tells what became of each one.

`life.py` has what it says of a job, `snapshot.py` what a worker says of itself, `statistics.py` what happened of
late, `ledger.py` what every broker's ledger can be asked. `schema.sql` and `tables.py` are the form that SQLite files
have: the embedded broker's own, and the index that a reader keeps of RabbitMQ's streams.
"""
