"""One request and its answer: who asks, how long it may take, what it asks of a runner, and where its time went.

``endpoints`` makes one for each request; the functions of ``protocols`` read its body and ask through it.
"""

import asyncio
import functools
import math
import os
import re
import threading
import time
import uuid
import zlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    List,
    Mapping,
    MutableMapping,
    Optional,
    Sequence,
    TypeVar,
)

from neuronbert.errors import (
    DeadlineExceeded,
    InputError,
    NeuronBertError,
    Overloaded,
    RunnerClosed,
    TooManyRows,
    UsageError,
    counted,
)
from neuronbert.hardware.libraries import optional_imports
from neuronbert.runner.requests import Prepared
from neuronbert.server.cache import ResultCache
from neuronbert.server.clients import Clients
from neuronbert.server.connections import GONE, OWING
from neuronbert.server.failures import ClientGone, Header, HttpError
from neuronbert.server.metrics import Metrics
from neuronbert.server.models import Model, Models
from neuronbert.server.settings import ServerSettings
from neuronbert.server.tracing import Tracer
from neuronbert.tasks.base import Input, Keywords
from neuronbert.tasks.http import cut_inputs

with optional_imports():
    import msgspec

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Waited = TypeVar("Waited")

# Text of at most so many bytes is tokenised in the loop's own thread. The demo checkpoint's tokenizer takes 0.3 ms for
# 1 KiB (measured; rows come on top), so that nobody else waits longer than about a millisecond, and the way to another
# thread and back takes 0.2 ms.
INLINE_BYTES = 2048
# Text that is with the threads together, beside that of the last one that was let in: what it becomes has some hundred
# times its size (measured: 1.9 GB of 15 MB).
MOST_TOKENISING_BYTES = 8 << 20
# Of text that may be tokenised before its rows are counted, to a token of as many rows as one request may have. English
# has four or five to a token, and hardly any text more than ten.
CHARACTERS_PER_TOKEN = 16
# Never fewer characters than that: they take a few hundredths of a second, and text that the model cuts needs one row.
FEWEST_CHARACTERS = 65_536
UNLIMITED_TOKENS = 65_536  # of a row, where neither tokenizer nor model has a limit
WATCH_AFTER_S = 0.05  # an answer that comes sooner is not worth looking whether anybody still waits
LONGEST_ID = 128
_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,%d}" % LONGEST_ID)


class Service:
    """What all requests share."""

    def __init__(self, settings: ServerSettings, models: Models, cache: Optional[ResultCache[Any]] = None):
        self.settings = settings
        self.models = models
        self.cache = cache
        self.clients = Clients(settings.api_key, settings.max_rows_per_client)
        self.metrics = Metrics(models, cache)
        self.tracer = Tracer() if settings.trace else None
        self.tokenising = Tokenising(MOST_TOKENISING_BYTES)


class Tokenising:
    """Threads that tokenise, and how much text is with them: what nobody waits for any more is not stopped by that.

    most_bytes: beside those of the last that was let in, however large it is.
    """

    def __init__(self, most_bytes: int):
        self.most_bytes = most_bytes
        self._bytes = 0
        self._lock = threading.Lock()
        self._threads = ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 1), thread_name_prefix="neuronbert-tokenise")

    @property
    def has_room(self) -> bool:
        """Whether ``begin`` would let text in."""
        return self._bytes < self.most_bytes

    def begin(self, prepare: Callable[[], Prepared], size_bytes: int) -> "Future[Prepared]":
        """Call ``prepare`` in a thread, for about so many bytes of text; Overloaded where there are too many."""
        if not self.has_room:
            raise Overloaded(f"{self._bytes:,} bytes of text wait to be tokenised", hint="ask again later")
        with self._lock:
            self._bytes += size_bytes
        future = self._threads.submit(prepare)
        future.add_done_callback(lambda _: self._ended(size_bytes))
        return future

    def _ended(self, size_bytes: int) -> None:
        with self._lock:
            self._bytes -= size_bytes


