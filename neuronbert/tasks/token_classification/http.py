"""Token classification as Hugging Face's clients ask for it over HTTP (tasks/http.py)."""

from typing import Any, FrozenSet, List, Union

from neuronbert.checkpoint.families import Config
from neuronbert.tasks.http import Asked, alone, as_list, body_type, keywords_of
from neuronbert.tasks.token_classification.options import EntityOptions, StrideOptions

BODY = body_type("TokenClassification", Union[str, List[str]], StrideOptions, EntityOptions)
EXAMPLE = {"inputs": "Ada Lovelace lived in London."}


def offers(config: Config) -> FrozenSet[str]:
    """Nothing: only its own protocol has words for it."""
    return frozenset()


def asked(body: Any) -> Asked:
    """The list of a text's entities; several texts have a list of those. As the hosted API does, it joins tokens."""
    keywords = {"aggregation_strategy": "simple", **keywords_of(body)}
    return Asked(as_list(body.inputs), keywords, lambda results: alone(body.inputs, results))
