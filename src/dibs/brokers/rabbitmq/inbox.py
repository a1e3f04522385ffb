"""What threads have for the I/O thread: taken all together, so that callers who come together share its wake-up.

What it took at a time goes out in one write. It knows nothing of what becomes of a flight.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

from dibs.brokers.rabbitmq.flight import Flight
from dibs.errors import DibsError


class Inbox:
    """The flights that the I/O thread has not taken yet."""

    def __init__(self, tell: Callable[[], None]) -> None:
        """Begin empty.

        Args:
            tell: has the I/O thread call `take`. It raises a DibsError if that thread has ended.
        """
        self._tell = tell
        self._flights: deque[tuple[Flight, Callable[[], object]]] = deque()
        self._is_told = False

    def put(self, flight: Flight, on_over: Callable[[], object]) -> None:
        """Leave a flight for the I/O thread, and what is to be called when it is over. On any thread.

        Raises:
            DibsError: there is nobody to take it.
        """
        self._flights.append((flight, on_over))
        if not self._is_told:  # else it takes this one along
            self._is_told = True
            try:
                self._tell()
            except DibsError as error:
                self.refuse(error)
                raise

    def refuse(self, error: DibsError) -> None:
        """End all that is here, as there is no I/O thread any more."""
        for flight, on_over in self.take():
            flight.error = error
            on_over()

    def take(self) -> Iterator[tuple[Flight, Callable[[], object]]]:
        """Take all that is here by now."""
        self._is_told = False  # first: what comes from now on is told anew
        while self._flights:
            yield self._flights.popleft()
