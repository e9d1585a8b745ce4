"""The verbs that answer questions from an artifact: one or a stream of them here, a file of any size by the runner."""

import sys
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO, Iterator, Optional

import click

from neuronbert.cli.options import (
    answer_options,
    details_option,
    json_option,
    on_error_option,
    threads_option,
    top_k_option,
    variant_option,
    window_options,
)
from neuronbert.cli.output import bytes_bar, note, note_beside_bar, put, show, to_json
from neuronbert.errors import InputError, NeuronBertError, UsageError


@click.command("answer")
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


@click.command("run")
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
