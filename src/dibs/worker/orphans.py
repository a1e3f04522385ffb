"""A worker that is process 1 of a container inherits what its executors leave behind, and has to bury it."""

from __future__ import annotations

import os
from collections.abc import Collection


def reap_orphans(own: Collection[int]) -> None:
    """Take leave of dead children that nobody here started, if this process is the one that inherits them.

    Args:
        own: process ids of executors, which are seen to elsewhere: how they died matters.
    """
    if os.getpid() != 1:
        return
    try:
        while (dead := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)) and dead.si_pid not in own:
            os.waitpid(dead.si_pid, 0)
    except ChildProcessError:
        return  # none is left
