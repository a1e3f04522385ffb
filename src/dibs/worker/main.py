"""An executor's start: a child process that imports the app and runs jobs in its slots.

It talks to its supervisor alone, never to the queue that feeds it, and dies with it. Started as
`python -m dibs.worker.main SOCKET PERMITS`, both descriptors.
"""

from __future__ import annotations

import ctypes
import signal
import sys
import traceback

from dibs.errors import DibsError
from dibs.loading import load_app
from dibs.outcome import clip_error
from dibs.worker.executor import Executor
from dibs.worker.frames import Refused
from dibs.worker.line import Line
from dibs.worker.serving import serve_alone, serve_on_threads

#: From linux/prctl.h.
_PR_SET_PDEATHSIG = 1


def main(descriptor: int, permits: int) -> None:
    """Import the app, say so, and run jobs until told to stop."""
    _die_with_parent()
    # Service managers send SIGTERM to all processes of a worker. How it ends is the supervisor's to say; a handler,
    # unlike SIG_IGN, is not inherited by what a task starts.
    signal.signal(signal.SIGTERM, lambda number, frame: None)  # noqa: ARG005
    line = Line(descriptor, permits)
    executor = _load(line)
    if executor.needs_loop:
        from dibs.worker.looping import serve_on_loop  # noqa: PLC0415 -- asyncio costs 10 MB where nothing is async

        serve_on_loop(executor)
    elif executor.slots > 1:
        serve_on_threads(executor)
    else:
        serve_alone(executor)


def _die_with_parent() -> None:
    """Ask the kernel for SIGKILL when the supervisor ends, so that no job runs on while others have it."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _load(line: Line) -> Executor:
    setup = line.set_up()
    try:
        app = load_app(setup.app)
        app.use(setup.url, may_create=True)
        for task in app.tasks.values():
            task.signature.resolve()
        return Executor(line, app, setup.slots)
    except DibsError as error:
        line.send(Refused(str(error)))
    except BaseException:  # noqa: BLE001 -- whatever the app's module raises, the supervisor must hear of it
        line.send(Refused(clip_error(traceback.format_exc())))
    sys.exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
