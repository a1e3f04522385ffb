"""The table under the picture, and whether every promise was kept. Pure."""

from __future__ import annotations

import msgspec

from dibs.demo.history import History
from dibs.trial.table import Line

#: Seconds within which a dead worker's job is to start again where a slot is free (P3). RabbitMQ promises "as soon
#: as it sees the connection close", which is no number: this is what a server in reach is held to.
RESTART_LIMITS = {"sqlite": 0.5, "amqp": 2.0}
#: Seconds that a slot may lie idle while a job is ready. The promise (P5) is that nobody hoards jobs, and a hoarded
#: job here would wait for another one's end, up to 2 s. A busy machine alone can cost some 100 ms.
NEGLECT_LIMIT = 0.5


class Ending(msgspec.Struct, frozen=True):
    """How it looked when the workers had ended."""

    #: Messages that the broker still had, in whatever state.
    left: int
    #: Whether the killed worker's executor was gone too.
    is_tree_gone: bool
    #: Whether the other workers ended in order when they were told to.
    is_orderly: bool


def judge(history: History, ending: Ending, *, restart_limit: float) -> list[Line]:
    """Return the table."""
    return [
        _sent(history),
        Line("done", str(len(history.done)), is_kept=len(history.done) == len(history.sent)),
        Line("lost", str(len(history.lost)), ", ".join(history.lost), not history.lost),
        _twice(history),
        _restart(history, restart_limit),
        Line("idle beside work", _ms(history.neglect), "longest for a free slot beside a ready job",
             history.neglect <= NEGLECT_LIMIT),
        _makespan(history),
        _ending(ending),
    ]  # fmt: skip


def _sent(history: History) -> Line:
    early = sum(sent.at < history.begin for sent in history.sent)
    return Line(
        "sent",
        str(len(history.sent)),
        f"{early} before a worker was there, {len(history.sent) - early} after the kill",
    )


def _twice(history: History) -> Line:
    cut = history.cut
    if cut is None:
        return Line("run twice", str(len(history.twice)), "the kill hit no job", is_kept=False)
    note = f"{cut.job}, cut off by the kill after {history.kill.at - cut.start:.2f} s"
    others = [job for job in history.twice if job != cut.job]
    if others:
        note = f"{', '.join(others)} besides {cut.job}, which the kill cut off"
    return Line("run twice", str(len(history.twice)), note, history.twice == [cut.job])


def _restart(history: History, limit: float) -> Line:
    name = "kill to rerun"
    if history.again is None or history.restart is None or history.handover is None:
        return Line(name, "never", is_kept=False)
    note = f"worker {history.again.worker} was free"
    if (waited := history.free_at - history.kill.at) > 0:
        note = f"{_ms(waited)} of it until worker {history.again.worker} was free"
    return Line(name, _ms(history.restart), f"{note}; limit {_ms(limit)}", history.handover <= limit)


def _makespan(history: History) -> Line:
    above = (history.makespan / history.ideal - 1) * 100
    note = f"{above:.1f} % above the ideal, {history.ideal:.2f} s (a lower bound)"
    return Line("makespan", f"{history.makespan:.2f} s", note)


def _ending(ending: Ending) -> Line:
    troubles = [
        text
        for text, is_true in (
            ("the broker still has messages", ending.left > 0),
            ("the killed worker's executor lived on", not ending.is_tree_gone),
            ("a worker did not end in order", not ending.is_orderly),
        )
        if is_true
    ]
    note = "; ".join(troubles) or "the killed worker's executor died with it"
    return Line("left over", str(ending.left), note, not troubles)


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
