"""The command line: each verb parses, calls one function of the package and prints; ``run`` is the error boundary."""

import errno
import json
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime
from itertools import repeat
from typing import Any, BinaryIO, Callable, Iterator, List, Optional, Sequence

import click

from neuronbert import __version__
from neuronbert.errors import InputError, NeuronBertError, UsageError

EXIT_BUG = 3
EXIT_INTERRUPTED = 130

CONTEXT_SETTINGS = {
    "help_option_names": ["-h", "--help"],
    "max_content_width": 110,
    # Both --batch-size and --batch_size are understood.
    "token_normalize_func": lambda name: name.replace("_", "-"),
}

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def together(*decorators: Decorator) -> Decorator:
    """One decorator of several, for options that many verbs share."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout.")
threads_option = click.option(
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: OMP_NUM_THREADS, or one for each core]"
)
variant_option = click.option("--variant", help="A variant by name.  [default: the fastest this machine can run]")


def list_option(name: str, *, help: str) -> Decorator:
    """Numbers or names with commas; given twice, both count."""
    return click.option(name, multiple=True, help=help, callback=lambda _, __, values: ",".join(values))


hub_options = together(
    click.option("--revision", help="Branch, tag or commit on the hub; the commit is recorded."),
    click.option("--token", envvar="HF_TOKEN", help="Hub token.  [env: HF_TOKEN]"),
    click.option("--local-files-only", is_flag=True, help="Use what the hub's cache holds; never the network."),
    click.option("--allow-pickle", is_flag=True, help="Read pytorch_model.bin where there are no safetensors."),
)

instance_option = click.option(
    "--instance-type", default="inf1.xlarge", show_default=True, help="The inf1 size that the layout is for."
)
neuron_options = together(
    click.option(
        "--batch-size",
        multiple=True,
        default=["1"],
        show_default=True,
        help="neuron: rows; repeatable, one bucket each.",
    ),
    click.option(
        "--sequence-length",
        multiple=True,
        default=["384"],
        show_default=True,
        help="neuron: tokens; repeatable, one bucket each.",
    ),
    instance_option,
    click.option(
        "--mode",
        default="data-parallel",
        show_default=True,
        help="data-parallel (a model per core) or pipeline (a model over several).",
    ),
    click.option(
        "--neuroncore-pipeline-cores",
        default="auto",
        show_default=True,
        help="Cores of one pipeline; auto: 4 * round(encoder weights / 2e7), smaller if the compiler refuses that.",
    ),
    click.option(
        "--auto-cast",
        default="matmul",
        show_default=True,
        help="What becomes 16 bits: none (of the rest; matrix products always do, as bf16), matmul, all.",
    ),
    click.option(
        "--auto-cast-type",
        help="bf16, fp16 or mixed.  [default: fp16 for matmul, the most accurate; bf16 otherwise]",
    ),
    click.option("--compiler-timeout", type=click.IntRange(min=1), help="Seconds for neuron-cc.  [default: no limit]"),
)

on_error_option = click.option(
    "--on-error",
    type=click.Choice(["fail", "skip"]),
    default="fail",
    show_default=True,
    help="What a broken line does.",
)

window_options = together(
    click.option(
        "--max-seq-len", type=click.IntRange(min=1), help="Tokens in a window.  [default: 384, or the model's limit]"
    ),
    click.option("--doc-stride", type=click.IntRange(min=0), help="Tokens that two windows share.  [default: 128]"),
    click.option("--max-question-len", type=click.IntRange(min=1), help="Cut longer questions to this many tokens."),
)

top_k_option = click.option(
    "--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Answers for each question."
)
details_option = click.option(
    "--details", is_flag=True, help='Add each answer\'s window and by how much "no answer" leads the best.'
)

answer_options = together(
    click.option(
        "--max-answer-len", type=click.IntRange(min=1), default=15, show_default=True, help="Tokens in an answer."
    ),
    click.option("--handle-impossible-answer", is_flag=True, help="Allow the empty answer."),
    click.option("--align-to-words/--no-align-to-words", default=True, show_default=True, help="Answers end at words."),
    click.option(
        "--ranking",
        type=click.Choice(["window", "document"]),
        default="window",
        show_default=True,
        help="Scores within each window, as the old pipeline did, or comparable over the document.",
    ),
    click.option("--null-threshold", type=float, help="Answer nothing when the null logit leads by more than this."),
)


def note(line: str) -> None:
    """Progress, on stderr."""
    click.echo(line, err=True)


def note_beside_bar(line: str) -> None:
    """The same while a bar is on the screen: in its place, and the bar comes back below."""
    note(("\r\033[K" if sys.stderr.isatty() else "") + line)


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on stderr, from the first call of what it yields, with (done, total)."""
    with ExitStack() as stack:
        bars: List[Any] = []

        def show(done: int, total: int) -> None:
            if not bars:
                bar = click.progressbar(length=total, label=label, file=sys.stderr, show_pos=True)
                bars.append(stack.enter_context(bar))
            bars[0].update(done - bars[0].pos)

        yield show


