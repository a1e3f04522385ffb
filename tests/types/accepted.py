"""What type checkers must accept, with the types that they must see. Never run: checked by `tests/types/`."""

from __future__ import annotations

import datetime as dt
from typing import assert_type

from dibs import Dead, Dibs, Done, Job, Message, Prepared, Released, Retry, RetryIn

app = Dibs("memory://")


@app.task
def resize(path: str, width: int = 800) -> str:
    return f"{path} {width}"


@app.task(queue="mail", retries=5, timeout=30, priority=9)
async def welcome(user_id: int) -> bytes:
    raise Retry(delay=10)


@app.consumer("task_queue")
def print_it(message: Message) -> None:
    assert_type(message.body, bytes)


assert_type(resize("a.png"), str)
assert_type(resize.enqueue("a.png", width=200), Job[str])
assert_type(resize.using(delay=60, queue="slow").enqueue("a.png"), Job[str])
assert_type(welcome.enqueue(7), Job[bytes])
assert_type(app.enqueue_many([resize.prepare("a"), resize.prepare("b")]), list[Job[str]])


@app.task(name="typed", retry_on=ValueError, bury_on=(KeyError, OSError))
def options_take_one_type_or_several(when: dt.datetime, *rest: int, **others: str) -> list[int]:
    return list(rest)


assert_type(options_take_one_type_or_several.enqueue(dt.datetime.now(dt.UTC), 1, 2, a="b"), Job[list[int]])
assert_type(resize.using(at=dt.datetime.now(dt.UTC), expires=dt.timedelta(hours=1)).prepare("a"), Prepared[str])
assert_type(app.drain(), list[Done | RetryIn | Dead | Released])
assert_type(app.send("task_queue", {"any": ["json"]}, headers={"tenant": "x"}), str)


@app.on_start
def connect() -> int:
    return 1


assert_type(connect(), int)
print_it(Message(body=b"", queue="task_queue", id="1"))


async def handler() -> None:
    assert_type(await resize.aenqueue("a.png"), Job[str])
    assert_type(await welcome(1), bytes)
