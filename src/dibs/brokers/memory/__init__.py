"""The broker for tests: a true one, in this process's memory.

`entry.py` is a job's place and its life, `store.py` all of them with who waits for them; `broker.py`, `consumer.py`
and `ledger.py` are what the protocols ask for.
"""

from dibs.brokers.memory.broker import MemoryBroker

__all__ = ["MemoryBroker"]