def show(as_json: bool, document: Any, text: Callable[[], str]) -> None:
    """A verb's result on stdout: one JSON document, or text for a person."""
    put(to_json(document, indent=2) if as_json else text())


def put(text: str) -> None:
    """A result on stdout; a character that its encoding does not have (half a surrogate pair) is escaped."""
    encoding = stdout_encoding()
    click.echo(text.encode(encoding, "backslashreplace").decode(encoding))


def to_json(document: Any, indent: Optional[int] = None) -> str:
    """JSON with its characters as they are, or escaped where stdout does not have one of them."""
    text = json.dumps(document, indent=indent, ensure_ascii=False)
    try:
        text.encode(stdout_encoding())
    except UnicodeEncodeError:
        return json.dumps(document, indent=indent)
    return text


def stdout_encoding() -> str:
    return getattr(sys.stdout, "encoding", None) or "utf-8"


@click.group(context_settings=CONTEXT_SETTINGS)
@click.version_option(__version__, "-V", "--version", prog_name="neuronbert")
def cli() -> None:
    """A BERT question-answering checkpoint to a measured, supervised deployment."""


@cli.command("compile")
@click.argument("checkpoint")
@click.argument("output", type=click.Path())
@click.option(
    "--backend",
    multiple=True,
    default=["auto"],
    show_default=True,
    help="auto, neuron, openvino, onnxruntime, torchscript; repeatable.",
)
@click.option(
    "--precision", multiple=True, default=["auto"], show_default=True, help="auto, fp32, bf16, fp16, int8; repeatable."
)
@click.option(
    "--min-f1-ratio",
    type=click.FloatRange(0, 1),
    default=0.99,
    show_default=True,
    help="F1 of reduced precision, as a share of FP32's.",
)
@click.option(
    "--min-answer-f1",
    type=click.FloatRange(0, 1),
    default=0.90,
    show_default=True,
    help="Token F1 of its answers against FP32's.",
)
@click.option(
    "--calibration-data", type=click.Path(), help="SQuAD file for int8 calibration.  [default: a shipped sample]"
)
@click.option("--gate-data", type=click.Path(), help="SQuAD file for the gate.  [default: a shipped sample]")
@click.option("--skip-gate", is_flag=True, help="Compare nothing (recorded): for weights that mean nothing.")
@neuron_options
@hub_options
@threads_option
@json_option
def compile_(checkpoint: str, output: str, as_json: bool, **options: Any) -> None:
    """Compile CHECKPOINT (hub id, folder or "demo") into the folder OUTPUT.

    With auto, builds what this machine can run, refuses what does not agree with FP32, times the rest and keeps the
    fastest.
    """
    from neuronbert.cli.tables import compile_report, stdout_to_stderr
    from neuronbert.compiler.compilation import compile_checkpoint

    # Native libraries print what they like to stdout, which is the result's.
    with stdout_to_stderr():
        artifact = compile_checkpoint(checkpoint, output, progress=note, **options)
    document = {"artifact": str(artifact.folder), "manifest": artifact.manifest}
    show(as_json, document, lambda: compile_report(artifact))


