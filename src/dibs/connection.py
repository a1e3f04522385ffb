"""An app's way to its broker: which one is meant, and the connection to it, made at first use."""

from __future__ import annotations

import math
import os
import threading

from dibs.broker import Broker
from dibs.brokers import connect, read
from dibs.errors import BadOption
from dibs.url import Address


class Connection:
    """Share it between threads.

    Args:
        url: the broker; else `$DIBS_URL`, else `sqlite:///dibs.db` in the working directory, which is then not made.
        namespace, handover_timeout, may_declare: see `dibs.brokers.connect`.

    Raises:
        BadURL: the URL can't be read.
        BadOption: the time is out of bounds.
    """

    def __init__(self, url: str | None, *, namespace: str, handover_timeout: float, may_declare: bool) -> None:
        if not 0 < handover_timeout < math.inf:
            raise BadOption(f"handover_timeout={handover_timeout}: must be above 0 seconds.")
        self._given_url = url
        self._namespace = namespace
        self._handover_timeout = handover_timeout
        self._may_declare = may_declare
        self._may_create = url is not None
        self._lock = threading.Lock()
        self._broker: Broker | None = None
        #: What the URL named when it was given; a broker that nobody uses, in an executor say, is not even imported.
        self._address: Address | None = None if url is None else read(url)

    @property
    def url(self) -> str:
        """The broker's URL, with its password."""
        return self._given_url or os.environ.get("DIBS_URL") or f"sqlite:///{os.path.abspath('dibs.db')}"  # noqa: PTH100

    @property
    def broker(self) -> Broker:
        """The broker, made at first use."""
        if self._broker is None:
            with self._lock:
                if self._broker is None:
                    self._broker = self._connect(self._address or self.url)
        return self._broker

    def use(self, url: str | None, *, may_create: bool, patience: float) -> None:
        """Mean another broker from now on, or allow to create the default file, or wait for less long."""
        with self._lock:
            self.close()
            self._broker = None
            if url:
                self._given_url, self._address = url, read(url)
            self._handover_timeout = min(self._handover_timeout, patience)
            self._may_create = self._may_create or may_create or url is not None

    def close(self) -> None:
        """Let go of the broker's connections; the next use opens them again."""
        if self._broker is not None:
            self._broker.close()

    def _connect(self, url: str | Address) -> Broker:
        return connect(
            url,
            namespace=self._namespace,
            handover_timeout=self._handover_timeout,
            may_declare=self._may_declare,
            may_create=self._may_create or bool(os.environ.get("DIBS_URL")),
        )
