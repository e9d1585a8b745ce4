"""Answers files of lines (tasks/line_formats.py): a result for each line, and every error with its line number."""

from dataclasses import replace
from heapq import merge
from operator import itemgetter
from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import in_inputs
from neuronbert.engine.engine import Engine, chunks_of
from neuronbert.errors import InputError, NeuronBertError, UsageError
from neuronbert.tasks.base import DecodeOptions, Document, EncodeOptions, Example, Keywords, Result, Task
from neuronbert.tasks.line_formats import JSON_LINES, LineFormat
from neuronbert.tasks.lines import BoundedLines, Entry, InputLine, LineReader, SkippedLine, line_head


class PreparedLine(NamedTuple):
    """A line that can be answered: its input as rows, and the options it asks for."""

    line: InputLine
    example: Example
    options: DecodeOptions


# Called with the lines that are read, and None; then with those that are answered, and how many there are.
Progress = Callable[[int, Optional[int]], None]


def answer_lines(
    engine: Engine,
    file: BinaryIO,
    encode_options: EncodeOptions,
    decode_options: DecodeOptions,
    on_error: str,
    progress: Progress = lambda done, total: None,
    line_format: LineFormat = JSON_LINES,
) -> Tuple[Iterator[Document], List[SkippedLine]]:
    """The result or error of each entry of ``file``, in order, and the entries that were skipped.

    Every line is read before any is answered: InputError for the first broken one, unless ``on_error`` is "skip".
    """
    task = engine.task
    entries = _counted(line_format.entries(BoundedLines(file).numbered(), task.LINES), progress)
    prepared, skipped = prepare_lines(
        task, engine.tokenizer, entries, encode_options, decode_options, on_error, line_format
    )
    refuse_no_input(task, len(prepared) + len(skipped), line_format)
    errors = (line.document() for line in skipped)
    return merge(answer_prepared(engine, prepared, progress), errors, key=itemgetter("line")), skipped


def prepare_lines(
    task: Task,
    tokenizer: Tokenizer,
    entries: Iterable[Entry],
    encode_options: EncodeOptions,
    decode_options: DecodeOptions,
    on_error: str = "fail",
    line_format: LineFormat = JSON_LINES,
    check_result: Callable[[DecodeOptions], None] = lambda options: None,
) -> Tuple[List[PreparedLine], List[SkippedLine]]:
    """Check and tokenise all entries of a file in ``line_format`` before any is answered.

    Raises InputError naming the first bad line, or with ``on_error="skip"`` returns the bad ones beside the good, and
    UsageError for options that fit no line at all. ``check_result`` raises one for options, of all lines or of one,
    whose results cannot be written.
    """

    def check(encode: EncodeOptions, decode: DecodeOptions) -> None:
        task.check_options(tokenizer, encode, decode)
        check_result(decode)

    check(encode_options, decode_options)
    reader = LineReader(entries, task.LINES, line_format.hint(task.LINES), on_error)
    prepared: List[PreparedLine] = []
    refused: List[SkippedLine] = []
    for chunk in chunks_of(reader):
        for line, outcome in zip(chunk, _encode(task, tokenizer, chunk, encode_options, decode_options, check)):
            if isinstance(outcome, PreparedLine):
                prepared.append(outcome)
            elif on_error == "fail":
                raise InputError(
                    f"line {line.line_number}: {outcome.message}",
                    hint=outcome.hint or "mend the line, or --on-error skip",
                )
            else:
                refused.append(SkippedLine(line.line_number, outcome.message, line.id))
    return prepared, sorted([*reader.skipped, *refused])


def refuse_no_input(task: Task, lines: int, line_format: LineFormat) -> None:
    """Raise InputError if no entry, good or bad, was read."""
    if not lines:
        raise InputError(f"the input holds no {task.LINES.noun}", hint=line_format.hint(task.LINES))


def _encode(
    task: Task,
    tokenizer: Tokenizer,
    lines: Sequence[InputLine],
    encode_options: EncodeOptions,
    decode_options: DecodeOptions,
    check: Callable[[EncodeOptions, DecodeOptions], None],
) -> List[Union[PreparedLine, NeuronBertError]]:
    """Each line prepared, or its error. All together where they can be, because then a shared text is encoded once."""
    try:
        encoding = [with_keywords(encode_options, line.keywords) for line in lines]
        decoding = [with_keywords(decode_options, line.keywords) for line in lines]
        if len(set(encoding)) == 1:
            for line, decode in zip(lines, decoding):
                if line.keywords:
                    check(encoding[0], decode)
            examples = task.encode(tokenizer, [line.input for line in lines], encoding[0])
            return [PreparedLine(*parts) for parts in zip(lines, examples, decoding)]
    except (InputError, UsageError) as error:
        if len(lines) == 1:
            return [error]
    return [
        outcome for line in lines for outcome in _encode(task, tokenizer, [line], encode_options, decode_options, check)
    ]


def with_keywords(options: Any, keywords: Keywords) -> Any:
    """``options``, a frozen dataclass, with those of a line's ``keywords`` that are fields of it."""
    known = {name: value for name, value in keywords.items() if name in options.__dataclass_fields__}
    return replace(options, **known)


def answer_prepared(
    engine: Engine, prepared: Sequence[PreparedLine], progress: Progress = lambda done, total: None
) -> Iterator[Document]:
    """One result for each prepared line, in order."""
    total, done = len(prepared), 0
    progress(0, total)
    for chunk in chunks_of(prepared):
        rows = sum(len(line.example.windows) for line in chunk)
        told = in_inputs(lambda lines: progress(lines, total), done, len(chunk), rows)
        results = engine.answer_encoded([line.example for line in chunk], [line.options for line in chunk], told)
        for line, result in zip(chunk, results):
            yield result_of(engine.task, line, result)
        done += len(chunk)


def _counted(entries: Iterable[Entry], progress: Progress) -> Iterator[Entry]:
    for entry in entries:
        progress(entry.line_number, None)
        yield entry


def result_of(task: Task, line: PreparedLine, result: Result) -> Document:
    """The document for a line: its number, its ``id`` if it has one, and its result."""
    return {**line_head(line.line.line_number, line.line.id), **task.json_result(result, line.options)}
