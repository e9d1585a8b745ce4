"""The verb that puts artifacts behind HTTP."""

from dataclasses import fields
from typing import TYPE_CHECKING, Any, Callable, Sequence, get_type_hints

import click

from neuronbert.cli.options import BUSY_WAIT_HELP, json_option, trusted_key_option
from neuronbert.cli.output import show
from neuronbert.cli.progress import note
from neuronbert.cli.task_options import Decorator, Keyword, without_none
from neuronbert.server.settings import ServerSettings
from neuronbert.tasks.option import METADATA

if TYPE_CHECKING:
    from neuronbert.server.models import Model, Models


def server_option(spelling: str, **keywords: Any) -> Decorator:
    """An option that is an environment variable too: --max-queue is NEURONBERT_MAX_QUEUE."""
    variable = "NEURONBERT_" + spelling.partition("/")[0].lstrip("-").replace("-", "_").upper()
    return click.option(spelling, envvar=variable, show_envvar=True, cls=_ServerOption, **keywords)


class _ServerOption(click.Option):
    """Beside a Kubernetes service that is called neuronbert, NEURONBERT_PORT is its tcp:// address: that is none."""

    def resolve_envvar_value(self, ctx: click.Context) -> Any:
        value = super().resolve_envvar_value(ctx)
        return None if isinstance(value, str) and value.startswith(("tcp://", "udp://")) else value


def settings_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The options of ServerSettings, in its order."""
    hints = get_type_hints(ServerSettings)
    for field in reversed(fields(ServerSettings)):
        kind, offer = without_none(hints[field.name]), field.metadata[METADATA]
        keyword = Keyword("serve", field.name, kind, field.default, offer)
        is_list = kind not in (str, int, float, bool)
        verb = server_option(
            keyword.spelling,
            type=str if is_list else keyword.click_type,
            multiple=is_list,
            is_flag=kind is bool,
            default=field.default,
            show_default=offer.shows_default,
            help=offer.help,
        )(verb)
    return verb


@click.command("serve", short_help="Answer over HTTP.")
@click.argument("artifacts", nargs=-1, required=True, metavar="[NAME=]ARTIFACT...", envvar="NEURONBERT_ARTIFACTS")
@settings_options
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
    "--max-wait-ms",
    type=click.FloatRange(min=0),
    default=5.0,
    show_default=True,
    help="The longest that a row waits for others to share its batch.",
)
@server_option(
    "--hang-timeout-s",
    type=float,
    default=60.0,
    show_default=True,
    help="How long a worker may be at one batch before it is killed.",
)
@server_option("--busy-wait", is_flag=True, help=BUSY_WAIT_HELP)
@trusted_key_option
@json_option
def serve_(artifacts: Sequence[str], as_json: bool, **options: Any) -> None:
    """Answer over HTTP from one or several artifacts, of any task, until SIGTERM or Ctrl-C.

    Clients of Hugging Face, OpenAI, Cohere, text-embeddings-inference, KServe, Triton and SageMaker can ask it as they
    are (docs/serving.md); a browser shows a page to ask from. The first artifact answers where a request names none.
    """
    from neuronbert.server.logs import log
    from neuronbert.server.serving import serve

    def tell(url: str, models: "Models") -> None:
        line = f"serving {', '.join(map(_described, models))} at {url}"
        if options["log_format"] == "json":
            log.info("%s", line, extra={"facts": {"url": url}})
        else:
            note(line)
        if as_json:
            show(as_json, {"url": url, "models": [model.info() for model in models]}, str)

    serve(artifacts, on_ready=tell, **options)


def _described(model: "Model") -> str:
    emulated = ", EMULATED" if model.runner.emulated else ""
    return f"{model.name} ({model.task}, {model.runner.name}{emulated})"
