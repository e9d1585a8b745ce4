"""Encodes inputs together where that is possible, and tells those at fault from the others; for engine and runner."""

from typing import List, Sequence, Union

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


def place_in(number: int) -> str:
    """How an error names one of many inputs: counted from 0, as Python does."""
    return f"inputs[{number}]"
