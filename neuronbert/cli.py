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
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import datetime
from itertools import repeat
from typing import Any, BinaryIO, Callable, Dict, Iterator, List, Optional, Sequence, Tuple

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
    "--threads", type=click.IntRange(min=1), help="CPU threads.  [default: all this process may use]"
)
variant_option = click.option("--variant", help="A variant by name.  [default: the fastest this machine can run]")

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

answer_options = together(
    click.option(
        "--top-k", type=click.IntRange(min=1), default=1, show_default=True, help="Answers for each question."
    ),
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
    """A bar with the time left on stderr; yields what is called with (done, total)."""
    with click.progressbar(length=1, label=label, file=sys.stderr, show_pos=True) as bar:

        def show(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        yield show


def show(as_json: bool, document: Any, text: Callable[[], str]) -> None:
    """A verb's result on stdout: one JSON document, or text for a person."""
    click.echo(json.dumps(document, indent=2, ensure_ascii=False) if as_json else text())


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
    from neuronbert.compiler import compile_checkpoint
    from neuronbert.rendering import compile_report, stdout_to_stderr

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
    from neuronbert.artifact import load_artifact
    from neuronbert.rendering import manifest_table

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
@answer_options
@variant_option
@threads_option
@json_option
def answer(
    artifact: str, question: Optional[str], context: Optional[str], input_: Optional[str], **options: Any
) -> None:
    """Answer one question, or a file of them, with ARTIFACT.

    One question prints its answer; --input prints one JSON line for each line read, in order.
    """
    if input_ is not None:
        if question is not None or context is not None:
            raise UsageError("--input takes the place of --question and --context", hint="one or the other")
        _answer_file(artifact, input_, **options)
    elif question is None or context is None:
        missing = "--question" if question is None else "--context"
        raise UsageError(f"{missing} is missing", hint="--question Q --context C, or --input FILE.jsonl")
    else:
        _answer_one(artifact, question, context, **options)


def _answer_one(
    artifact: str, question: str, context: str, variant: str, threads: int, as_json: bool, **options: Any
) -> None:
    from neuronbert.answering import flat
    from neuronbert.engine import Engine
    from neuronbert.rendering import answers_text

    window, ranking = _split_options(options)
    with Engine(artifact, variant=variant, threads=threads, streams=1) as engine:
        ranked = engine.answer([(question, context)], window, ranking)[0]
    show(as_json, flat(ranked, ranking.top_k), lambda: answers_text(ranked))


def _answer_file(
    artifact: str, input_: str, variant: str, threads: int, on_error: str, as_json: bool, **options: Any
) -> None:
    from neuronbert.answering import answer_lines, prepare_lines, refuse_no_question
    from neuronbert.engine import Engine

    window, ranking = _split_options(options)
    with open_input(input_) as lines, Engine.for_many(artifact, variant=variant, threads=threads) as engine:
        prepared, skipped = prepare_lines(engine.tokenizer, lines, window, ranking, on_error)
        refuse_no_question(len(prepared) + len(skipped))
        results = answer_lines(engine, prepared)
        if as_json:
            document = {"results": list(results), "skipped": [line._asdict() for line in skipped]}
            click.echo(json.dumps(document, indent=2, ensure_ascii=False))
        else:
            for result in results:
                click.echo(json.dumps(result, ensure_ascii=False))
    for line in skipped:
        note(f"skipped line {line.line_number}: {line.reason}")


def _split_options(options: Dict[str, Any]) -> Tuple[Any, Any]:
    """The options of windows and of answers among a verb's options; those not given keep their defaults."""
    from neuronbert.answers import AnswerOptions
    from neuronbert.windows import WindowOptions

    given = {name: value for name, value in options.items() if value is not None}
    window = {field.name: given[field.name] for field in fields(WindowOptions) if field.name in given}
    ranking = {field.name: given[field.name] for field in fields(AnswerOptions) if field.name in given}
    return WindowOptions(**window), AnswerOptions(**ranking)


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
@answer_options
@variant_option
@threads_option
@json_option
def run_(artifact: str, input: str, output: str, as_json: bool, **options: Any) -> None:
    """Answer a file of questions of any size with ARTIFACT, through the multi-worker runner.

    After a kill at any moment the same command goes on where it was: until all is done the output is OUTPUT.partial.
    """
    from neuronbert.job import run_job
    from neuronbert.rendering import job_summary
    from neuronbert.resumable import read_record

    window, ranking = _split_options(options)
    own = {name: options[name] for name in ("workers", "variant", "threads", "on_error")}
    if input == "-":
        note("stdin cannot be read again: a job that is killed begins anew")
    try:
        with bytes_bar("answering") as progress:
            report = run_job(
                artifact,
                input,
                output,
                **own,
                window_options=window,
                answer_options=ranking,
                progress=progress,
                on_skip=lambda line: note_beside_bar(f"skipped line {line.line_number}: {line.reason}"),
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
@click.option("--limit", type=click.IntRange(min=1), help="The first so many questions only.")
@variant_option
@threads_option
@hub_options
@json_option
def evaluate(artifact: str, data: str, as_json: bool, **options: Any) -> None:
    """Exact match and F1 of ARTIFACT on DATA (SQuAD v1.1 or v2.0), as the official scripts count them."""
    from neuronbert.evaluate import evaluate_artifact
    from neuronbert.rendering import evaluation_table

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
    from neuronbert.environment import core_environment

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
    from neuronbert.top import as_text, running, watch

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
    from neuronbert.doctor import examine, render

    checks = examine()
    show(as_json, [check._asdict() for check in checks], lambda: render(checks))


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Run the command line and exit with its code (design: 0, 1, 2, 3, 4, 5, 130)."""
    sys.exit(run(sys.argv[1:] if arguments is None else list(arguments)))


def run(arguments: Sequence[str]) -> int:
    """Run the command line; its exit code. Every error becomes text here and nowhere else."""
    as_json = "--json" in arguments
    try:
        with signals_as_interrupts():
            cli.main(args=list(arguments), prog_name="neuronbert", standalone_mode=False)
            if sys.stdout is not None:
                sys.stdout.flush()
        return 0
    except NeuronBertError as error:
        return report_error(error.message, error.hint, error.exit_code, as_json)
    except click.UsageError as error:
        error.show()
        return end(error.format_message(), None, UsageError.exit_code, as_json)
    except click.exceptions.Exit as error:
        return error.exit_code
    except (KeyboardInterrupt, click.Abort):
        note("interrupted")
        return end("interrupted", None, EXIT_INTERRUPTED, as_json)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nobody is left to tell.
        discard_stdout()
        return 0
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EBADF) and error.filename is None:
            discard_stdout()
            return report_error(f"cannot write the result: {error.strerror}", "another place for stdout", 1, False)
        return report_bug(error, arguments, as_json)


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM. A subclass: Python ends by the signal itself when a plain KeyboardInterrupt passes exec()."""


@contextmanager
def signals_as_interrupts() -> Iterator[None]:
    """A service manager stops with SIGTERM what a person stops with Ctrl-C: both must leave nothing half-made."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
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


def report_error(message: str, hint: Optional[str], code: int, as_json: bool) -> int:
    """What was wrong, then what to do; the exit code."""
    note(f"error: {message}")
    note(f"  try: {hint or 'neuronbert --help'}")
    return end(message, hint, code, as_json)


def end(message: str, hint: Optional[str], code: int, as_json: bool) -> int:
    """The exit code; under --json an error is the one document on stdout."""
    if as_json:
        click.echo(json.dumps({"error": message, "try": hint, "exit_code": code}))
    return code


def report_bug(error: Exception, arguments: Sequence[str], as_json: bool) -> int:
    """Keep the traceback in a file and say where it is."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    with tempfile.NamedTemporaryFile("w", prefix=f"neuronbert-{stamp}-", suffix=".log", delete=False) as file:
        file.write(f"neuronbert {__version__}, Python {sys.version}, arguments {without_token(arguments)}\n\n")
        file.write("".join(traceback.format_exception(type(error), error, error.__traceback__)))
    what = f"a bug in neuronbert: {type(error).__name__}: {error}"
    return report_error(what, f"report it with {file.name}, which holds the traceback", EXIT_BUG, as_json)


def without_token(arguments: Sequence[str]) -> List[str]:
    """The arguments as they may be shown to others."""
    shown = ["--token=***" if argument.startswith("--token=") else argument for argument in arguments]
    return ["***" if before == "--token" else argument for before, argument in zip(["", *shown], shown)]