class Exchange:
    """One request. Its methods raise what ``failures`` makes an answer of, and ClientGone."""

    def __init__(self, service: Service, scope: Scope, receive: Receive):
        self.service = service
        self.scope = scope
        self.started = time.perf_counter()
        self.headers: Dict[bytes, bytes] = dict(scope["headers"])
        self.request_id = _request_id(self.headers.get(b"x-request-id"))
        self.client = ""
        self.timeout_s = service.settings.request_timeout_s
        self.model: Optional[Model] = None
        self.rows = self.tokens = 0  # that it needed of the model
        self.body_bytes = 0
        self.breakdowns: List[Dict[str, Any]] = []  # of each answered input
        self.answer_headers: List[Header] = []
        self.is_read = False  # all of its body
        self._receive = receive
        self._is_gone: Callable[[], bool] = scope.get("extensions", {}).get(GONE, lambda: False)
        # To be told whether the client waits for answers to what it has sent so far of its body.
        self.owe: Callable[[bool], None] = scope.get("extensions", {}).get(OWING, lambda is_owing: None)
        self._asked_at: Optional[float] = None

    def refuse_gone(self) -> None:
        """Raise ClientGone where it is known that nobody waits any more, so that no work is begun for nobody."""
        if self._is_gone():
            raise ClientGone

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self.started

    # ---- what was sent

    def identify(self) -> None:
        """Know the client, and how long it waits; HttpError for one without a key, or a timeout that is none."""
        self.client = self.service.clients.identify(self.headers, self.scope.get("client"))
        self.wait_at_most_ms(self.headers.get(b"x-request-timeout-ms"), "the header X-Request-Timeout-Ms")

    def wait_at_most_ms(self, given: Any, what: str, per_ms: float = 1.0) -> None:
        """Answer within so many milliseconds, or units of which ``per_ms`` make one; HttpError for what is no time."""
        if given is None:
            return
        try:
            timeout_ms = math.nan if isinstance(given, bool) else float(given) / per_ms
        except (TypeError, ValueError, OverflowError):
            timeout_ms = math.nan
        if not 0 < timeout_ms < math.inf:
            shown = given.decode("latin-1") if isinstance(given, bytes) else given
            raise HttpError(
                400, f"{what} is {shown!r:.60}, not a time above 0", hint=f"{1000 * per_ms:.0f} is a second"
            )
        self.timeout_s = timeout_ms / 1000

    async def body(self) -> bytes:
        """All of the body, unpacked; HttpError 413 for a larger one than is taken."""
        most = self.service.settings.max_body_bytes
        declared = self.headers.get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > most:
            raise _too_large(most)
        parts = [part async for part in self.parts(most)]
        packed = parts[0] if len(parts) == 1 else b"".join(parts)
        body = _unpacked(packed, self.headers.get(b"content-encoding"), most)
        self.body_bytes = len(body)
        return body

    async def parts(self, most: Optional[int] = None) -> AsyncIterator[bytes]:
        """The body as it comes, in parts of any size; ClientGone where it ends too soon."""
        received = 0
        while not self.is_read:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            part = message.get("body", b"")
            received += len(part)
            if most is not None and received > most:
                raise _too_large(most)
            self.is_read = not message.get("more_body", False)
            yield part

    async def until_gone(self) -> None:
        """Until the client has gone. Once all of the body is read, and in one task at a time."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def decoded(self, decoder: "msgspec.json.Decoder[Any]") -> Any:
        """The body as JSON of the decoder's type; HttpError 400 with the place of what is wrong in it."""
        return decoded(await self.body(), decoder)

    # ---- asking

    async def ask(
        self, model: Model, inputs: Sequence[Input], keywords: Keywords, *, place: str = "$.inputs", **how: Any
    ) -> List[Any]:
        """The result of each input. ``place``: of the inputs in the body, which an error names."""

        def prepare(model: Model) -> Prepared:
            refuse_more_text(model, inputs, self.body_bytes, self.service.settings.max_rows_per_request)
            return model.runner.prepare(inputs, timeout_s=self._left_s(), breakdown=True, **how, **keywords)

        try:
            results = await self._asked(model, prepare)
        except UsageError as error:
            raise HttpError(400, error.message, hint=error.hint, path="$.parameters") from None
        except InputError as error:
            raise placed(error, place) from None
        cut = cut_inputs(results)
        if cut:
            self.answer_headers.append((b"x-truncated", ",".join(map(str, cut)).encode()))
        return results

    async def ask_encoded(self, model: Model, *arrays: Any, place: str = "$.inputs") -> Any:
        """The model's outputs for rows of token ids: int64 [rows, tokens] each, as ``Runner.submit_encoded`` takes."""

        def prepare(model: Model) -> Prepared:
            return model.runner.prepare_encoded(*arrays, timeout_s=self._left_s(), breakdown=True)

        try:
            return (await self._asked(model, prepare))[0]
        except InputError as error:
            raise placed(error, place) from None

    async def _asked(self, model: Model, prepare: Callable[[Model], Prepared]) -> List[Any]:
        self._asking_since()
        while True:
            self.model = model
            try:
                prepared = await self.prepared(functools.partial(prepare, model), self.body_bytes)
                return await self._answers(model, prepared)
            except RunnerClosed:
                model = self.newer(model)

    def newer(self, model: Model) -> Model:
        """What was put in the place of ``model``, whose runner is closed; RunnerClosed where nothing was."""
        newer = self.service.models.in_place(model)
        if newer is None:
            raise RunnerClosed(f"{model.name} takes no more requests")
        return newer

    async def prepared(self, prepare: Callable[[], Prepared], size_bytes: int) -> Prepared:
        """What ``prepare`` makes of about so many bytes of text: in another thread where they are many."""
        if size_bytes <= INLINE_BYTES:
            return prepare()
        future = self.service.tokenising.begin(prepare, size_bytes)
        await self._all_done([future])
        return future.result()

    async def _answers(self, model: Model, prepared: Prepared) -> List[Any]:
        refuse_more_rows(self, prepared.rows)
        self.rows, self.tokens = prepared.rows, prepared.tokens
        # Others that came with it are tokenised first: then all of them are there when a batch leaves.
        await asyncio.sleep(0)
        with self.service.clients.holding(self.client, prepared.rows, functools.partial(_predicted_wait_s, model)):
            futures = model.runner.submit_prepared(prepared)
            await self._all_done(futures)
        answered = [future.result() for future in futures]
        self.breakdowns = [each.breakdown for each in answered]
        return [each.result for each in answered]

    async def _all_done(self, futures: Sequence["Future[Any]"]) -> None:
        """Until each has its result, or one an error, which is raised; then, and if nobody waits, the rest is freed."""
        try:
            await self.until(_when_done(asyncio.get_running_loop(), futures))
        finally:
            for future in futures:
                future.cancel()

    async def until(self, done: "asyncio.Future[Waited]") -> Waited:
        """The result of ``done``; DeadlineExceeded where that comes too late, ClientGone once nobody waits for it.

        The time that the client gave is for all that it waits for.
        """
        loop = asyncio.get_running_loop()
        began = self._asking_since()
        timers = [loop.call_later(WATCH_AFTER_S, self._watch, done)]
        if self.timeout_s is not None:
            timers.append(loop.call_at(loop.time() + began + self.timeout_s - time.perf_counter(), _late, done, self))
        try:
            return await done
        finally:
            for timer in timers:
                timer.cancel()

    def _asking_since(self) -> float:
        if self._asked_at is None:
            self._asked_at = time.perf_counter()
        return self._asked_at

    def _left_s(self) -> Optional[float]:
        """Of the time that the client gave; DeadlineExceeded where none is."""
        if self.timeout_s is None:
            return None
        left_s = self._asking_since() + self.timeout_s - time.perf_counter()
        if left_s <= 0:
            raise too_late(self)
        return left_s

    def _watch(self, done: "asyncio.Future[Any]") -> None:
        watching = asyncio.ensure_future(self.until_gone())
        watching.add_done_callback(lambda _: _fail(done, ClientGone()))
        done.add_done_callback(lambda _: watching.cancel())


