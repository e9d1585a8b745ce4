"""The verbs that give figures: how good and how fast an artifact is, and which instance would serve it."""

from typing import Any, Optional

import click

from neuronbert.cli.options import (
    busy_wait_option,
    checkpoint_argument,
    complete_checkpoint,
    hub_options,
    json_option,
    list_option,
    threads_option,
    trusted_key_option,
    variant_option,
)
from neuronbert.cli.output import show
from neuronbert.cli.progress import Progress, note
from neuronbert.cli.task_options import task_options
from neuronbert.tasks import TASKS, load_options


def _evaluate_help() -> str:
    measured = "; ".join(load_options(task).EVALUATION for task in TASKS)
    return f"How good ARTIFACT is on DATA, a file with the right answers for its task.\n\nOf {measured}."


@click.command(
    "evaluate", short_help="How good an artifact is on a file with the right answers.", help=_evaluate_help()
)
@click.argument("artifact", type=click.Path())
@click.argument("data", type=click.Path())
@click.option(
    "--against",
    shell_complete=complete_checkpoint,
    help="Another artifact, or a checkpoint: show what changed.",
)
@click.option("--against-variant", help="Its variant, where --against is an artifact.  [default: its fastest]")
@click.option("--limit", type=click.IntRange(min=1), help="The first so many inputs only.")
@task_options(of_output=False)
@variant_option
@threads_option
@trusted_key_option
@hub_options
@json_option
def evaluate(artifact: str, data: str, as_json: bool, **options: Any) -> None:
    from neuronbert.backends.quiet import stdout_to_stderr
    from neuronbert.benchmark.evaluation import evaluate_artifact
    from neuronbert.cli.tables import evaluation_text

    with stdout_to_stderr(), Progress("loading") as shown:
        report = evaluate_artifact(artifact, data, progress=shown.then("answering", "inputs"), **options)
    show(as_json, report.as_dict(), lambda: evaluation_text(report.tables()))


@click.command("benchmark", short_help="Throughput against latency of an artifact, or of a server.")
@click.argument("artifact", type=click.Path(), metavar="ARTIFACT|URL")
@list_option(
    "--batch-size", help="Rows that are computed at once: 1,2,4 or 1:16, doubling.  [default: as compiled, else 8]"
)
@list_option(
    "--concurrency",
    help="Clients that each wait for an answer before they ask again, at most 4096: 1,2,4 or 1:16, doubling.  "
    "[default: 1:16]",
)
@list_option("--workers", help="Worker processes.  [default: one a core group or GPU; on CPUs one that has all]")
@list_option("--threads", help="CPU threads of each worker.  [default: all, divided among the workers]")
@list_option("--sequence-length", help="Tokens of every request.  [default: real text, its own lengths]")
@list_option(
    "--neuroncore-pipeline-cores",
    help="neuron: cores that one copy of the model is spread over, 1 is data-parallel: 1,2,4,8,16.",
)
@list_option("--variant", help="Variants by name.  [default: the fastest this machine can run]")
@list_option("--precision", help="Variants by precision: fp32,int8.")
@click.option("--scenario", help="single-stream, offline, or server (at --request-rate, or 60 % of offline).")
@list_option(
    "--request-rate",
    help="Requests that come in a second, whether or not earlier ones are answered: 50:400:50, in steps.",
)
@click.option(
    "--request-distribution",
    default="poisson",
    show_default=True,
    help="How they come: poisson (at random) or constant (evenly).",
)
@click.option(
    "--input-data",
    type=click.Path(),
    help="What to ask: .jsonl, or data of the task (docs/files.md).  [default: the package's]",
)
@click.option(
    "--longest-s",
    type=float,
    default=15.0,
    show_default=True,
    help="Seconds that a point takes at most; three alike in a row end it sooner.",
)
@click.option(
    "--report",
    type=click.Path(),
    help="Write a .html, .json, .csv or .md file; with it, the same command continues an interrupted sweep.",
)
@click.option(
    "--compare",
    type=click.Path(),
    help="An earlier JSON report; exit 4 when something is slower than there, beyond the noise of both.",
)
@click.option(
    "--latency-p95-ms",
    type=float,
    help="What p95 must stay within: the best point is then the one with the most throughput that does.",
)
@busy_wait_option
@click.option("--instance-type", help="Whose price counts, and of inf1 whose cores: c5.xlarge.  [default: as compiled]")
@click.option("--loadgen", is_flag=True, help="Measure each point again with MLPerf LoadGen, and keep its logs.")
@click.option("--prices", type=click.Path(), help="JSON price file that goes before the shipped price book.")
@click.option("--model", help="URL: which model of the server.  [default: its only one]")
@click.option(
    "--protocol",
    help="URL: hugging-face, open-inference, text-embeddings, openai or cohere.  [default: hugging-face]",
)
@click.option("--task", help="URL of another server than neuronbert's: what its model is for.")
@click.option("--timeout-ms", type=float, help="URL: the deadline that each request states (X-Request-Timeout-Ms).")
@trusted_key_option
@json_option
def benchmark_(artifact: str, as_json: bool, **options: Any) -> None:
    """Measure ARTIFACT through the runner: throughput against latency, swept over the settings given.

    Or measure the server at URL as it runs, over HTTP: how it batches and with how many workers is its own, so
    the options for those are not for a URL. NEURONBERT_API_KEY is shown to it.

    Prints a table of all points and, last, the best of them in a sentence: the one within --latency-p95-ms that answers
    most; without that, the knee of a curve, the load where latency takes off. --report has all figures.
    """
    from neuronbert.benchmark.sweep import benchmark_artifact
    from neuronbert.cli.benchmark_table import benchmark_text

    with Progress("measuring") as progress:
        document = benchmark_artifact(artifact, progress=note, on_point=progress, **options)
    show(as_json, document, lambda: benchmark_text(document))


