"""How much of a model one request may need: rows, and text before anybody knows its rows. For ``exchange``."""

from typing import Any, Mapping

from neuronbert.errors import TooManyRows, counted
from neuronbert.server.failures import HttpError
from neuronbert.server.models import Model

FEWER_ROWS = "fewer or shorter inputs in each request; the server's --max-rows-per-request is the limit"
# Of text that may be tokenised before its rows are counted, to a token of as many rows as one request may have. English
# has four or five to a token, and hardly any text more than ten.
CHARACTERS_PER_TOKEN = 16
# Never fewer characters than that: they take a few hundredths of a second, and text that the model cuts needs one row.
FEWEST_CHARACTERS = 65_536
UNLIMITED_TOKENS = 65_536  # of a row, where neither tokenizer nor model has a limit


def refuse_more_rows(rows: int, most: int) -> None:
    """HttpError 413 for more rows than one request may need."""
    if rows > most:
        raise HttpError(
            413, f"this request needs {counted(rows, 'row')}, and the server takes {most:,} at once", hint=FEWER_ROWS
        )


def refuse_more_text(model: Model, inputs: Any, size_bytes: int, most_rows: int) -> None:
    """TooManyRows for text that is more than ``most_rows`` rows in all likelihood, before it is tokenised.

    size_bytes: of the JSON, or whatever else the text came in, which has no more characters than that.
    """
    most = max(FEWEST_CHARACTERS, most_rows * longest_row(model) * CHARACTERS_PER_TOKEN)
    if size_bytes > most and characters(inputs) > most:
        raise TooManyRows(f"there are more than {most:,} characters, and the server takes {most_rows:,} rows at once")


def characters(inputs: Any) -> int:
    """Of all texts in inputs, however a task has them: as lists, tuples or objects of texts."""
    if isinstance(inputs, str):
        return len(inputs)
    if isinstance(inputs, Mapping):
        return sum(map(characters, inputs.values()))
    return sum(map(characters, inputs)) if isinstance(inputs, (list, tuple)) else 0


def longest_row(model: Model) -> int:
    """Tokens of a row at most."""
    return model.runner.tokenizer.max_length or UNLIMITED_TOKENS
