"""What was asked of the runner: rows for the model, the future that waits for them, and when each thing happened."""

import math
import time
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, NoReturn, Optional, Sequence, Set, Tuple, Union

import numpy as np

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Outputs
from neuronbert.errors import UsageError
from neuronbert.runner.blocks import Block
from neuronbert.runner.futures import RunnerFuture
from neuronbert.runner.suspicion import NO_BLAME, Blame

# Of each row that was read the outputs, un-padded, or what is wanted of them → the result, or MoreRows.
Finish = Callable[[Mapping[int, Outputs]], Any]

Whole = Union[Batch, Block]  # goes to one worker as it is, and nothing is put beside it
Told = Callable[[float], None]  # the share of a block's rows that is done

WHOLE_BATCH = -1  # in place of a row's index: all of what the request has to go as it is


class MoreRows(NamedTuple):
    """In place of a result: numbers of rows that have to be read before there is one."""

    numbers: Sequence[int]


class Row(NamedTuple):
    """One row for the model, unpadded: int64 arrays of shape [tokens]. No mask means that every token counts.

    ``wanted``: what the task's Reduction leaves of its outputs; None: all.
    """

    input_ids: np.ndarray
    token_type_ids: np.ndarray
    attention_mask: Optional[np.ndarray] = None
    wanted: Optional[Tuple[int, ...]] = None


class Answered(NamedTuple):
    """What ``submit(..., breakdown=True)`` gives: the result, and where its time went."""

    result: Any
    breakdown: Dict[str, Any]


class Trip(NamedTuple):
    """One batch that rows of a request went in, there and back."""

    worker: int
    cores: str
    reason: str  # for which the batch left
    rows: int  # of the whole batch
    fill: float
    padding: float
    sent: float
    done: float
    device_s: float


@dataclass(eq=False)
class Request:
    """One accepted request. Times are those of ``now_s``."""

    id: int
    rows: Sequence[Row]
    finish: Finish
    submitted: float
    accepted: float = 0.0  # tokenised and queued
    since: float = 0.0  # its place in the queue: when it was accepted, or sent to the end again
    deadline: float = math.inf
    first_rows: Optional[Sequence[int]] = None  # numbers of the rows that are read at first; None: all
    whole: Optional[Whole] = None  # in place of rows
    wants_breakdown: bool = False
    is_slow_to_decode: bool = False  # others should not wait while its result is made of the outputs
    told: Told = lambda share: None  # in the runner's thread: quick
    future: RunnerFuture = field(default_factory=RunnerFuture)

    deaths: int = 0  # workers that died with it
    blame: Blame = NO_BLAME
    alone: bool = False  # a suspect, or in a batch that failed: from now on nothing is beside it in a worker
    asked: Set[int] = field(default_factory=set)  # rows that are read, or will be
    waiting: Set[int] = field(default_factory=set)  # those of them that are not with a worker and have no outputs
    awaits_decoding: bool = False  # all rows are answered, and the result of another request is made first
    over: bool = False  # has its outcome
    sent_first: float = 0.0
    batch_wait_s: float = 0.0  # the part of its time in the queue when a worker had room and it waited for other rows
    trips: List[Trip] = field(default_factory=list)
    outputs: List[Optional[Outputs]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.outputs = [None] * (1 if self.whole is not None else len(self.rows))
        self.asked = set(range(len(self.outputs)) if self.first_rows is None else self.first_rows)
        self.waiting = {WHOLE_BATCH} if self.whole is not None else set(self.asked)

    def forget(self) -> None:
        """Drop what is large: a caller may keep the future, and queue and deadlines the request for a while."""
        self.rows, self.whole, self.outputs, self.finish = (), None, [], _forgotten
        self.asked = set()

    @property
    def size(self) -> int:
        """Rows, which is what a place in the queue is counted in; of a block its entries: nobody knows its rows yet."""
        if self.whole is None:
            return len(self.rows)
        return len(self.whole.entries if isinstance(self.whole, Block) else self.whole.input_ids)

    @property
    def is_answered(self) -> bool:
        """Whether all that was asked has outputs."""
        return not any(self.outputs[number] is None for number in self.asked)

    @property
    def tokens(self) -> int:
        """Of its rows, special ones included; of a block nobody has counted them: 0."""
        if self.whole is None:
            return sum([len(row.input_ids) for row in self.rows])
        return 0 if isinstance(self.whole, Block) else int(self.whole.attention_mask.sum())

    @property
    def queued(self) -> int:
        """Rows that wait, wherever they do: also those that may never be asked, for they are held until it is over."""
        if self.awaits_decoding or WHOLE_BATCH in self.waiting:
            return self.size
        return len(self.waiting) + self.unread

    @property
    def unread(self) -> int:
        """Rows that are not asked (yet)."""
        return 0 if self.whole is not None else len(self.rows) - len(self.asked)

    def breakdown(self, done: float, decode_s: float) -> Dict[str, Any]:
        """Where the time went, in milliseconds, and with whom."""
        last = self.trips[-1]
        milliseconds = {
            "tokenise_ms": self.accepted - self.submitted,
            "queue_ms": self.sent_first - self.accepted - self.batch_wait_s,
            "batch_wait_ms": self.batch_wait_s,
            "worker_wait_ms": max(0.0, last.done - last.sent - last.device_s),
            "device_ms": last.device_s,
            "decode_ms": decode_s,
            "total_ms": done - self.submitted,
        }
        facts = {name: getattr(last, name) for name in ("worker", "cores", "reason", "rows", "fill", "padding")}
        return {
            **{name: seconds * 1000 for name, seconds in milliseconds.items()},
            **facts,
            "batches": len(self.trips),
            "deaths": self.deaths,
        }


class Prepared:
    """Inputs that are tokenised, for ``Runner.submit_prepared``: once, all of them or none.

    rows: windows that they need, all inputs together; what a place in the queue is counted in.
    """

    def __init__(self, requests: Sequence[Request], timeout_s: Optional[float] = None, maker: object = None):
        self.rows = sum([request.size for request in requests])
        self.tokens = sum([request.tokens for request in requests])
        self.timeout_s = timeout_s  # from when they came to be tokenised
        self.maker = maker  # the requests of another runner have its task and its numbers
        self._requests = [requests]  # until they are taken: texts and rows are kept no longer than anybody needs them

    def take(self) -> Sequence[Request]:
        """The requests, to be let in; UsageError the second time."""
        try:
            return self._requests.pop()  # one of two threads, never both
        except IndexError:
            raise UsageError("these inputs were submitted before", hint="prepare them again") from None

    def give_back(self, requests: Sequence[Request]) -> None:
        """They were taken, and not let in: nothing happened to them."""
        self._requests.append(requests)


def _forgotten(read: Mapping[int, Outputs]) -> NoReturn:
    raise AssertionError("a request has one outcome")


def now_s() -> float:
    """The runner's clock: ``time.perf_counter``, in seconds."""
    return time.perf_counter()
