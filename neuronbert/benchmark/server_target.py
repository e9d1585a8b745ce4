"""A running server as what a sweep measures (targets.py): loads alone, for everything else is the server's own.

served_model.py looks at it, request_bodies.py has the words, connections.py asks.
"""

import re
import resource
import ssl
from collections import Counter
from typing import Any, Dict, Iterable, List, Mapping, Optional, Tuple
from urllib.parse import urlsplit

from neuronbert.artifact.signatures import TrustedKey
from neuronbert.benchmark.asked_inputs import inputs_of
from neuronbert.benchmark.columns import SERVER_STAGES
from neuronbert.benchmark.connections import Answer, Connection, HttpClient, SendingClient, Server
from neuronbert.benchmark.load import MOST_CLIENTS, LoadResult, Period
from neuronbert.benchmark.measure import OFFLINE_BATCHES, Measured, put_under_load
from neuronbert.benchmark.points import DYNAMIC_BATCH_SIZE, OFFLINE, OPEN, LoadSpec, Setting, loads_of
from neuronbert.benchmark.request_bodies import DEFAULT_PROTOCOL, Addressee, HttpRequest, requests_of
from neuronbert.benchmark.served_model import ServedModel, look_at
from neuronbert.benchmark.sweep_plan import SweepOptions, SweepPlan, refuse_options
from neuronbert.benchmark.targets import TargetFacts
from neuronbert.errors import ArtifactChanged, InputError, UsageError, above_zero
from neuronbert.hardware.prices import Price, load_prices
from neuronbert.hardware.remote import KEY_HINT, RemoteServer, key_header, unanswered
from neuronbert.tasks import load_task

VERB = "benchmark"
OF_AN_ARTIFACT = (
    "batch_size", "workers", "threads", "sequence_length", "neuroncore_pipeline_cores", "variant", "precision",
    "busy_wait", "loadgen",
)  # fmt: skip
# An answer that takes longer is none; with --timeout-ms the server has said so before.
ANSWER_TIMEOUT_S = 60.0
BEYOND_TIMEOUT_S = 10.0
MOST_TIMEOUT_S = 86_400.0
# Files that a process needs beside its connections.
OTHER_FILES = 64
UNKNOWN_ENGINE = "http"  # of a server that does not say what computes

_HINTS: Mapping[int, str] = {
    401: KEY_HINT,
    403: KEY_HINT,
    404: "--model NAME and --protocol that the server has",
    413: "shorter --input-data, or more room in the server's limits",
    429: "measure when nobody else asks, or give the server a longer queue",
    503: "wait until the server is ready",
    504: "a longer --timeout-ms",
}
_DURATION = re.compile(r"([\w-]+);dur=(\d+(?:\.\d+)?)")


