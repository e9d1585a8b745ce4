"""One request and its answer: who asks, how long it may take, what it asks of a runner, and where its time went.

``endpoints`` makes one for each request; the functions of ``protocols`` read its body and ask through it.
"""

import asyncio
import functools
import math
import os
import re
import time
from concurrent.futures import Future
from typing import (
    Any,
    AsyncIterator,
    Awaitable,
    Callable,
    Dict,
    List,
    MutableMapping,
    Optional,
    Sequence,
    TypeVar,
    Union,
)

from neuronbert.errors import (
    ArtifactError,
    BackendFailed,
    DeadlineExceeded,
    InputError,
    NeuronBertError,
    RunnerClosed,
    TooManyRows,
    UsageError,
)
from neuronbert.hardware.libraries import optional_imports
from neuronbert.runner.requests import Prepared
from neuronbert.server.bodies import MOST_UNFINISHED_BODIES, IncomingBody, Message, Receive, Unfinished, decoded
from neuronbert.server.cache import ResultCache
from neuronbert.server.clients import Clients
from neuronbert.server.connections import GONE, OWING
from neuronbert.server.failures import ClientGone, Header, HttpError, Places, listed
from neuronbert.server.limits import FEWER_ROWS, refuse_more_rows, refuse_more_text
from neuronbert.server.metrics import Metrics
from neuronbert.server.models import Model, Models
from neuronbert.server.settings import ServerSettings
from neuronbert.server.tracing import Tracer
from neuronbert.server.waiting import INLINE_BYTES, MOST_TOKENISING_BYTES, Tokenising, fail, when_done
from neuronbert.tasks.base import Input, Keywords
from neuronbert.tasks.http import cut_inputs

with optional_imports():
    import msgspec

Scope = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Waited = TypeVar("Waited")
Place = Union[str, Places]  # a str is that of a list of inputs, in a body with parameters