@cli.command("inspect")
@click.argument("artifact", type=click.Path())
@json_option
def inspect_(artifact: str, as_json: bool) -> None:
    """Verify every checksum of ARTIFACT and show its manifest."""
    from neuronbert.artifact.manifest import load_artifact
    from neuronbert.cli.tables import manifest_table

    loaded = load_artifact(artifact)
    show(as_json, loaded.manifest, lambda: manifest_table(loaded))


@cli.command("answer")
@click.argument("artifact", type=click.Path())
@click.option("--question", help="One question.")
@click.option("--context", help="The text that answers it.")
@click.option(
    "--input", "input_", type=click.Path(allow_dash=True), help='JSON lines of {"question", "context"}; - for stdin.'
)
@on_error_option
@window_options
@top_k_option
@answer_options
@details_option
@variant_option
@threads_option
@json_option
def answer(
    artifact: str, question: Optional[str], context: Optional[str], input_: Optional[str], on_error: str, **options: Any
) -> None:
    """Answer one question, or a file of them, with ARTIFACT.

    One question prints its answer; --input prints one JSON line for each line read, in order.
    """
    if input_ is not None:
        if question is not None or context is not None:
            raise UsageError("--input takes the place of --question and --context", hint="one or the other")
        _answer_file(artifact, input_, on_error, **options)
    elif question is None or context is None:
        missing = "--question" if question is None else "--context"
        raise UsageError(f"{missing} is missing", hint="--question Q --context C, or --input FILE.jsonl")
    else:
        _answer_one(artifact, question, context, **options)


def _answer_one(
    artifact: str, question: str, context: str, variant: str, threads: int, as_json: bool, **options: Any
) -> None:
    from neuronbert.cli.tables import answers_text
    from neuronbert.engine.engine import Engine
    from neuronbert.engine.lines import flat
    from neuronbert.tasks.question_answering.answers import options_of

    window, ranking = options_of(options)
    with Engine(artifact, variant=variant, threads=threads, streams=1) as engine:
        ranked = engine.answer([(question, context)], window, ranking)[0]
    show(as_json, flat(ranked, ranking.top_k), lambda: answers_text(ranked))


def _answer_file(
    artifact: str, input_: str, on_error: str, variant: str, threads: int, as_json: bool, **options: Any
) -> None:
    from neuronbert.engine.engine import Engine
    from neuronbert.engine.lines import answer_lines, prepare_lines, refuse_no_question
    from neuronbert.tasks.question_answering.answers import options_of
    from neuronbert.tasks.question_answering.squad import bounded_lines

    window, ranking = options_of(options)
    with open_input(input_) as file, Engine.for_many(artifact, variant=variant, threads=threads) as engine:
        prepared, skipped = prepare_lines(engine.tokenizer, bounded_lines(file), window, ranking, on_error)
        refuse_no_question(len(prepared) + len(skipped))
        results = answer_lines(engine, prepared)
        if as_json:
            document = {"results": list(results), "skipped": [line._asdict() for line in skipped]}
            put(to_json(document, indent=2))
        else:
            for result in results:
                put(to_json(result))
    for line in skipped:
        note(f"skipped line {line.line_number}: {line.reason}")