class ServerTarget:
    """The points of a server that the options ask for.

    Raises UsageError for options that are the server's or cannot be, InputError for a server that does not answer what
    it is asked: it is asked once.
    """

    start_s = 0.0

    def __init__(self, url: str, options: SweepOptions, trusted_key: TrustedKey = None):
        refuse_options(options, OF_AN_ARTIFACT, "the server's own: neuronbert serve has them")
        if trusted_key:
            raise UsageError("--trusted-key is the server's own: neuronbert serve has it", hint="leave it out")
        self._options = options
        self._prices = load_prices(options.prices)
        if options.instance_type is not None:
            self._prices.price(options.instance_type)
        self._remote = RemoteServer(url, VERB)
        self._server = _server_of(self._remote.url, options.timeout_ms)
        self._protocol = options.protocol or DEFAULT_PROTOCOL
        self._model = look_at(self._remote, options.model, options.task)
        task = load_task(self._model.task)
        inputs = inputs_of(task, options.input_data)
        addressee = Addressee(self._model.name, self._model.offers)
        self._requests = requests_of(self._protocol, task, inputs, addressee)
        loads = loads_of(options.scenario, options.concurrency, options.request_rate, loadgen=False)
        settings, left_out = self._settings(loads)
        self.plan = SweepPlan(inputs, settings, left_out)
        self._try_out(self._requests[0])

    def _settings(self, loads: Iterable[LoadSpec]) -> "Tuple[List[Setting], Counter[str]]":
        settings: List[Setting] = []
        left_out: Counter[str] = Counter()
        most = most_connections()
        for load in loads:
            if load.kind != OPEN and _clients(load, self._in_flight) > most:
                left_out[f"each client is a connection, and this process may open {most:,} (ulimit -n)"] += 1
            else:
                settings.append(Setting(self._called, None, None, None, None, None, True, load))
        if not settings:
            raise UsageError(f"no point of this sweep can be: {next(iter(left_out))}", hint="fewer clients")
        return settings, left_out

    @property
    def _called(self) -> str:
        return ", ".join(self._model.variants) or self._model.name or UNKNOWN_ENGINE

    @property
    def _in_flight(self) -> int:
        """How many requests keep every batch full, as far as the server says what batches it has."""
        sizes = [variant["batch_size"] or DYNAMIC_BATCH_SIZE for variant in self._model.variants.values()]
        return (self._model.workers or 1) * max(sizes, default=DYNAMIC_BATCH_SIZE) * OFFLINE_BATCHES

    def _try_out(self, request: HttpRequest) -> None:
        """InputError where the server does not answer what it will be asked."""
        connection = Connection(self._server)
        try:
            answer = connection.ask(request)
        except OSError as error:
            raise unanswered(self._remote.url, error) from None
        finally:
            connection.close()
        if not 200 <= answer.status < 300:
            hint = _HINTS.get(answer.status, "other --input-data or another --protocol, or the server's log")
            where = f"{self._remote.url}{request.path}"
            raise InputError(f"{where} answers {answer.status} {answer.reason}: {_said(answer)}", hint=hint)
        digest = answer.headers.get("x-artifact-digest")
        if self._model.digest is not None and digest not in (None, self._model.digest):
            raise InputError(
                f"{self._protocol} does not name the model that it asks, and another than {self._model.name} answers",
                hint="another --protocol, or --model of the first that can answer this",
            )

    @property
    def digest(self) -> Optional[str]:
        """Of the artifact that a neuronbert server answers from."""
        return self._model.digest

    @property
    def facts(self) -> TargetFacts:
        """Where it is, how it was asked, and what a neuronbert server says of the artifact."""
        model, host = self._model, urlsplit(self._remote.url).hostname
        artifact = {
            "name": model.name or host,
            "fingerprint": model.fingerprint,
            "source": model.source,
            "emulated": model.emulated,
        }
        server = {
            "url": self._remote.url,
            "host": host,
            "protocol": self._protocol,
            "model": model.name,
            "task": model.task,
            "timeout_ms": self._options.timeout_ms,
            "neuronbert": model.version,
            "digest": model.digest,
            "variants": list(model.variants),
            # What a model without a fingerprint is compared by.
            "known_by_name": model.name if model.fingerprint is None else None,
        }
        return TargetFacts(artifact, None, server)

    def compile_s(self, setting: Setting) -> float:
        """0: it is there."""
        return 0.0

    def instance_of(self, setting: Setting) -> Optional[str]:
        """The one that was named: a server does not say where it runs."""
        return self._options.instance_type

    def price_of(self, setting: Setting) -> Optional[Price]:
        """Of the instance type that was named."""
        name = self._options.instance_type
        return None if name is None else self._prices.price(name)

    def measure(self, setting: Setting, period: Period) -> Measured:
        """With connections of its own."""
        is_open = setting.load.kind == OPEN
        client = SendingClient(self._server, most_connections()) if is_open else HttpClient(self._server)
        try:
            result: LoadResult = put_under_load(
                client, self._requests, setting.load, self._in_flight, self._options.request_distribution, period
            )
        finally:
            client.close()
        return Measured(result, None, {**self._described(setting), **mean_stages(client.timings)})

    def _described(self, setting: Setting) -> Dict[str, Any]:
        """The setting as columns of a report; None for what only the server knows."""
        variant = next(iter(self._model.variants.values()), {"backend": UNKNOWN_ENGINE, "precision": ""})
        kind, number = setting.load
        return {
            "model_filename": self._model.name,
            "protocol": self._protocol,
            "n_models": self._model.workers,
            "input": "text",
            "variant": setting.variant,
            "engine": variant["backend"],
            "precision": variant["precision"],
            "emulated": self._model.emulated,
            "concurrency": None if kind == OPEN else _clients(setting.load, self._in_flight),
            "offered_qps": number if kind == OPEN else None,
        }

    def refuse_changed(self) -> None:
        """InputError where the server is gone, ArtifactChanged where it answers from another artifact."""
        if self._model.digest is None:
            self._remote.get("/info")
            return
        now: ServedModel = look_at(self._remote, self._model.name, None)
        if now.digest != self._model.digest:
            raise ArtifactChanged(
                f"{self._model.name} was replaced while it was measured: {_short(self._model.digest)} began to answer, "
                f"and {_short(now.digest)} does now",
                hint="the same command again, once nobody loads another",
            )


def _short(digest: Optional[str]) -> str:
    return str(digest)[:16]


def _server_of(url: str, timeout_ms: Optional[float]) -> Server:
    headers = {**key_header(), "Cache-Control": "no-store"}  # a cache's answers are not the model's
    timeout_s = ANSWER_TIMEOUT_S
    if timeout_ms is not None:
        timeout_s = above_zero("--timeout-ms", timeout_ms) / 1000 + BEYOND_TIMEOUT_S
        if not timeout_s <= MOST_TIMEOUT_S:
            raise UsageError(f"--timeout-ms must be a day at most, not {timeout_ms:g}")
        headers["X-Request-Timeout-Ms"] = str(timeout_ms)
    return Server(url, headers, timeout_s, ssl.create_default_context() if urlsplit(url).scheme == "https" else None)


def _clients(load: LoadSpec, in_flight: int) -> int:
    return in_flight if load.kind == OFFLINE else int(load.number or 1)


def most_connections() -> int:
    """How many this process may have at once."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CLIENTS if files == resource.RLIM_INFINITY else max(1, min(MOST_CLIENTS, files - OTHER_FILES))


def _said(answer: Answer) -> str:
    """The beginning of a body, on one line."""
    text = "".join(char if char.isprintable() else " " for char in answer.body[:2000].decode("utf-8", "replace"))
    text = " ".join(text.split())
    return text if len(text) <= 200 else f"{text[:200]}…"


def mean_stages(timings: Iterable[str]) -> Dict[str, float]:
    """The mean of each stage in headers Server-Timing (W3C), as columns; none of a server that sends no such header."""
    sums: Dict[str, float] = dict.fromkeys(SERVER_STAGES, 0.0)
    count = 0
    for timing in timings:
        found = dict(_DURATION.findall(timing))
        if not SERVER_STAGES.keys() <= found.keys():
            continue
        count += 1
        for stage in SERVER_STAGES:
            sums[stage] += float(found[stage])
    return {SERVER_STAGES[stage]: float(f"{total / count:.6g}") for stage, total in sums.items()} if count else {}