WATCH_AFTER_S = 0.05  # an answer that comes sooner is not worth looking whether anybody still waits
# Of the client's time, for the way from the runner to the client: a batch's answers are written one after the other.
WAY_BACK_S = 0.1
# What a runner raises that is closed, or whose workers cannot start any more: the folder may hold another artifact.
ANSWERS_NO_MORE = (RunnerClosed, ArtifactError, BackendFailed)
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
        self.bulk_tokenising = Tokenising(MOST_TOKENISING_BYTES, threads=1)  # so that lines keep nobody else out
        self.unfinished = Unfinished(MOST_UNFINISHED_BODIES * settings.max_body_bytes)


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
        self._incoming = IncomingBody(receive, self.headers, service.unfinished)
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

    @property
    def is_read(self) -> bool:
        """Whether all of the body is here."""
        return self._incoming.is_read

    async def body(self) -> bytes:
        """All of the body, unpacked; HttpError 413 for a larger one than is taken."""
        body = await self._incoming.unpacked(self.service.settings.max_body_bytes, self.client)
        self.body_bytes = len(body)
        return body

    def parts(self) -> AsyncIterator[bytes]:
        """The body as it comes, in parts of any size; ClientGone where it ends too soon."""
        return self._incoming.parts()

    async def decoded(self, decoder: "msgspec.json.Decoder[Any]") -> Any:
        """The body as JSON of the decoder's type; HttpError 400 with the place of what is wrong in it."""
        return decoded(await self.body(), decoder)

    # ---- asking

    async def ask(
        self, model: Model, inputs: Sequence[Input], keywords: Keywords, *, place: Place = "$.inputs", **how: Any
    ) -> List[Any]:
        """The result of each input. ``place``: of the inputs in the body, or of all of it, which an error names."""

        def prepare(model: Model) -> Prepared:
            refuse_more_text(model, inputs, self.body_bytes, self.service.settings.max_rows_per_request)
            return model.runner.prepare(inputs, timeout_s=self._runner_timeout_s(), breakdown=True, **how, **keywords)

        try:
            results = await self._asked(model, prepare)
        except (InputError, UsageError) as error:
            raise placed(error, place) from None
        cut = cut_inputs(results)
        if cut:
            self.answer_headers.append((b"x-truncated", ",".join(map(str, cut)).encode()))
        return results

    async def ask_encoded(self, model: Model, *arrays: Any, place: str = "$.inputs") -> Any:
        """The model's outputs for rows of token ids: int64 [rows, tokens] each, as ``Runner.submit_encoded`` takes."""

        def prepare(model: Model) -> Prepared:
            return model.runner.prepare_encoded(*arrays, timeout_s=self._runner_timeout_s(), breakdown=True)

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
            except ANSWERS_NO_MORE as error:
                model = self.instead_of(model, error)
            except DeadlineExceeded:
                raise too_late(self) from None  # the runner's tells of the time that it had

    def instead_of(self, model: Model, error: NeuronBertError) -> Model:
        """What was put in the place of ``model``, which raised one of ANSWERS_NO_MORE.

        RunnerClosed where nothing was; ``error`` itself where it is of this request alone: there is a worker.
        """
        if not isinstance(error, RunnerClosed) and model.is_ready():
            raise error
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
        refuse_more_rows(prepared.rows, self.service.settings.max_rows_per_request)
        self.rows, self.tokens = prepared.rows, prepared.tokens
        with self.service.clients.holding(self.client, prepared.rows, functools.partial(_predicted_wait_s, model)):
            futures = model.runner.submit_prepared(prepared)
            await self._all_done(futures)
        answered = [future.result() for future in futures]
        self.breakdowns = [each.breakdown for each in answered]
        return [each.result for each in answered]

    async def _all_done(self, futures: Sequence["Future[Any]"]) -> None:
        """Until each has its result, or one an error, which is raised; then, and if nobody waits, the rest is freed."""
        try:
            await self.until(when_done(asyncio.get_running_loop(), futures))
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
            result = await done
        finally:
            for timer in timers:
                timer.cancel()
        self._left_s()  # the loop may come to a result before the timer that was due: it is late all the same
        return result

    def _asking_since(self) -> float:
        if self._asked_at is None:
            self._asked_at = time.perf_counter()
        return self._asked_at

    def _runner_timeout_s(self) -> Optional[float]:
        """What is left for the runner: an answer that it has at the last moment reaches the client after it."""
        left_s = self._left_s()
        return None if left_s is None else left_s - min(WAY_BACK_S, left_s / 20)

    def _left_s(self) -> Optional[float]:
        """Of the time that the client gave; DeadlineExceeded where none is."""
        if self.timeout_s is None:
            return None
        left_s = self._asking_since() + self.timeout_s - time.perf_counter()
        if left_s <= 0:
            raise too_late(self)
        return left_s

    def _watch(self, done: "asyncio.Future[Any]") -> None:
        watching = asyncio.ensure_future(self._incoming.until_gone())
        watching.add_done_callback(lambda _: fail(done, ClientGone()))
        done.add_done_callback(lambda _: watching.cancel())


def _request_id(given: Optional[bytes]) -> str:
    """The client's own where it can be written anywhere as it is, else a new one."""
    return given.decode() if given is not None and _ID.fullmatch(given) else os.urandom(16).hex()


_PLACE = re.compile(r"inputs\[(\d+)\]: ")


def placed(error: NeuronBertError, place: Place) -> HttpError:
    """The error of an input, or of options, with its place in the body."""
    places = Places(listed(place)) if isinstance(place, str) else place
    found = _PLACE.match(error.message)
    if error.message.startswith("$"):
        path, message = error.message.split(": ", 1)[0], error.message
    elif isinstance(error, UsageError):
        path = places.of_option(error.field)
        message = f"{path}: {error.message}"
    else:
        path = places.of_input(int(found[1]) if found else None, error.field)
        message = f"{path}: {error.message[found.end() if found else 0 :]}"
    hint = FEWER_ROWS if isinstance(error, TooManyRows) else error.hint  # which is for users of Runner
    return HttpError(error.http_status, message, hint=hint, path=path)


def _predicted_wait_s(model: Model) -> Optional[float]:
    return model.runner.stats()["queue"]["predicted_wait_s"]


def _late(done: "asyncio.Future[Any]", exchange: Exchange) -> None:
    fail(done, too_late(exchange))


def too_late(exchange: Exchange) -> DeadlineExceeded:
    """What it is told whose time is over."""
    return DeadlineExceeded(f"the answer was not there within {exchange.timeout_s:.3g} s")
