"""How many rows may wait, and who is let in next: ``admission`` asks for room, the runner's thread gives it back.

A request is let in whole as soon as one place is free: its size makes no difference, and the queue is longer than its
limit by what the last one brought. Two kinds of callers share what comes free. Those that cannot wait (``submit``) are
let in or refused at once. Those that wait (``map``) stand in a line. Neither keeps the other out: after one from the
line, others get as many rows before the next of it; and the line leaves the last places to those that cannot wait.

Ctrl-C may interrupt a caller at any call. What it leaves then would keep the runner's thread, and with it everybody,
waiting for ever; so the lock is one whose ``with`` is C code throughout (``threading.Condition``'s is not), and a
ticket says whether its rows are counted.
"""

import threading
from collections import deque
from typing import Callable, Deque

KEPT_FREE = 8  # one in so many places is for those that cannot wait, once the line has had its turn
LOOK_S = 0.5  # how often one in the line looks whether it still should wait


class Ticket:
    """One request at the door: what it brings, and whether that is counted."""

    def __init__(self, rows: int):
        self.rows = rows
        self.is_in = False
        self._call = threading.Lock()  # held until the ticket is called
        self._call.acquire()

    def call(self) -> None:
        """Have its owner look again."""
        try:
            self._call.release()
        except RuntimeError:  # it was called before, and has not looked yet
            pass

    def wait(self, timeout_s: float) -> None:
        """Until it is called, ``timeout_s`` at most."""
        self._call.acquire(timeout=timeout_s)


class Places:
    """The rule, without locks. ``rows``: those that wait, wherever they do: the one count of them."""

    def __init__(self, max_rows: int):
        self.max_rows = max_rows
        self.rows = 0
        self.line: Deque[Ticket] = deque()  # the first is next
        self._owed = 0  # rows that others may bring before it is the line's turn

    @property
    def is_line_next(self) -> bool:
        """Whether the next free place is for the first in the line."""
        return bool(self.line) and self._owed <= 0

    @property
    def has_room(self) -> bool:
        """Whether one that cannot wait is let in."""
        return self.rows < self.max_rows and not self.is_line_next

    def has_room_for(self, ticket: Ticket) -> bool:
        """Whether ``ticket``, which is in the line, is let in."""
        limit = self.max_rows if self.is_line_next else self.max_rows - self.max_rows // KEPT_FREE
        return self.line[0] is ticket and self.rows < limit

    # Python looks for signals at calls and at jumps backwards (since 3.10): between what stands together, none comes.

    def enter(self, ticket: Ticket) -> None:
        """Let one in that cannot wait."""
        self.rows += ticket.rows
        self._owed -= ticket.rows
        ticket.is_in = True

    def enter_from_line(self) -> None:
        """Let the first of the line in."""
        ticket = self.line.popleft()
        self.rows += ticket.rows
        self._owed = ticket.rows
        ticket.is_in = True


class Room:
    """``Places`` for many threads."""

    def __init__(self, max_rows: int):
        self._places = Places(max_rows)
        self._lock = threading.RLock()  # a signal's handler may submit while this thread does

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

    def enter(self, ticket: Ticket) -> bool:
        """Let a request in, or say at once that there is no room."""
        with self._lock:
            if not self._places.has_room:
                return False
            self._places.enter(ticket)
            if self._places.is_line_next:
                self._call_first()
            return True

    def wait_and_enter(self, ticket: Ticket, give_up: Callable[[], bool]) -> bool:
        """Wait in the line until a request is let in; False once ``give_up`` says so."""
        try:
            with self._lock:
                self._places.line.append(ticket)
            while True:
                with self._lock:
                    if self._places.has_room_for(ticket):
                        self._places.enter_from_line()
                        return True
                if give_up():
                    return False
                ticket.wait(LOOK_S)
        finally:  # the next in the line may have been kept from entering by this one only
            with self._lock:
                if ticket in self._places.line:
                    self._places.line.remove(ticket)
                self._call_first()

    def leave(self, rows: int) -> None:
        """``rows`` wait no longer: they are with a worker, or nobody asks for them any more."""
        with self._lock:
            self._places.rows -= rows
            self._call_first()

    def come_back(self, rows: int) -> None:
        """``rows`` wait again, room or not: they were let in before."""
        with self._lock:
            self._places.rows += rows

    def _call_first(self) -> None:
        if self._places.line:
            self._places.line[0].call()
