"""Many inputs through the runner, in their order and in bounded memory: ``Runner.map``. ``admission`` lets each in."""

import itertools
from collections import deque
from concurrent.futures import CancelledError, Future
from typing import Any, Deque, Iterator, List, Optional, Tuple

from neuronbert.errors import NeuronBertError
from neuronbert.runner.admission import Admission
from neuronbert.runner.futures import AnyFuture
from neuronbert.runner.request_factory import CHUNK, Options, RequestFactory
from neuronbert.runner.requests import Prepared
from neuronbert.tasks.base import Input
from neuronbert.tasks.encoding import place_in


class InputMapping:
    """One call of ``map``: its inputs, what to do with them, and how many of them may wait."""

    def __init__(self, admission: Admission, requests: RequestFactory, options: Options, most_waiting: int):
        self._admission = admission
        self._requests = requests
        self._options = options
        self._most_waiting = most_waiting

    def results(self, source: Iterator[Input], on_error: str) -> Iterator[Any]:
        """The result of each input, or its error, raised or yielded; after them what ``source`` raises."""
        waiting: Deque[Tuple[int, AnyFuture]] = deque()
        inputs = _UntilItRaises(source)
        try:
            for numbered in enumerate(self._futures(iter(inputs))):
                waiting.append(numbered)
                # As many as may wait: more would only be kept here instead of in the queue.
                while len(waiting) > self._most_waiting or (waiting and waiting[0][1].done()):
                    yield _outcome(*waiting.popleft(), on_error)
            while waiting:
                yield _outcome(*waiting.popleft(), on_error)
            if inputs.error is not None:
                raise inputs.error
        finally:
            if not self._admission.is_elsewhere:  # a fork has no part in them
                for _, future in waiting:
                    future.cancel()

    def _futures(self, source: Iterator[Input]) -> Iterator[AnyFuture]:
        """The future of each input."""
        chunks: Iterator[List[Input]] = iter(lambda: list(itertools.islice(source, CHUNK)), [])
        for chunk in chunks:
            self._admission.refuse_elsewhere()
            for request in self._requests.of_inputs(chunk, self._options):
                if isinstance(request, NeuronBertError):
                    yield _failed(request)
                    continue
                yield from self._admission.admit(Prepared([request]), wait=True)


class _UntilItRaises:
    """Inputs up to the one in whose place their source raises ``error``."""

    def __init__(self, source: Iterator[Input]):
        self.error: Optional[Exception] = None
        self._source = source

    def __iter__(self) -> Iterator[Input]:
        try:
            yield from self._source
        except Exception as error:
            self.error = error


def _failed(error: NeuronBertError) -> AnyFuture:
    future: AnyFuture = Future()
    future.set_exception(error)
    return future


def _outcome(number: int, future: AnyFuture, on_error: str) -> Any:
    """The result of input ``number``, or its error, which names it."""
    try:
        return future.result()
    except (NeuronBertError, CancelledError) as error:
        named = error.at(place_in(number)) if isinstance(error, NeuronBertError) else error
        if on_error == "raise":
            raise named from None
        return named
