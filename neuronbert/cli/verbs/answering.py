"""The verbs that answer inputs: those of the tasks (tasks/option.py:Verb), and a file of any size by the runner."""

import os
import stat
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, BinaryIO, Container, Dict, List, Optional, Sequence

import click

from neuronbert.cli.options import FILE_FORMATS, busy_wait_option, line_options, together
from neuronbert.cli.output import put, show, to_json
from neuronbert.cli.progress import Progress, note
from neuronbert.cli.task_options import Decorator
from neuronbert.errors import NeuronBertError, UsageError, quoted
from neuronbert.tasks import TASKS, load_options
from neuronbert.tasks.option import Text, Verb

if TYPE_CHECKING:
    from neuronbert.tasks.base import Columns
    from neuronbert.tasks.line_formats import LineFormat


def task_verbs() -> List[click.Command]:
    """The commands that answer inputs of one task each, of every task of the table."""
    return [verb_of(task, verb) for task in TASKS for verb in load_options(task).VERBS]


def verb_of(task: str, verb: Verb) -> click.Command:
    """The command that answers one input of ``task``, given as options, or a file of them."""

    @click.argument("artifact", type=click.Path())
    @together(*map(_text_option, verb.texts))
    @click.option(
        "--input",
        "input_",
        type=click.Path(allow_dash=True),
        help=f"JSON lines of {verb.line}, or a .csv or .tsv file with these columns; - for stdin.",
    )
    @line_options(task, output="jsonl")
    def answer(
        artifact: str,
        input_: Optional[str],
        input_format: Optional[str],
        output_format: Optional[str],
        on_error: str,
        as_json: bool,
        **options: Any,
    ) -> None:
        texts = {text.name: options.pop(text.name) for text in verb.texts}
        given = {name: list(text) if isinstance(text, tuple) else text for name, text in texts.items() if text != ()}
        given = {name: text for name, text in given.items() if text is not None}
        if input_ is None:
            _refuse_missing(verb, given)
            if input_format or output_format:
                raise UsageError("--input-format and --output-format are for --input", hint="leave them out")
            _answer_one(artifact, task, as_json, **given, **options)
        elif given:
            typed = " and ".join(text.option for text in verb.texts)
            raise UsageError(f"--input takes the place of {typed}", hint="one or the other")
        else:
            _answer_file(artifact, task, input_, input_format, output_format, on_error, as_json, **options)

    answer.__doc__ = verb.help
    return click.command(verb.name, short_help=verb.short_help)(answer)


def _text_option(text: Text) -> Decorator:
    return click.option(text.option, text.name, multiple=text.many, help=text.help)


def _refuse_missing(verb: Verb, given: Container[str]) -> None:
    """UsageError where a text that must be there is not; one that is empty is for the task to refuse."""
    for text in verb.texts:
        if text.required and text.name not in given:
            raise UsageError(f"{text.option} is missing", hint=f"{verb.example}, or --input FILE.jsonl")


def _answer_one(artifact: str, task: str, as_json: bool, **options: Any) -> None:
    from neuronbert.backends.quiet import stdout_to_stderr
    from neuronbert.engine.answering import answer_input

    with stdout_to_stderr():  # native libraries print what they like to stdout, which is the result's
        answered = answer_input(artifact, task=task, **options)
    show(as_json, answered.document, lambda: answered.text)


class _Printer:
    """Prints results as they come: a line or row for each, and the header of a table before them."""

    def __init__(self, written: "LineFormat"):
        self._written = written
        self._columns: Sequence[str] = ()

    def begin(self, columns: "Columns") -> None:
        self._columns = [*columns]
        head = self._written.head(self._columns)
        if head:
            put(head[:-1])

    def result(self, document: Dict[str, Any]) -> None:
        is_json = self._written.name == "jsonl"
        put(to_json(document) if is_json else self._written.line(document, self._columns)[:-1])