def refuse_more_rows(exchange: Exchange, rows: int) -> None:
    """HttpError 413 for more rows than one request may need."""
    most = exchange.service.settings.max_rows_per_request
    if rows > most:
        raise HttpError(
            413, f"this request needs {counted(rows, 'row')}, and the server takes {most:,} at once", hint=FEWER_ROWS
        )


def refuse_more_text(model: Model, inputs: Any, size_bytes: int, most_rows: int) -> None:
    """TooManyRows for text that is more than ``most_rows`` rows in all likelihood, before it is tokenised.

    size_bytes: of the JSON, or whatever else the text came in, which has no more characters than that.
    """
    most = max(FEWEST_CHARACTERS, most_rows * longest_row(model) * CHARACTERS_PER_TOKEN)
    if size_bytes > most and characters(inputs) > most:
        raise TooManyRows(f"there are more than {most:,} characters, and the server takes {most_rows:,} rows at once")


def characters(inputs: Any) -> int:
    """Of all texts in inputs, however a task has them: as lists, tuples or objects of texts."""
    if isinstance(inputs, str):
        return len(inputs)
    if isinstance(inputs, Mapping):
        return sum(map(characters, inputs.values()))
    return sum(map(characters, inputs)) if isinstance(inputs, (list, tuple)) else 0


