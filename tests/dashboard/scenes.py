"""What a dashboard is shown: jobs in every state, made by the broker's own calls."""

from __future__ import annotations

import json
from typing import Any

from dibs import Dibs
from dibs.broker import Consumer
from dibs.ledger.life import Note, Progress
from dibs.ledger.snapshot import ExecutorInfo, Running, Snapshot
from dibs.message import Delivery, Message, new_id, now_ms
from dibs.outcome import Cancelled, Dead, Done, Outcome, RetryIn, Run

#: What nobody's page may obey.
SCRIPT = "<script>window.hit = 1</script>"
IMAGE = "\"'><img src=x onerror='window.hit = 2'>"
ARABIC = "مرحبا بالعالم"
OVERRIDE = "\u202egnp.exe"
TRACEBACK = """\
Traceback (most recent call last):
  File "/srv/shop/hooks.py", line 48, in deliver
    response = client.post(url, json=payload)
ConnectionError: no answer within 10 s"""


class Scene:
    """An app in memory, and what happens in it."""

    def __init__(self) -> None:
        self.app = Dibs("memory://")
        self.broker = self.app.broker
        self._held: list[Consumer] = []

    def send(self, queue: str, task: str | None = "shop.resize", *args: Any, **fields: Any) -> str:
        """Hand over a job; returns its id."""
        fields.setdefault("body", json.dumps({"args": args, "kwargs": {}}).encode())
        fields.setdefault("enqueued", now_ms() - 900)
        message = Message(queue=queue, task=task, id=fields.pop("id", None) or new_id(), **fields)
        self.broker.send([message])
        return message.id

    def ran(self, queue: str, outcome: Outcome, task: str | None = "shop.resize", *args: Any, **fields: Any) -> str:
        """Have a job run and come to that; returns its id."""
        job_id = self.send(queue, task, *args, **fields)
        consumer = self.broker.consume([queue], limit=1000)
        for delivery in consumer.receive(1000):
            if delivery.message.id == job_id:
                consumer.settle([(delivery, outcome)])
        consumer.close()
        return job_id

    def running(self, queue: str, task: str, progress: Progress | None = None) -> str:
        """Have a job run on and on, in a worker that shows itself."""
        job_id = self.send(queue, task, "a", 1)
        consumer = self.broker.consume([queue], limit=1)
        (delivery,) = consumer.receive(1)
        if progress is not None:
            consumer.note([(delivery, Note(progress=progress))])
        running = Running(id=job_id, task=task, queue=queue, attempt=1, since=now_ms() - 4000, progress=progress)
        consumer.show(snapshot(f"host-{len(self._held)}:471{len(self._held)}", running))
        self._held.append(consumer)
        return job_id

    def retried(self, queue: str, task: str) -> str:
        """Have a job fail, and wait for its next attempt."""
        job_id = self.send(queue, task)
        consumer = self.broker.consume([queue], limit=1000)
        for delivery in consumer.receive(1000):
            if delivery.message.id == job_id:
                again = delivery.message.after_failure(TRACEBACK)
                consumer.settle([(delivery, RetryIn(600.0, again, a_run()))])
        consumer.close()
        return job_id

    def held_to_cancel(self) -> list[Delivery]:
        """Return what the workers are asked to cancel."""
        return [delivery for consumer in self._held for delivery in consumer.cancelled()]

    def close(self) -> None:
        """Take it down."""
        for consumer in self._held:
            consumer.close()
        self.app.close()


def a_run(*log: str) -> Run:
    """Return a run that ended just now."""
    return Run(now_ms() - 700, now_ms(), list(log))


def snapshot(worker: str, *running: Running) -> Snapshot:
    """Return what a worker says of itself that runs these."""
    host, _, pid = worker.partition(":")
    now = now_ms()
    executor = ExecutorInfo(
        pid=int(pid) + 1,
        started=now - 60_000,
        memory_bytes=61_000_000,
        finished=12,
        state="ready",
        running=list(running),
        held=len(running),
    )
    return Snapshot(
        worker=worker,
        host=host,
        pid=int(pid),
        version="0.2.0",
        app="shop:app",
        started=now - 60_000,
        at=now,
        queues=["default", "mail"],
        slots=4,
        executors=[executor],
        ended={"done": 12, "retry": 1},
        memory_bytes=40_000_000,
    )


def busy(scene: Scene) -> str:
    """Fill a scene with a job in each state; returns the id of the one that has most to show."""
    for number in range(6):
        scene.ran("default", Done(json.dumps({"bytes": number}).encode(), None, a_run()), "shop.resize", number)
    scene.running("default", "shop.export", Progress(41_200, 120_000, "rows written"))
    scene.running("mail", "shop.send_mail")
    scene.retried("mail", "shop.welcome")
    scene.ran("mail", Cancelled(a_run()), "shop.welcome")
    scene.send("reports", "shop.report", priority=9)
    scene.send("reports", "shop.report", due=now_ms() + 3_600_000)
    scene.broker.pause("reports")
    dead = ""
    for number in range(3):
        dead = scene.ran(
            "hooks", Dead("failed", TRACEBACK, run=a_run("one", "two")), "shop.deliver", {"order": number}
        )
    scene.send("reports", None, body=b"a plain message")
    return dead


def hostile(scene: Scene) -> str:
    """Fill a scene with what attacks a page; returns the id of the worst."""
    scene.ran("<b>mail</b>", Done(json.dumps(SCRIPT).encode(), None, a_run(SCRIPT, IMAGE)), SCRIPT, SCRIPT, IMAGE)
    scene.ran("<b>mail</b>", Dead("failed", IMAGE, run=a_run()), IMAGE, ARABIC, id=f"id {IMAGE}")
    scene.ran("عربي", Dead("failed", ARABIC * 20, run=a_run(ARABIC)), "مهمة", ARABIC, OVERRIDE)
    scene.ran("raw", Dead("unreadable", "no JSON"), None, body=bytes(range(256)))
    scene.ran("secret", Dead("failed", "swordfish", run=a_run()), "shop.secret", "swordfish", is_private=True)
    scene.running("<b>mail</b>", IMAGE, Progress(1, 3, SCRIPT))
    long = "x" * 1024 * 1024
    return scene.ran("long", Dead("failed", f"{SCRIPT}{long}", run=a_run("y" * 10_000)), "z" * 200, long, SCRIPT)