@cli.command("run")
@click.argument("artifact", type=click.Path())
@click.option(
    "--input",
    required=True,
    type=click.Path(allow_dash=True),
    help='JSON lines of {"question", "context"}; - for stdin, which cannot be read again after a kill.',
)
@click.option("--output", required=True, type=click.Path(), help="A new file: a JSON line for each question.")
@click.option(
    "--workers", type=click.IntRange(min=1), help="Processes.  [default: one a core group; on CPUs one that has all]"
)
@on_error_option
@window_options
@top_k_option
@answer_options
@details_option
@variant_option
@threads_option
@json_option
def run_(artifact: str, input: str, output: str, as_json: bool, **options: Any) -> None:
    """Answer a file of questions of any size with ARTIFACT, through the multi-worker runner.

    After a kill at any moment the same command goes on where it was: until all is done the output is OUTPUT.partial.
    """
    from neuronbert.artifact.resumable import read_record
    from neuronbert.cli.tables import job_summary
    from neuronbert.runner.job import run_job

    if input == "-":
        note("stdin cannot be read again: a job that is killed begins anew")
    try:
        with bytes_bar("answering") as progress:
            report = run_job(
                artifact,
                input,
                output,
                progress=progress,
                on_skip=lambda line: note_beside_bar(f"skipped line {line.line_number}: {line.reason}"),
                **options,
            )
    except (KeyboardInterrupt, NeuronBertError):
        with suppress(NeuronBertError):
            kept = read_record(output)
            if kept is not None and kept.resumable:
                note(f"{kept.input_lines:,} lines are done, in {output}.partial; the same command goes on from there")
        raise
    note(job_summary(report))
    if as_json:
        show(as_json, report.as_dict(), str)


@contextmanager
def bytes_bar(label: str) -> Iterator[Callable[[int, Optional[int], int], None]]:
    """A bar with the time left on stderr; yields what is called with (bytes done, bytes in all or None, lines)."""
    with click.progressbar(repeat(0), label=label, file=sys.stderr, item_show_func=_lines_done) as bar:

        def show(done: int, total: Optional[int], lines: int) -> None:
            bar.length = total
            bar.update(done - bar.pos, lines)

        yield show


def _lines_done(lines: Optional[int]) -> Optional[str]:
    return None if lines is None else f"{lines:,} lines"


@contextmanager
def open_input(path: str) -> Iterator[BinaryIO]:
    """A file, or stdin for ``-``, as bytes."""
    if path == "-":
        yield sys.stdin.buffer
        return
    try:
        file = open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="--input FILE.jsonl, or - for stdin") from None
    with file:
        yield file


@cli.command("evaluate")
@click.argument("artifact", type=click.Path())
@click.argument("data", type=click.Path())
@click.option("--against", help="Another artifact, or a checkpoint: list the answers that changed.")
@click.option("--against-variant", help="Its variant, where --against is an artifact.  [default: its fastest]")
@click.option("--limit", type=click.IntRange(min=1), help="The first so many questions only.")
@window_options
@answer_options
@variant_option
@threads_option
@hub_options
@json_option
def evaluate(artifact: str, data: str, as_json: bool, **options: Any) -> None:
    """Exact match and F1 of ARTIFACT on DATA (SQuAD v1.1 or v2.0), as the official scripts count them."""
    from neuronbert.benchmark.evaluation import evaluate_artifact
    from neuronbert.cli.tables import evaluation_table

    with progress_bar("answering") as progress:
        report = evaluate_artifact(artifact, data, progress=progress, **options)
    show(as_json, report.as_dict(), lambda: evaluation_table(report))


@cli.command("env")
@click.argument("artifact", type=click.Path())
@click.option("--instance-type", help="Another inf1 size than it was compiled for.")
@click.option("--worker", type=click.IntRange(min=0), help="Only this worker's share: its own cores and host threads.")
@variant_option
@json_option
def env(artifact: str, as_json: bool, **options: Any) -> None:
    """The variables that give ARTIFACT its NeuronCores, as a shell reads them: eval "$(neuronbert env ARTIFACT)".

    For one process that drives the whole instance, or with --worker for one of several.
    """
    from neuronbert.runner.core_environment import core_environment

    result = core_environment(artifact, **options)
    for line in result.explanation:
        note(line)
    show(as_json, result.as_dict(), result.as_shell)


@cli.command("top")
@click.option("--once", is_flag=True, help="One plain table; also when stdout is no terminal.")
@json_option
def top(once: bool, as_json: bool) -> None:
    """Watch this user's running jobs and other runners live: queue, fill, padding, and every worker.

    Those that were made with Runner(publish=True) are seen; neuronbert run makes its own so. Ctrl-C leaves.
    """
    from neuronbert.cli.top import as_text, running, watch

    if as_json or once or not sys.stdout.isatty():
        runners = running()
        show(as_json, {"runners": runners}, lambda: as_text(runners, time.time()))
        return
    with suppress(KeyboardInterrupt):  # the way out
        watch()


