"""How many rows may wait, and who is let in next: ``admission`` asks for room, the runner's thread gives it back.

A request is let in whole as soon as one place is free: its size makes no difference, and the queue is longer than its
limit by what the last one brought. Two kinds of callers share what comes free. Those that cannot wait (``submit``) are
let in or refused at once. Those that wait (``map``) stand in a line. Neither keeps the other out: after one from the
line, others get as many rows before the next of it; and the line leaves the last places to those that cannot wait.
"""

import threading
from collections import deque
from typing import Callable, Deque

KEPT_FREE = 8  # one in so many places is for those that cannot wait, once the line has had its turn
LOOK_S = 0.5  # how often one in the line looks whether it still should wait


class Places:
    """The rule, without locks. ``rows``: those that wait, wherever they do: the one count of them."""

    def __init__(self, max_rows: int):
        self.max_rows = max_rows
        self.rows = 0
        self.line: Deque[object] = deque()  # the first is next
        self._owed = 0  # rows that others may bring before it is the line's turn

    @property
    def is_line_next(self) -> bool:
        """Whether the next free place is for the first in the line."""
        return bool(self.line) and self._owed <= 0

    @property
    def has_room(self) -> bool:
        """Whether one that cannot wait is let in."""
        return self.rows < self.max_rows and not self.is_line_next

    def has_room_for(self, ticket: object) -> bool:
        """Whether the owner of ``ticket``, which is in the line, is let in."""
        limit = self.max_rows if self.is_line_next else self.max_rows - self.max_rows // KEPT_FREE
        return self.line[0] is ticket and self.rows < limit

    def enter(self, rows: int) -> None:
        """Let one in that cannot wait."""
        self.rows += rows
        self._owed -= rows

    def enter_from_line(self, rows: int) -> None:
        """Let the first of the line in."""
        self.line.popleft()
        self.rows += rows
        self._owed = rows


class Room:
    """``Places`` for many threads."""

    def __init__(self, max_rows: int):
        self._places = Places(max_rows)
        self._changed = threading.Condition()

    @property
    def max_rows(self) -> int:
        """Rows that may wait, beside those that the last request brings."""
        return self._places.max_rows

    @property
    def rows(self) -> int:
        """Rows that wait."""
        return self._places.rows

    @property
    def is_open(self) -> bool:
        """Whether ``enter`` would let one in now."""
        return self._places.has_room

    def enter(self, rows: int) -> bool:
        """Let a request of ``rows`` in, or say at once that there is no room."""
        with self._changed:
            if not self._places.has_room:
                return False
            self._places.enter(rows)
            if self._places.is_line_next:
                self._changed.notify_all()
            return True

    def wait_and_enter(self, rows: int, give_up: Callable[[], bool]) -> bool:
        """Wait in the line until a request of ``rows`` is let in; False once ``give_up`` says so."""
        ticket, places = object(), self._places
        with self._changed:
            places.line.append(ticket)
            try:
                while not places.has_room_for(ticket):
                    if give_up():
                        return False
                    self._changed.wait(LOOK_S)
                places.enter_from_line(rows)
                return True
            finally:  # the next in the line may have been kept from entering by this one only
                if ticket in places.line:
                    places.line.remove(ticket)
                self._changed.notify_all()

    def leave(self, rows: int) -> None:
        """``rows`` wait no longer: they are with a worker, or nobody asks for them any more."""
        with self._changed:
            self._places.rows -= rows
            if self._places.line:
                self._changed.notify_all()

    def come_back(self, rows: int) -> None:
        """``rows`` wait again, room or not: they were let in before."""
        with self._changed:
            self._places.rows += rows
