"""``serve``: loads the models while the web stack is imported, and runs ``process`` until it is told to end."""

import functools
import os
import signal
import socket
import threading
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Sequence

from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.errors import OutputError, UsageError
from neuronbert.hardware.cores import CoreLayout
from neuronbert.hardware.libraries import require_libraries
from neuronbert.runner.runner import Runner
from neuronbert.server.core_shares import CoreShares
from neuronbert.server.logs import begin_logging
from neuronbert.server.models import Models, Told, begin
from neuronbert.server.settings import places_of, settings_of

# For a worker's start, before there is anybody who listens and answers that the models are being loaded.
MOST_WAIT_S = 1.0
LOOK_S = 0.05  # for a signal meanwhile


def serve(
    artifacts: Sequence[str],
    *,
    variant: Optional[str] = None,
    workers: Optional[int] = None,
    threads: Optional[int] = None,
    instance_type: Optional[str] = None,
    in_flight_per_group: Optional[int] = None,
    batch_size: Optional[int] = None,
    max_queue: int = 1024,
    max_wait_ms: float = 5.0,
    hang_timeout_s: float = 60.0,
    busy_wait: bool = False,
    trusted_key: TrustedKey = None,
    on_ready: Told = lambda url, models: None,
    **options: Any,
) -> None:
    """Serve artifacts ("ARTIFACT" or "NAME=ARTIFACT") over HTTP until SIGTERM or SIGINT, and drain.

    ``options`` are ServerSettings'; the others are as for Runner, of each artifact. ``on_ready`` is called with the URL
    once all models can be asked. In the main thread only, for the signals.
    Raises what keeps an artifact from loading, UsageError for options, and OutputError for an address that cannot be
    had.
    """
    require_libraries("starlette", "uvicorn", "httptools", "uvloop", "msgspec", "prometheus_client", "cachetools")
    settings = settings_of(options)
    if settings.cache_url is not None:
        require_libraries("redis")
    places = places_of(artifacts)

    at_work = threading.Event()  # a worker is started, or nothing will be

    shares = CoreShares(len(places), workers, instance_type)

    def launch(folder: str) -> Runner:
        artifact = load_artifact(folder, trusted_key=trusted_key)
        return shares.launch(artifact, variant, functools.partial(runner_of, artifact))

    def runner_of(artifact: Artifact, layout: Optional[CoreLayout]) -> Runner:
        return Runner(
            artifact,
            variant=variant,
            workers=workers if layout is None else layout.replicas,
            threads=threads,
            layout=layout,
            instance_type=instance_type if layout is None else None,
            in_flight_per_group=in_flight_per_group,
            batch_size=batch_size,
            max_queue=max_queue,
            max_windows_per_request=settings.max_rows_per_request,
            max_wait_ms=max_wait_ms,
            hang_timeout_s=hang_timeout_s,
            busy_wait=busy_wait,
            trusted_key=trusted_key,
            publish=True,
            drain_on_sigterm=False,
            on_event=lambda _: at_work.set(),
        )

    begin_logging(settings.log_format)
    # Threads of the tokenizer's own would take more from the workers than they give to one request.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with listening_socket(settings.host, settings.port) as listening:
        models = Models(places, launch, settings.drain_timeout_s)
        with _noted_signals(settings.allow_reload) as received:
            loading = begin(models.load_all)
            loading.add_done_callback(lambda _: at_work.set())
            try:
                # Importing the web stack takes a third of the time that a worker needs to load: beside it, and not
                # beside what comes before it, for two threads of this process would take turns.
                for _ in range(round(MOST_WAIT_S / LOOK_S)):
                    if at_work.wait(LOOK_S) or received:
                        break
                from neuronbert.server.process import run

                run(settings, models, loading, listening, on_ready, received)
            finally:
                models.close(0)
    if not received:  # it ended because of what was loaded
        loading.result()


@contextmanager
def _noted_signals(allow_reload: bool) -> Iterator[List[int]]:
    """What came of SIGTERM, SIGINT and SIGHUP while uvicorn did not look yet, in place of an exception.

    One that is raised while modules are imported may be swallowed there, or leave a lock of theirs held for ever.
    """
    received: List[int] = []
    numbers = [signal.SIGTERM, signal.SIGINT]
    if allow_reload or signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as under nohup
        numbers.append(signal.SIGHUP)

    def note(number: int, _: Any) -> None:
        if number != signal.SIGHUP or not allow_reload:  # what it asks for is being done: the artifacts are loaded
            received.append(number)

    before = {number: signal.signal(number, note) for number in numbers}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def listening_socket(host: str, port: int) -> socket.socket:
    """A socket that has the address, so that nobody waits for a model in vain; OutputError where it cannot be had."""
    address = f"{host}:{port}"
    try:
        family, kind, protocol, _, place = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
    except (OSError, UnicodeError) as error:
        raise UsageError(
            f"there is no address {address}: {error}", hint="--host 127.0.0.1, or 0.0.0.0 for all"
        ) from None
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(place)
    except OSError as error:
        listening.close()
        raise OutputError(
            f"cannot listen at {address}: {error.strerror}", hint="another --port; 0 is any free one"
        ) from None
    return listening