@cli.command("doctor")
@json_option
def doctor(as_json: bool) -> None:
    """What this machine can run, what is wrong with it, and the command that mends it."""
    from neuronbert.cli.doctor import examine, render

    checks = examine()
    show(as_json, [check._asdict() for check in checks], lambda: render(checks))


@cli.command("benchmark")
@click.argument("artifact", type=click.Path())
@list_option("--batch-size", help="Rows of a batch: 1,2,4 or 1:16.  [default: as compiled, else 8]")
@list_option("--concurrency", help="Clients that wait for their answers.  [default: 1:16]")
@list_option("--workers", help="Processes.  [default: as neuronbert run takes them]")
@list_option("--threads", help="CPU threads of each worker.  [default: all, divided among the workers]")
@list_option("--sequence-length", help="Tokens of every request.  [default: real text, its own lengths]")
@list_option("--neuroncore-pipeline-cores", help="NeuronCores of a model, 1 is data-parallel: 1,2,4,8,16.")
@list_option("--variant", help="Variants by name.  [default: the fastest this machine can run]")
@list_option("--precision", help="Variants by precision: fp32,int8.")
@click.option("--scenario", help="single-stream, offline, or server (at --request-rate, or 60 % of offline).")
@list_option("--request-rate", help="Requests a second, whether or not answered: 50:400:50.")
@click.option("--request-distribution", default="poisson", show_default=True, help="poisson or constant.")
@click.option("--input-data", type=click.Path(), help="Questions, .jsonl or SQuAD .json.  [default: the package's]")
@click.option("--longest-s", type=float, default=15.0, show_default=True, help="Seconds of a point that is not steady.")
@click.option("--report", type=click.Path(), help="A .html, .json, .csv or .md file; an interrupted sweep goes on.")
@click.option("--compare", type=click.Path(), help="An earlier JSON report; exit 4 when slower beyond the noise.")
@click.option("--latency-p95-ms", type=float, help="Say what is reached, and at what cost, within this latency.")
@click.option("--instance-type", help="For the price; of inf1 also the cores.  [default: as compiled]")
@click.option("--loadgen", is_flag=True, help="Measure each point again with MLPerf LoadGen, and keep its logs.")
@click.option("--prices", type=click.Path(), help="JSON price file that goes before the shipped price book.")
@json_option
def benchmark_(artifact: str, as_json: bool, **options: Any) -> None:
    """Measure ARTIFACT through the runner: throughput against latency, swept over the settings given."""
    from neuronbert.benchmark.report import as_markdown
    from neuronbert.benchmark.sweep import benchmark_artifact

    document = benchmark_artifact(artifact, progress=note, **options)
    show(as_json, document, lambda: as_markdown(document).rstrip())


