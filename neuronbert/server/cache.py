"""Answers that were given already, and those that are being made: what ``caching`` asks before it asks a runner.

Keys are digests of what an answer depends on; an answer is kept as the bytes that were sent. Nothing here does I/O, and
all of it belongs to one event loop's thread.
"""

import asyncio
import hashlib
import time
from collections import Counter
from typing import (
    Any,
    Awaitable,
    Callable,
    Dict,
    Generic,
    List,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    TypeVar,
)
from typing import Counter as CounterOf

from neuronbert.errors import NeuronBertError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.server.failures import Header, is_of_the_request

with optional_imports():
    import cachetools
    import msgspec

KEY_BYTES = 32
LARGEST_SHARE = 8  # an answer of more than one part in so many of the cache would push out too many others
# What an entry takes beside the bytes of its answer: its objects, and its places in cachetools' dictionaries and heap.
OVERHEAD_BYTES = 900
_HEADER_BYTES = 160  # the objects of one header
# cachetools 8.0 fails with AttributeError when it is given something that has expired already.
LEAST_LEFT_S = 0.001

Value = TypeVar("Value")


class Answer(NamedTuple):
    """What is kept of a successful answer: its encoded body, and the headers that belong to it."""

    body: bytes
    content_type: bytes
    headers: Tuple[Header, ...] = ()

    @property
    def size_bytes(self) -> int:
        """In the cache, with its key and all that holds it."""
        of_headers = sum(len(name) + len(value) + _HEADER_BYTES for name, value in self.headers)
        return len(self.body) + len(self.content_type) + of_headers + OVERHEAD_BYTES


class Found(NamedTuple):
    """An answer of the cache, and how long ago it was made."""

    answer: Answer
    age_s: float


def key_of(identity: Sequence[Any], asked: Any) -> Optional[bytes]:
    """The key of what is asked, of whom and for whom (``identity``); None for what no key can hold.

    Two bodies have the same key where they say the same: the order of an object's members does not matter, and one
    that is left out is as one that is null, or as an object without members.
    """
    try:
        packed = msgspec.msgpack.encode((*identity, _normalised(asked)))
    except (OverflowError, UnicodeEncodeError, RecursionError):  # more than 64 bits, half a surrogate pair, too deep
        return None
    return hashlib.blake2b(packed, digest_size=KEY_BYTES).digest()


def _normalised(value: Any) -> Any:
    """``value`` without what is left out, and in one order. Lists are as they are: order is what they say."""
    if isinstance(value, msgspec.Struct):
        members = {}
        for name in value.__struct_fields__:
            member = getattr(value, name)
            if member is None:
                continue  # most are: this is done for every request
            member = _normalised(member)
            if member != {}:
                members[name] = member
        return members
    if isinstance(value, dict):
        return {name: _normalised(value[name]) for name in sorted(value)}
    if isinstance(value, tuple):
        return [_normalised(each) for each in value]
    return value


class LocalCache:
    """Answers in this process: those that were asked for last, in ``most_bytes`` at most, for ``ttl_s`` each."""

    def __init__(self, most_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic):
        self.most_bytes_each = most_bytes // LARGEST_SHARE
        self._ttl_s = ttl_s
        self._clock = clock
        self._kept: Any = cachetools.TLRUCache(
            maxsize=most_bytes,
            ttu=lambda key, kept, now: now + kept.left_s,
            timer=clock,
            getsizeof=lambda kept: kept.answer.size_bytes,
        )

    def get(self, key: bytes) -> Optional[Found]:
        """The answer of this key, unless it is too old."""
        kept: Optional[_Kept] = self._kept.get(key)
        return None if kept is None else Found(kept.answer, max(0.0, self._clock() - kept.made_at_s))

    def put(self, key: bytes, answer: Answer, age_s: float = 0.0) -> None:
        """Keep an answer that was made ``age_s`` ago, unless it is too old or too large."""
        left_s = self._ttl_s - age_s
        if left_s >= LEAST_LEFT_S and answer.size_bytes <= self.most_bytes_each:
            self._kept[key] = _Kept(answer, self._clock() - age_s, left_s)

    def size(self) -> Tuple[int, int]:
        """How many answers it holds that are not too old, and their bytes."""
        self._kept.expire()
        return len(self._kept), int(self._kept.currsize)


