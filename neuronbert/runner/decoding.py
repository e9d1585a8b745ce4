"""Makes results of the rows' outputs; those that take long in a thread of its own, so that nobody else waits for them.

``open_requests`` decides which, one at a time, and the ``inbox`` brings back what was made.
"""

import threading
from queue import SimpleQueue
from typing import Callable, NamedTuple, Optional, Sequence

from neuronbert.backends.outputs import Outputs
from neuronbert.runner.inbox import Decoded
from neuronbert.runner.requests import Finish, Request, now_s


class Order(NamedTuple):
    """What a result is made of: a request that has failed meanwhile has forgotten it."""

    request: Request
    finish: Finish
    outputs: Sequence[Optional[Outputs]]

    @classmethod
    def of(cls, request: Request) -> "Order":
        """Of a request whose rows are all answered."""
        return cls(request, request.finish, request.outputs)

    def decoded(self) -> Decoded:
        """The result, or what was raised instead: it concerns this request only."""
        began = now_s()
        try:
            result = self.finish({row: outputs for row, outputs in enumerate(self.outputs) if outputs is not None})
        except BaseException as error:  # sys.exit() too: it would end the thread, and whoever asked would wait for ever
            return Decoded(self.request, None, error, now_s() - began)
        return Decoded(self.request, result, None, now_s() - began)


class Decoder:
    """One thread, from the first order on. All but that is called in the runner's thread."""

    def __init__(self, put: Callable[[Decoded], None]):
        self._put = put
        self._orders: SimpleQueue[Optional[Order]] = SimpleQueue()
        self._thread: Optional[threading.Thread] = None

    def begin(self, request: Request) -> None:
        """Make the result of ``request`` and put it into the inbox."""
        order = Order.of(request)
        if self._is_there():
            self._orders.put(order)
        else:
            self._put(order.decoded())

    def end(self) -> None:
        """Wait for the result at hand."""
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()

    def _is_there(self) -> bool:
        if self._thread is None:
            thread = threading.Thread(target=self._run, name="neuronbert-decoder", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads on this machine: late is better than never
                return False
            self._thread = thread
        return True

    def _run(self) -> None:
        while True:
            order = self._orders.get()
            if order is None:
                return
            self._put(order.decoded())
            del order  # its outputs are large, and the next may be long in coming