@click.command("plan", short_help="Which instance serves a load, at what price.")
@checkpoint_argument
@click.option(
    "--throughput", type=float, help="Sequences to answer in a second.  [default: as many as one instance takes]"
)
@click.option("--latency-p95-ms", type=float, help="What 95 of 100 requests must stay within, waiting included.")
@click.option(
    "--objective",
    default="cost",
    show_default=True,
    help="What the best has: the least cost, the least latency, or the most throughput.",
)
@click.option("--sequence-length", type=int, default=384, show_default=True, help="Tokens of a sequence.")
@click.option("--headroom", type=float, default=0.25, show_default=True, help="Share of the capacity to keep free.")
@click.option("--sdk-release", default="2.20", show_default=True, help="Neuron SDK to predict for: 1.13 to 2.20.")
@click.option("--in-flight", type=int, help="Batches with a core group at once.  [default: as the runner does]")
@click.option(
    "--instance-type",
    multiple=True,
    help="Only these; repeatable.  [default: every inf1 size, and of each kind and number of GPUs the cheapest]",
)
@click.option("--prices", type=click.Path(), help="JSON price file that goes before the shipped price book.")
@click.option("--measured", type=click.Path(), help="Report of neuronbert benchmark: its points are candidates too.")
@click.option("--plot", type=click.Path(), help="Draw cost against p95 as a .png or .svg file.")
@trusted_key_option
@hub_options
@json_option
def plan_(checkpoint: str, as_json: bool, plot: Optional[str], **options: Any) -> None:
    """Which instance type, mode, cores and batch size serve CHECKPOINT (or an artifact) at a target, and why.

    Inferentia and NVIDIA GPUs are predicted; a CPU, and whatever was measured, comes from --measured.
    """
    from neuronbert.cli.plan_table import plan_text
    from neuronbert.planner.picture import refuse_undrawable, write_picture
    from neuronbert.planner.planning import plan

    if plot is not None:
        refuse_undrawable(plot)
    with Progress("planning") as progress:
        result = plan(checkpoint, progress=progress, **options)
    if plot is not None:
        write_picture(result, plot)
    show(as_json, result.as_dict(), lambda: plan_text(result))