def _answer_file(
    artifact: str,
    task: str,
    input_: str,
    input_format: Optional[str],
    output_format: Optional[str],
    on_error: str,
    as_json: bool,
    **options: Any,
) -> None:
    from neuronbert.backends.quiet import stdout_to_stderr
    from neuronbert.engine.answering import answer_file
    from neuronbert.tasks.line_formats import line_format
    from neuronbert.tasks.lines import open_lines

    if output_format in FILE_FORMATS:
        run = f"neuronbert run {quoted(artifact)} --input {quoted(input_)} --output RESULTS.{output_format}"
        raise UsageError(f"{output_format} is not for a terminal or pipe", hint=run)
    reads, writes = line_format("input_format", input_format, input_), line_format("output_format", output_format, "")
    if as_json and output_format:
        raise UsageError(f"--json and --output-format {output_format} are two formats", hint="one or the other")
    results: List[Dict[str, Any]] = []
    printer = _Printer(writes)
    on_columns, on_result = (lambda columns: None, results.append) if as_json else (printer.begin, printer.result)
    file_lines = open_lines(input_, hint="--input FILE.jsonl, FILE.csv or FILE.tsv, or - for stdin")
    # Without --json each result goes to stdout as it comes: there, what loading prints is all that can be kept away.
    with stdout_to_stderr() if as_json else nullcontext(), file_lines as file, Progress("loading") as shown:
        reading, answering = shown.then("reading", "lines"), shown.then("answering", "lines")

        def progress(done: int, total: Optional[int]) -> None:
            (reading if total is None else answering)(done, total)

        skipped = answer_file(
            artifact,
            file,
            line_format=reads,
            task=task,
            on_error=on_error,
            on_columns=on_columns,
            on_result=on_result,
            progress=progress,
            **options,
        )
    if as_json:
        put(to_json({"results": results, "skipped": [line._asdict() for line in skipped]}, indent=2))
    for line in skipped:
        note(f"skipped line {line.line_number}: {line.reason}")


@click.command("run", short_help="Answer a file of any size; goes on after a kill.")
@click.argument("artifact", type=click.Path())
@click.option(
    "--input",
    required=True,
    type=click.Path(allow_dash=True),
    help="JSON lines, or a .csv or .tsv file, as the artifact's task reads them; - for stdin, which cannot be read "
    "again after a kill.",
)
@click.option(
    "--output",
    required=True,
    type=click.Path(),
    help="A new file: a JSON line, or a row, for each line or row read; .npy (embeddings) and .parquet too.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Processes.  [default: one a core group; on GPUs one a CPU core, as far as memory goes and up to 8 a GPU; on "
    "CPUs one that has all]",
)
@busy_wait_option
@line_options(output="by the suffix of --output, else jsonl")
def run_(artifact: str, input: str, output: str, as_json: bool, **options: Any) -> None:
    """Answer a file of any size with ARTIFACT, through the multi-worker runner.

    After an interrupt or a kill at any moment the same command goes on where it was: until all is done the output is
    OUTPUT.partial.
    """
    from neuronbert.cli.tables import job_summary
    from neuronbert.runner.job import run_job
    from neuronbert.tasks.lines import stdin_bytes

    if input == "-" and not _is_file(stdin_bytes()):
        note("stdin cannot be read again: a job that is killed begins anew")
    begun = False
    try:
        with Progress("loading") as shown:
            count = shown.then("answering", "lines")

            def progress(done: int, total: Optional[int]) -> None:
                nonlocal begun
                if done and not begun:
                    note(f"going on behind line {done:,}, where an earlier run was")
                begun = True
                count(done, total)

            report = run_job(
                artifact,
                input,
                output,
                progress=progress,
                on_skip=lambda line: note(f"skipped line {line.line_number}: {line.reason}"),
                on_unsaid=lambda line_number, what: note(f"line {line_number}: {what}"),
                **options,
            )
    except (KeyboardInterrupt, NeuronBertError):
        if begun:
            _tell_what_is_kept(input, output)
        raise
    note(job_summary(report))
    if as_json:
        show(as_json, report.as_dict(), str)


def _is_file(stream: BinaryIO) -> bool:
    return stat.S_ISREG(os.fstat(stream.fileno()).st_mode)


def _tell_what_is_kept(input: str, output: str) -> None:
    """After a job that had begun and came to no end: how much is on the disk, and the command that goes on."""
    from neuronbert.artifact.resumable import partial_path, read_record
    from neuronbert.tasks.lines import stdin_bytes

    record = None
    with suppress(NeuronBertError):
        record = read_record(output)
    if os.path.lexists(output) and not os.path.lexists(partial_path(output)):
        note(f"{output} is complete")
    elif record is None or not (record.resumable and record.input_lines):
        again = os.path.isfile(input) or (input == "-" and _is_file(stdin_bytes()))
        note(f"nothing is kept{'' if again else ', for the input cannot be read again'}: the same command begins anew")
    else:
        stdin = ", with the same stdin" if input == "-" else ""
        note(f"{record.input_lines:,} lines are done and kept in {partial_path(output)}; to go on from there{stdin}:")
        note(f"  {click.get_current_context().obj}")
