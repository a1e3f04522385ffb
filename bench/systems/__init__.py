"""All systems, in the order in which they are shown."""

from __future__ import annotations

from bench.system import System
from bench.systems import celery, dibs, dramatiq, huey, litequeue, pika, potatoq, rq, sqlite3, tarsk, taskiq, taskito

SYSTEMS: dict[str, System] = {
    system.name: system
    for module in (dibs, sqlite3, huey, potatoq, taskito, litequeue, pika, dramatiq, tarsk, taskiq, celery, rq)
    for system in module.SYSTEMS
}
