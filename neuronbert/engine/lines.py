"""Answers files of questions: JSON lines in, a result a line out, and the line's number on whatever is wrong."""

import math
from dataclasses import replace
from itertools import islice
from typing import Any, Dict, Iterable, Iterator, List, Mapping, NamedTuple, Sequence, Tuple, TypeVar, Union

from neuronbert.engine.engine import CHUNK_QUESTIONS, Engine
from neuronbert.errors import InputError, NeuronBertError, UsageError
from neuronbert.tasks.question_answering.answers import AnswerOptions
from neuronbert.tasks.question_answering.squad import QuestionLine, SkippedLine, read_questions
from neuronbert.tasks.question_answering.windows import Example, Tokenizer, WindowOptions, encode_examples

Item = TypeVar("Item")
Options = TypeVar("Options", WindowOptions, AnswerOptions)


class PreparedLine(NamedTuple):
    """A line that can be answered: its question, tokenised, and the options it asks for."""

    line: QuestionLine
    example: Example
    options: AnswerOptions


def prepare_lines(
    tokenizer: Tokenizer,
    lines: Iterable[Union[str, bytes]],
    window_options: WindowOptions = WindowOptions(),
    answer_options: AnswerOptions = AnswerOptions(),
    on_error: str = "fail",
    first_line: int = 1,
) -> Tuple[List[PreparedLine], List[SkippedLine]]:
    """Read and tokenise every line before any is answered; ``first_line`` is the number of the first of them.

    Raises InputError naming the first bad line, or with ``on_error="skip"`` returns the bad ones beside the good, and
    UsageError for options that fit no line at all.
    """
    tokenizer.lengths(window_options)
    reader = read_questions(lines, on_error, first_line)
    prepared: List[PreparedLine] = []
    refused: List[SkippedLine] = []
    for chunk in _chunks(reader):
        for line, outcome in zip(chunk, _encode(tokenizer, chunk, window_options, answer_options)):
            if isinstance(outcome, PreparedLine):
                prepared.append(outcome)
            elif on_error == "fail":
                raise InputError(
                    f"line {line.line_number}: {outcome.message}",
                    hint=outcome.hint or "mend the line, or --on-error skip",
                )
            else:
                refused.append(SkippedLine(line.line_number, outcome.message))
    return prepared, sorted([*reader.skipped, *refused])


def refuse_no_question(lines: int) -> None:
    """Raise InputError if no line, good or bad, was read."""
    if not lines:
        raise InputError(
            "the input holds no question", hint='one JSON object a line: {"question": ..., "context": ...}'
        )


def _chunks(items: Iterable[Item]) -> Iterator[List[Item]]:
    source = iter(items)
    return iter(lambda: list(islice(source, CHUNK_QUESTIONS)), [])


def _encode(
    tokenizer: Tokenizer, lines: Sequence[QuestionLine], window_options: WindowOptions, answer_options: AnswerOptions
) -> List[Union[PreparedLine, NeuronBertError]]:
    """Each line prepared, or what is wrong with it; together if they can be, for a shared context is encoded once."""
    try:
        windows = {with_keywords(window_options, line.keywords) for line in lines}
        answers = [with_keywords(answer_options, line.keywords) for line in lines]
        if len(windows) == 1:
            examples = encode_examples(tokenizer, [(line.question, line.context) for line in lines], windows.pop())
            return [PreparedLine(*each) for each in zip(lines, examples, answers)]
    except (InputError, UsageError) as error:
        if len(lines) == 1:
            return [error]
    return [outcome for line in lines for outcome in _encode(tokenizer, [line], window_options, answer_options)]


def with_keywords(options: Options, keywords: Mapping[str, Any]) -> Options:
    """``options`` with those of a line's keywords that are among them."""
    known = {name: value for name, value in keywords.items() if name in options.__dataclass_fields__}
    return replace(options, **known)


def answer_lines(engine: Engine, prepared: Sequence[PreparedLine]) -> Iterator[Dict[str, Any]]:
    """One result for each prepared line, in order."""
    for chunk in _chunks(prepared):
        answers = engine.answer_encoded([one.example for one in chunk], [one.options for one in chunk])
        for one, ranked in zip(chunk, answers):
            yield result_of(one, ranked)


def result_of(one: PreparedLine, ranked: List[Dict[str, Any]]) -> Dict[str, Any]:
    """What is written for a line: its number, its ``id`` if it has one, and its answer (or ``answers``)."""
    identity = {} if one.line.id is None else {"id": one.line.id}
    return {"line": one.line.line_number, **identity, **flat(ranked, one.options.top_k)}


def flat(ranked: List[Dict[str, Any]], top_k: int) -> Dict[str, Any]:
    """For JSON: one answer's own keys where one was asked for, else a list under ``answers``; null for infinity."""
    ranked = [{name: None if value == math.inf else value for name, value in answer.items()} for answer in ranked]
    return ranked[0] if top_k == 1 and ranked else {"answers": ranked}
