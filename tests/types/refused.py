"""What type checkers must refuse: each marked line, and no other. Never run: checked by `tests/types/`."""

from __future__ import annotations

from dibs import Dibs

app = Dibs("memory://")


@app.task
def resize(path: str, width: int = 800) -> str:
    return f"{path} {width}"


@app.task(queue="mail")
async def welcome(user_id: int) -> None: ...


resize.enqueue("x", width="y")  # refused
resize.enqueue()  # refused
resize.enqueue("x", height=3)  # refused
resize.prepare(1)  # refused
resize.using(delay=60).enqueue(7)  # refused
resize.using(colour="red")  # refused
welcome.enqueue("7")  # refused
number: int = resize("x")  # refused
resize.aenqueue("x", 1, 2)  # refused
resize.using(delay="60")  # refused
app.task(retries="3")  # refused
app.task(retry_on="ValueError")  # refused
app.queue("q", type="stream")  # refused
app.send("q")  # refused
app.consumer("q")(resize)  # refused
app.enqueue_many([resize.enqueue("x")])  # refused
result: int = resize.enqueue("x")  # refused
number = resize.enqueue("x").result()  # refused
resize.enqueue("x").result(timeout="1")  # refused
app.task(keep="1d")  # refused
resize.using(private=True)  # refused
app.job(7)  # refused
