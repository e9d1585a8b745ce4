"""``serve``: loads the models while the web stack is imported, and runs ``process`` until it is told to end."""

import socket
from dataclasses import fields
from typing import Any, Callable, Dict, Sequence, Tuple

from neuronbert.errors import OutputError, UsageError
from neuronbert.hardware.libraries import require_libraries
from neuronbert.runner.runner import Runner
from neuronbert.server.logs import begin_logging
from neuronbert.server.models import Models, begin
from neuronbert.server.settings import ServerSettings, places_of

Told = Callable[[str, Models], None]  # the URL, and the models, all of which can be asked


def serve(artifacts: Sequence[str], *, on_ready: Told = lambda url, models: None, **options: Any) -> None:
    """Serve artifacts ("ARTIFACT" or "NAME=ARTIFACT") over HTTP until SIGTERM or SIGINT, and drain.

    ``options`` are those of ServerSettings, and of Runner. In the main thread only, for the signals.
    Raises what keeps an artifact from loading, UsageError for options, and OutputError for an address that cannot be
    had.
    """
    require_libraries("starlette", "uvicorn", "httptools", "uvloop", "msgspec", "prometheus_client")
    settings, runner_options = _sorted_options(options)
    places = places_of(artifacts)

    def launch(folder: str) -> Runner:
        return Runner(
            folder,
            drain_on_sigterm=False,
            publish=True,
            max_windows_per_request=settings.max_rows_per_request,
            **runner_options,
        )

    begin_logging(settings.log_format)
    with listening_socket(settings.host, settings.port) as listening:
        models = Models(places, launch, settings.drain_timeout_s)
        loading = begin(models.load_all)
        try:
            # Now: importing the web stack takes a third of the time that a worker needs to load.
            from neuronbert.server.process import run

            run(settings, models, loading, listening, on_ready)
        finally:
            models.close(0)
    if loading.done():
        loading.result()


def _sorted_options(options: Dict[str, Any]) -> Tuple[ServerSettings, Dict[str, Any]]:
    """Those of the server, and the Runner's."""
    names = {field.name for field in fields(ServerSettings)}
    of_server = {name: value for name, value in options.items() if name in names}
    return ServerSettings(**of_server), {name: value for name, value in options.items() if name not in names}


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
