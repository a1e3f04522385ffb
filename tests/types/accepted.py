"""What type checkers must accept, with the types that they must see. Never run: checked by `tests/types/`."""

from __future__ import annotations

import datetime as dt
from typing import Any, Literal, assert_type

from dibs import Cancelled, Dead, Dibs, Done, Job, JobInfo, Message, Prepared, Released, Retry, RetryIn

app = Dibs("memory://")


@app.task
def resize(path: str, width: int = 800) -> str:
    return f"{path} {width}"


@app.task(queue="mail", retries=5, timeout=30, priority=9)
async def welcome(user_id: int) -> bytes:
    raise Retry(delay=10)


@app.consumer("task_queue", keep=60, private=True)
def print_it(message: Message) -> None:
    assert_type(message.body, bytes)


assert_type(resize("a.png"), str)
assert_type(resize.enqueue("a.png", width=200), Job[str])
assert_type(resize.using(delay=60, queue="slow").enqueue("a.png"), Job[str])
assert_type(welcome.enqueue(7), Job[bytes])
assert_type(app.enqueue_many([resize.prepare("a"), resize.prepare("b")]), list[Job[str]])


@app.task(name="typed", keep=dt.timedelta(hours=1), private=True, retry_on=ValueError, bury_on=(KeyError, OSError))
def options_take_one_type_or_several(when: dt.datetime, *rest: int, **others: str) -> list[int]:
    return list(rest)


assert_type(options_take_one_type_or_several.enqueue(dt.datetime.now(dt.UTC), 1, 2, a="b"), Job[list[int]])
assert_type(resize.using(at=dt.datetime.now(dt.UTC), expires=dt.timedelta(hours=1)).prepare("a"), Prepared[str])
assert_type(app.drain(), list[Done | RetryIn | Dead | Cancelled | Released])
job: Job[str] = resize.using(keep=dt.timedelta(days=7)).enqueue("a")
assert_type(job.result(), str)
assert_type(job.result(timeout=5), str)
assert_type(welcome.enqueue(7).result(), bytes)
assert_type([each.result(1.5) for each in app.enqueue_many([resize.prepare("a")])], list[str])
assert_type(job.status(), Literal["delayed", "ready", "running", "done", "dead", "cancelled"])
assert_type(job.cancel(), Literal["cancelled", "requested", "over"])
assert_type(job.info(), JobInfo)
assert_type(app.job("id"), Job[Any])
assert_type(app.send("task_queue", {"any": ["json"]}, headers={"tenant": "x"}), str)


@app.on_start
def connect() -> int:
    return 1


assert_type(connect(), int)
print_it(Message(body=b"", queue="task_queue", id="1"))


async def handler() -> None:
    assert_type(await resize.aenqueue("a.png"), Job[str])
    assert_type(await welcome(1), bytes)
    assert_type(await job.aresult(timeout=1), str)
    assert_type(await job.astatus(), Literal["delayed", "ready", "running", "done", "dead", "cancelled"])
    assert_type(await job.ainfo(), JobInfo)
    assert_type(await job.acancel(), Literal["cancelled", "requested", "over"])
