"""Answers files of JSON lines (tasks/lines.py): a result for each line, and every error with its line number."""

from dataclasses import replace
from heapq import merge
from operator import itemgetter
from typing import Any, BinaryIO, Callable, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import in_inputs
from neuronbert.engine.engine import Engine, chunks_of
from neuronbert.errors import InputError, NeuronBertError, UsageError
from neuronbert.tasks.base import DecodeOptions, Document, EncodeOptions, Example, Keywords, Result, Task
from neuronbert.tasks.lines import BoundedLines, InputLine, SkippedLine, line_head, read_lines


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
) -> Tuple[Iterator[Document], List[SkippedLine]]:
    """The result or error of each line of ``file``, in order, and the lines that were skipped.

    Every line is read before any is answered: InputError for the first broken one, unless ``on_error`` is "skip".
    """
    lines = _counted(BoundedLines(file), progress)
    prepared, skipped = prepare_lines(engine.task, engine.tokenizer, lines, encode_options, decode_options, on_error)
    refuse_no_input(engine.task, len(prepared) + len(skipped))
    errors = (line.document() for line in skipped)
    return merge(answer_prepared(engine, prepared, progress), errors, key=itemgetter("line")), skipped


def prepare_lines(
    task: Task,
    tokenizer: Tokenizer,
    lines: Iterable[Union[str, bytes]],
    encode_options: EncodeOptions,
    decode_options: DecodeOptions,
    on_error: str = "fail",
    first_line: int = 1,
) -> Tuple[List[PreparedLine], List[SkippedLine]]:
    """Read and tokenise every line before any is answered; ``first_line`` is the number of the first line.

    Raises InputError naming the first bad line, or with ``on_error="skip"`` returns the bad ones beside the good, and
    UsageError for options that fit no line at all.
    """
    task.check_options(tokenizer, encode_options)
    reader = read_lines(lines, task.LINES, on_error, first_line)
    prepared: List[PreparedLine] = []
    refused: List[SkippedLine] = []
    for chunk in chunks_of(reader):
        for line, outcome in zip(chunk, _encode(task, tokenizer, chunk, encode_options, decode_options)):
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


def refuse_no_input(task: Task, lines: int) -> None:
    """Raise InputError if no line, good or bad, was read."""
    if not lines:
        raise InputError(f"the input holds no {task.LINES.noun}", hint=f"one JSON object a line: {task.LINES.example}")


def _encode(
    task: Task,
    tokenizer: Tokenizer,
    lines: Sequence[InputLine],
    encode_options: EncodeOptions,
    decode_options: DecodeOptions,
) -> List[Union[PreparedLine, NeuronBertError]]:
    """Each line prepared, or its error. All together where they can be, because then a shared text is encoded once."""
    try:
        encoding = {with_keywords(encode_options, line.keywords) for line in lines}
        decoding = [with_keywords(decode_options, line.keywords) for line in lines]
        if len(encoding) == 1:
            examples = task.encode(tokenizer, [line.input for line in lines], encoding.pop())
            return [PreparedLine(*parts) for parts in zip(lines, examples, decoding)]
    except (InputError, UsageError) as error:
        if len(lines) == 1:
            return [error]
    return [outcome for line in lines for outcome in _encode(task, tokenizer, [line], encode_options, decode_options)]


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


def _counted(lines: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    for number, line in enumerate(lines, start=1):
        progress(number, None)
        yield line


def result_of(task: Task, line: PreparedLine, result: Result) -> Document:
    """The document for a line: its number, its ``id`` if it has one, and its result."""
    return {**line_head(line.line.line_number, line.line.id), **task.json_result(result, line.options)}
