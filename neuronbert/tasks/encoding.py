"""Encodes inputs together where that is possible, and tells those at fault from the others; for engine and runner."""

from contextlib import contextmanager
from typing import Iterator, List, Sequence, Union

from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError
from neuronbert.tasks.base import EncodeOptions, Example, Input, Task


def encode_each(
    task: Task, tokenizer: Tokenizer, inputs: Sequence[Input], options: EncodeOptions
) -> List[Union[Example, InputError]]:
    """Each input encoded, or its error. All together first, because then a text that they share is encoded once."""
    try:
        return list(task.encode(tokenizer, inputs, options))
    except InputError as error:
        if len(inputs) == 1:
            return [error]
    return [outcome for asked in inputs for outcome in encode_each(task, tokenizer, [asked], options)]


def encode_together(
    task: Task, tokenizer: Tokenizer, inputs: Sequence[Input], options: EncodeOptions, first: int = 0
) -> Sequence[Example]:
    """Every input encoded; InputError for the first that cannot be.

    The error names its place, counted from ``first``: unless it is the only one, number 0.
    """
    try:
        return task.encode(tokenizer, inputs, options)
    except InputError:
        if first or len(inputs) > 1:
            for number, asked in enumerate(inputs, first):
                with named_place(number):
                    task.encode(tokenizer, [asked], options)
        raise


def place_in(number: int) -> str:
    """How an error names one of many inputs: counted from 0, as Python does."""
    return f"inputs[{number}]"


@contextmanager
def named_place(number: int) -> Iterator[None]:
    """Name the place of an input, one of several, in the error that it is refused with inside the block."""
    try:
        yield
    except InputError as error:
        raise error.at(place_in(number)) from None
