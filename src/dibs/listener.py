"""A function that takes the plain messages of one queue."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from dibs.message import Message
from dibs.task import Options, Policy, is_async


class Listener(msgspec.Struct, frozen=True):
    """What `@app.consumer(queue)` registered."""

    function: Callable[[Message], Any]
    policy: Policy
    options: Options

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function."""
        return is_async(self.function)