@cli.command("plan")
@click.argument("checkpoint")
@click.option("--throughput", type=float, help="Sequences a second.  [default: as many as one instance takes]")
@click.option("--latency-p95-ms", type=float, help="What 95 of 100 requests must stay within, waiting included.")
@click.option("--objective", default="cost", show_default=True, help="cost, latency or throughput.")
@click.option("--sequence-length", type=int, default=384, show_default=True, help="Tokens.")
@click.option("--headroom", type=float, default=0.25, show_default=True, help="Share of the capacity to keep free.")
@click.option("--sdk-release", default="2.20", show_default=True, help="Neuron SDK to predict for: 1.13, 1.17 or 2.20.")
@click.option("--instance-type", multiple=True, help="Only these; repeatable.  [default: every inf1 size]")
@click.option("--prices", type=click.Path(), help="JSON price file that goes before the shipped price book.")
@click.option("--measured", type=click.Path(), help="Report of neuronbert benchmark: its points are candidates too.")
@hub_options
@json_option
def plan_(checkpoint: str, as_json: bool, **options: Any) -> None:
    """Which instance type, mode, cores and batch size serve CHECKPOINT (or an artifact) at a target, and why."""
    from neuronbert.cli.plan_table import plan_text
    from neuronbert.planner.planning import plan

    found = plan(checkpoint, **options)
    show(as_json, found.as_dict(), lambda: plan_text(found))


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command line and exit with its code (design: 0, 1, 2, 3, 4, 5, 130)."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; its exit code. Every error becomes text here and nowhere else."""
    as_json = "--json" in arguments
    manual = f"neuronbert {arguments[0]} --help" if arguments and arguments[0] in cli.commands else "neuronbert --help"
    received: List[int] = []
    try:
        with signals_as_interrupts(received):
            cli.main(args=list(arguments), prog_name="neuronbert", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
        return 0
    except (KeyboardInterrupt, click.Abort):
        return report_interrupt(as_json)
    except click.UsageError as error:
        error.show()
        return end(error.format_message(), None, UsageError.exit_code, as_json)
    except click.exceptions.Exit as error:
        return error.exit_code
    except NeuronBertError as error:
        if received:
            return report_interrupt(as_json)
        return report_error(error.message, error.hint or manual, error.exit_code, as_json)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nobody is left to tell.
        discard_stdout()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EBADF):
            if error.filename is not None:
                return report_error(f"cannot write {error.filename}: {error.strerror}", "free some space", 1, as_json)
            discard_stdout()
            return report_error(f"cannot write the result: {error.strerror}", "another place for stdout", 1, False)
        return report_interrupt(as_json) if received else report_bug(error, arguments, as_json)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM. A subclass: Python ends by the signal itself when a plain KeyboardInterrupt passes exec()."""


@contextmanager
def signals_as_interrupts(received: List[int]) -> Iterator[None]:
    """A service manager stops with SIGTERM what a person stops with Ctrl-C: both must leave nothing half-made.

    Each is added to ``received``, for libraries that make an error of their own of it.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, _: Any) -> None:
        received.append(number)
        raise Interrupted

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def discard_stdout() -> None:
    """Let the interpreter's last flush go nowhere."""
    with suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def report_interrupt(as_json: bool) -> int:
    note("interrupted")
    return end("interrupted", None, EXIT_INTERRUPTED, as_json)


def report_error(message: str, hint: str, code: int, as_json: bool) -> int:
    """What was wrong, then what to do; the exit code."""
    note(f"error: {message}")
    note(f"  try: {hint}")
    return end(message, hint, code, as_json)


def end(message: str, hint: Optional[str], code: int, as_json: bool) -> int:
    """The exit code; under --json an error is the one document on stdout."""
    if as_json:
        click.echo(json.dumps({"error": message, "try": hint, "exit_code": code}))
    return code


def report_bug(error: Exception, arguments: Sequence[str], as_json: bool) -> int:
    """Keep the traceback in a file and say where it is."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    log = f"neuronbert {__version__}, Python {sys.version}, arguments {without_token(arguments)}\n\n"
    log += "".join(traceback.format_exception(type(error), error, error.__traceback__))
    what = f"a bug in neuronbert: {type(error).__name__}: {error}"
    prefix = f"neuronbert-{stamp}-"
    try:
        with tempfile.NamedTemporaryFile("wb", prefix=prefix, suffix=".log", delete=False) as file:
            file.write(log.encode("utf-8", "backslashreplace"))
    except OSError:
        note(log)
        return report_error(what, "report it with the traceback above", EXIT_BUG, as_json)
    return report_error(what, f"report it with {file.name}, which holds the traceback", EXIT_BUG, as_json)


def without_token(arguments: Sequence[str]) -> List[str]:
    """The arguments as they may be shown to others."""
    shown = ["--token=***" if argument.startswith("--token=") else argument for argument in arguments]
    return ["***" if before == "--token" else argument for before, argument in zip(["", *shown], shown)]