class _Kept(NamedTuple):
    answer: Answer
    made_at_s: float  # on the cache's clock
    left_s: float  # that it had when it was put there


class Flights(Generic[Value]):
    """What is being made at the moment, by key: whoever wants the same waits for it instead of making it again.

    is_shared: whether a failure is that of what was wanted, so that whoever wants the same would meet it too.
    """

    def __init__(self, is_shared: Callable[[BaseException], bool] = lambda error: False) -> None:
        self._is_shared = is_shared
        self._waiting: Dict[bytes, List[asyncio.Future[Optional[Value]]]] = {}

    def join(self, key: bytes) -> "Optional[asyncio.Future[Optional[Value]]]":
        """None where nobody makes it; else a future of the caller's own, which may end it as it likes.

        It raises a failure that is shared. Its result is None where whoever made it failed otherwise: then the caller
        looks again, and makes it if it is the first to.
        """
        waiting = self._waiting.get(key)
        if waiting is None:
            return None
        future: asyncio.Future[Optional[Value]] = asyncio.get_running_loop().create_future()
        waiting.append(future)
        return future

    async def lead(self, key: bytes, make: Callable[[], Awaitable[Value]]) -> Value:
        """What ``make`` returns or raises, for all who join meanwhile. Only where nobody else makes it."""
        assert key not in self._waiting
        waiting = self._waiting[key] = []
        made: Optional[Value] = None
        shared: Optional[NeuronBertError] = None
        try:
            made = await make()
            return made
        except Exception as error:
            shared = error if isinstance(error, NeuronBertError) and self._is_shared(error) else None
            raise
        finally:
            del self._waiting[key]
            for future in waiting:
                if not future.done():
                    _settle(future, made, shared)


def _settle(future: "asyncio.Future[Optional[Value]]", made: Optional[Value], error: Optional[NeuronBertError]) -> None:
    if error is None:
        future.set_result(made)
    else:
        future.set_exception(error.again())


class Shared(Protocol):
    """Answers of several servers, behind those of this process."""

    unreachable: int  # times that it could not be asked
    unverified: int  # answers that nobody with the secret wrote

    def open(self) -> None:
        """Begin to use it. In the loop of all other calls."""

    async def get(self, key: bytes) -> Optional[Found]:
        """The answer of this key, if it comes at once. Never raises what is wrong with the connection."""

    def put(self, key: bytes, answer: Answer) -> None:
        """Share an answer that was just made; nobody waits for that."""

    async def close(self) -> None:
        """Give up what is under way, and the connections."""


class ResultCache(Generic[Value]):
    """The cache of a server: answers here, those that are being made, and those of other servers."""

    def __init__(self, local: LocalCache, shared: Optional[Shared] = None):
        self.local = local
        self.shared = shared
        self.flights: Flights[Value] = Flights(is_of_the_request)
        self.requests: CounterOf[Tuple[str, str]] = Counter()  # by model and result

    def open(self) -> None:
        """Begin to connect, if it has whom to."""
        if self.shared is not None:
            self.shared.open()

    async def find_shared(self, key: bytes) -> Optional[Found]:
        """The answer of another server, which is kept here too."""
        found = None if self.shared is None else await self.shared.get(key)
        if found is not None:
            self.local.put(key, found.answer, found.age_s)
        return found

    def put(self, key: bytes, answer: Answer) -> None:
        """Keep an answer that was just made."""
        self.local.put(key, answer)
        if self.shared is not None:
            self.shared.put(key, answer)

    async def close(self) -> None:
        """End the connections, if it has any."""
        if self.shared is not None:
            await self.shared.close()
