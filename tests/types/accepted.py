"""What type checkers must accept, with the types that they must see. Never run: checked by `tests/types/`."""

from __future__ import annotations

from typing import assert_type

from dibs import Dibs, Job, Message, Retry

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


async def handler() -> None:
    assert_type(await resize.aenqueue("a.png"), Job[str])
    assert_type(await welcome(1), bytes)
