"""An executor's line: what one thread has read is not waited for by another, whoever reads."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from dibs.message import Message
from dibs.worker.frames import Cancel, Frame, Start, Stop, pack
from dibs.worker.line import Line


class Supervisor:
    """The other end of a line."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        reader, self._writer = os.pipe()
        os.set_blocking(reader, False)
        self.line = Line(theirs.detach(), reader)
        self._reader = reader

    def send(self, *frames: Frame) -> None:
        self._socket.sendall(pack(frames))

    def permit(self, epoch: int) -> None:
        os.write(self._writer, bytes((epoch,)))

    def close(self) -> None:
        self._socket.close()
        self.line._socket.close()
        os.close(self._writer)
        os.close(self._reader)


@pytest.fixture
def supervisor() -> Iterator[Supervisor]:
    made = Supervisor()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def impatience() -> Iterator[None]:
    """A wait that never ends is ended."""
    former = signal.signal(signal.SIGALRM, lambda *_: pytest.fail("it waits for what has come"))
    signal.alarm(10)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, former)


def start(number: int) -> Start:
    return Start(number, 0, Message(body=b"", queue="q", id=str(number)))


def test_a_start_that_another_one_has_read_meanwhile_is_not_waited_for(supervisor: Supervisor) -> None:
    line = supervisor.line
    supervisor.permit(0)
    assert line.take() is None  # its frame is still on its way

    supervisor.send(start(1))
    line.look()  # another thread's task asks whether its job is lost
    line.wait()

    assert line.take() == start(1)


def test_a_stop_that_another_one_has_read_meanwhile_is_not_waited_for(supervisor: Supervisor) -> None:
    supervisor.send(Stop())
    supervisor.line.look()

    supervisor.line.wait()

    assert supervisor.line.is_stopped


def test_whoever_reads_what_is_to_end_is_called_with_the_last_word(supervisor: Supervisor) -> None:
    line = supervisor.line
    seen: list[frozenset[int]] = []
    line.on_cancel = lambda: seen.append(line.cancelled)

    supervisor.send(Cancel([1]), start(3), Cancel([1, 2]))
    line.look()

    assert seen == [frozenset([1]), frozenset([1, 2])]