def longest_row(model: Model) -> int:
    """Tokens of a row at most."""
    return model.runner.tokenizer.max_length or UNLIMITED_TOKENS


def decoded(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """``body`` as JSON of the decoder's type; HttpError 400 with the place of what is wrong in it."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        message, at, place = str(error).partition(" - at `")
        raise HttpError(
            400, f"{place.rstrip('`')}: {message}" if at else message, path=place.rstrip("`") or "$"
        ) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise HttpError(400, f"the body is no JSON: {error}", path="$") from None


def _request_id(given: Optional[bytes]) -> str:
    """The client's own where it can be written anywhere as it is, else a new one."""
    return given.decode() if given is not None and _ID.fullmatch(given) else uuid.uuid4().hex


def _too_large(most: int) -> HttpError:
    return HttpError(
        413,
        f"the body has more than the {most:,} bytes that this server takes",
        hint="fewer inputs in each request, or POST /v1/bulk",
    )


def _unpacked(body: bytes, encoding: Optional[bytes], most: int) -> bytes:
    """A body that came with this Content-Encoding; a small one may unpack to gigabytes, of which ``most`` are made."""
    name = (encoding or b"identity").strip().lower()
    if name == b"identity":
        return body
    if name not in _WINDOW_BITS:
        raise HttpError(415, f"Content-Encoding {name.decode('latin-1')[:40]!r} is not taken", hint="gzip or deflate")
    unpacking = zlib.decompressobj(_WINDOW_BITS[name])
    try:
        unpacked = unpacking.decompress(body, most + 1)
    except zlib.error as error:
        raise HttpError(400, f"the body is no {name.decode()}: {error}") from None
    if len(unpacked) > most:
        raise _too_large(most)
    if not unpacking.eof:
        raise HttpError(400, f"the body is no {name.decode()}: it ends too soon")
    return unpacked


_WINDOW_BITS: Mapping[bytes, int] = {b"gzip": 31, b"deflate": 15}  # zlib's numbers for both formats

FEWER_ROWS = "fewer or shorter inputs in each request; the server's --max-rows-per-request is the limit"
_PLACE = re.compile(r"inputs(\[\d+\]): ")


def placed(error: NeuronBertError, place: str) -> HttpError:
    """The error of an input with its place in the body."""
    found = _PLACE.match(error.message)
    if error.message.startswith("$"):
        path, message = error.message.split(": ", 1)[0], error.message
    elif found:
        path = place + found[1]
        message = f"{path}: {error.message[found.end() :]}"
    else:
        path, message = place, f"{place}: {error.message}"
    hint = FEWER_ROWS if isinstance(error, TooManyRows) else error.hint  # which is for users of Runner
    return HttpError(error.http_status, message, hint=hint, path=path)


def _predicted_wait_s(model: Model) -> Optional[float]:
    return model.runner.stats()["queue"]["predicted_wait_s"]


def _when_done(loop: asyncio.AbstractEventLoop, futures: Sequence["Future[Any]"]) -> "asyncio.Future[None]":
    """Done once all of ``futures`` are, or with the error of the first that fails: the loop is woken once."""
    done: asyncio.Future[None] = loop.create_future()
    left = Countdown(len(futures))

    def called(future: "Future[Any]") -> None:
        error = None if future.cancelled() else future.exception()
        if left.is_last() or error is not None:
            loop.call_soon_threadsafe(_settle, done, error)

    for future in futures:
        future.add_done_callback(called)
    return done


class Countdown:
    """Counts down in several threads: an answer may come while the next is waited for."""

    def __init__(self, count: int):
        self._count = count
        self._lock = threading.Lock()

    def is_last(self) -> bool:
        with self._lock:
            self._count -= 1
            return self._count == 0


def _settle(done: "asyncio.Future[None]", error: Optional[BaseException]) -> None:
    if error is not None:
        _fail(done, error)
    elif not done.done():
        done.set_result(None)


def _fail(done: "asyncio.Future[Any]", error: BaseException) -> None:
    if not done.done():
        done.set_exception(error)


def _late(done: "asyncio.Future[Any]", exchange: Exchange) -> None:
    _fail(done, too_late(exchange))


def too_late(exchange: Exchange) -> DeadlineExceeded:
    """What it is told whose time is over."""
    return DeadlineExceeded(f"the answer was not there within {exchange.timeout_s:.3g} s")
