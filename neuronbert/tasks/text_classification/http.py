"""Text classification as Hugging Face's clients ask for it over HTTP (tasks/http.py)."""

from typing import Any, FrozenSet, List, Optional, Union

from neuronbert.checkpoint.families import Config
from neuronbert.tasks.http import (
    EVERY_LABEL,
    LABELS,
    RANKING,
    Asked,
    Struct,
    as_list,
    body_type,
    keywords_of,
)
from neuronbert.tasks.labels import label_names
from neuronbert.tasks.rows import TextPair
from neuronbert.tasks.text_classification.options import LabelOptions, RowOptions


class Pair(Struct):
    """A text, and one that is read beside it."""

    text: str
    text_pair: Optional[str] = None


BODY = body_type("TextClassification", Union[str, Pair, List[Union[str, Pair]]], RowOptions, LabelOptions)
EXAMPLE = {"inputs": "I lost my card."}


def offers(config: Config) -> FrozenSet[str]:
    """Labels; of a cross-encoder, which gives one score, a ranking too."""
    return frozenset((LABELS, RANKING) if len(label_names(config)) == 1 else (LABELS,))


def asked(body: Any) -> Asked:
    """A list with the labels of each text, best first, every label where ``top_k`` does not say how many."""
    keywords = {"top_k": EVERY_LABEL, **keywords_of(body)}
    return Asked([_input(each) for each in as_list(body.inputs)], keywords, lambda results: list(map(as_list, results)))


def _input(given: Any) -> Any:
    if isinstance(given, str):
        return given
    return given.text if given.text_pair is None else TextPair(given.text, given.text_pair)
