"""What a user of each system would write: an app with one task, and how to hand over to it.

A module here is imported by the system's own workers and by `bench/producer.py`, in the system's own virtual
environment. It has

- `enqueue(number, seconds, padding)`, or for systems that live on an event loop `aenqueue`, `astart` and `astop`;
- `enqueue_many(calls)`, if the system can hand over many at once: a list of such triples.

`BENCH_URL` is the place to keep the jobs: a file, or a server's URL. `BENCH_ROLE` is `producer` or `worker`.
"""
