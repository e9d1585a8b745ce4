"""The verb that puts artifacts behind HTTP."""

from typing import TYPE_CHECKING, Any, Callable, Sequence

import click

from neuronbert.cli.options import busy_wait_option, json_option, trusted_key_option
from neuronbert.cli.output import show
from neuronbert.cli.progress import note

if TYPE_CHECKING:
    from neuronbert.server.models import Model, Models


def server_option(name: str, **keywords: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """An option that is also an environment variable: --max-queue is NEURONBERT_MAX_QUEUE."""
    variable = "NEURONBERT_" + name.lstrip("-").split("/")[0].replace("-", "_").upper()
    return click.option(name, envvar=variable, show_envvar=True, **keywords)


@click.command("serve", short_help="Answer over HTTP.")
@click.argument("artifacts", nargs=-1, required=True, metavar="[NAME=]ARTIFACT...", envvar="NEURONBERT_ARTIFACTS")
@server_option("--host", default="127.0.0.1", show_default=True, help="Where to listen; 0.0.0.0 for everywhere.")
@server_option("--port", type=int, default=8080, show_default=True, help="Its port; 0 is any free one.")
@server_option(
    "--api-key",
    multiple=True,
    help="A key that requests must bring (Authorization: Bearer KEY); repeatable, separated by spaces in the variable.",
)
@server_option("--ssl-keyfile", type=click.Path(), help="For TLS: a private key in PEM.")
@server_option("--ssl-certfile", type=click.Path(), help="For TLS: its certificate in PEM.")
@server_option("--variant", help="A variant, or a backend, by name.  [default: the fastest this machine can run]")
@server_option("--workers", type=click.IntRange(min=1), help="Worker processes of each model.")
@server_option("--threads", type=click.IntRange(min=1), help="CPU threads of each worker.")
@server_option("--instance-type", help="Another inf1 size than it was compiled for.")
@server_option("--in-flight-per-group", type=click.IntRange(min=1), help="Batches that a worker holds at once.")
@server_option("--batch-size", type=click.IntRange(min=1), help="Rows of a batch at most, where shapes are dynamic.")
@server_option(
    "--max-queue", type=click.IntRange(min=1), default=1024, show_default=True, help="Rows that may wait for a worker."
)
@server_option(
    "--max-rows-per-request",
    type=click.IntRange(min=1),
    default=256,
    show_default=True,
    help="Rows (windows) that one request may need, of all its inputs together.",
)
@server_option(
    "--max-rows-per-client",
    type=click.IntRange(min=1),
    help="Rows that one client (a key, or an address) may have waiting.  [default: what the queue takes]",
)
@server_option(
    "--max-wait-ms",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="The longest that a row waits for others to share its batch.",
)
@server_option(
    "--max-body-bytes", type=click.IntRange(min=1), default=16 << 20, show_default=True, help="Of a request."
)
@server_option(
    "--max-head-bytes",
    type=click.IntRange(min=1),
    default=65_536,
    show_default=True,
    help="Of a request's line and headers together.",
)
@server_option("--request-timeout-s", type=float, help="For requests that do not say how long they wait.")
@server_option(
    "--head-timeout-s", type=float, default=10.0, show_default=True, help="For a request's headers to arrive."
)
@server_option(
    "--body-timeout-s",
    type=float,
    default=30.0,
    show_default=True,
    help="For its body; longer where it comes at 1 KiB a second or faster.",
)
@server_option("--keep-alive-s", type=float, default=75.0, show_default=True, help="For which a connection may idle.")
@server_option(
    "--grace-s",
    type=float,
    default=5.0,
    show_default=True,
    help="After SIGTERM, for balancers to notice that it is not ready; it answers meanwhile.",
)
@server_option(
    "--drain-timeout-s", type=float, default=20.0, show_default=True, help="For accepted requests, after that."
)
@server_option(
    "--hang-timeout-s", type=float, default=60.0, show_default=True, help="After which a worker that hangs is killed."
)
@server_option(
    "--allow-reload",
    is_flag=True,
    help="POST /v2/repository/models/NAME/load, and SIGHUP, put what is in the folders then in place.",
)
@server_option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True, help="On stderr."
)
@server_option("--access-log/--no-access-log", default=True, show_default=True, help="A line for each request.")
@server_option("--trace", is_flag=True, help="Send traces to where OTEL_EXPORTER_OTLP_ENDPOINT says (the extra trace).")
@busy_wait_option
@trusted_key_option
@json_option
def serve_(artifacts: Sequence[str], as_json: bool, **options: Any) -> None:
    """Answer over HTTP from one or several artifacts, of any task, until SIGTERM or Ctrl-C.

    Clients of Hugging Face, OpenAI, Cohere, text-embeddings-inference, KServe, Triton and SageMaker can ask it as they
    are (docs/serving.md); a browser shows a page to ask from. The first artifact answers where a request names none.
    """
    from neuronbert.server.serving import serve

    def tell(url: str, models: "Models") -> None:
        note(f"serving {', '.join(map(_described, models))} at {url}")
        if as_json:
            show(as_json, {"url": url, "models": [model.info() for model in models]}, str)

    serve(artifacts, on_ready=tell, **options)


def _described(model: "Model") -> str:
    emulated = ", EMULATED" if model.runner.emulated else ""
    return f"{model.name} ({model.task}, {model.runner.name}{emulated})"
