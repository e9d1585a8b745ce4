"""Feature extraction as Hugging Face's clients ask for it over HTTP (tasks/http.py): embeddings, and similarities."""

from typing import Any, Dict, FrozenSet, List, Literal, Sequence, Union

import numpy as np

from neuronbert.checkpoint.families import Config
from neuronbert.errors import InputError
from neuronbert.tasks.feature_extraction.modules import modules_of
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions, TextOptions
from neuronbert.tasks.feature_extraction.results import EMBEDDING, TOKENS
from neuronbert.tasks.feature_extraction.similarity import similarities
from neuronbert.tasks.http import EMBEDDINGS, Asked, Struct, as_list, body_type, keywords_of, refuse_cut


class Sentences(Struct):
    """A text, and those that it is compared with."""

    source_sentence: str
    sentences: List[str]


BODY = body_type(
    "FeatureExtraction",
    Union[str, Sentences, List[str]],
    TextOptions,
    EmbeddingOptions,
    # Clients send these beside the inputs.
    beside={
        "normalize": bool,
        "truncate": bool,
        "truncation_direction": Literal["right", "Right"],  # a text that does not fit loses its end
        "prompt_name": str,
        "dimensions": int,
    },
)
EXAMPLE = {"inputs": "A text to embed."}


def offers(config: Config) -> FrozenSet[str]:
    """Embeddings, where a text has one, and not one for each token."""
    return frozenset((EMBEDDINGS,) if modules_of(config).pooling else ())


def asked(body: Any) -> Asked:
    """A list of the embedding of each text; of a comparison the cosine with each sentence."""
    beside = {"normalize": body.normalize, "prompt_name": body.prompt_name, "truncate_dim": body.dimensions}
    keywords: Dict[str, Any] = {name: value for name, value in beside.items() if value is not None}
    keywords.update(keywords_of(body))
    may_cut = body.truncate is not False
    if isinstance(body.inputs, Sentences):
        compared = body.inputs
        if not compared.sentences:
            raise InputError("$.inputs.sentences: there are none to compare with", hint="one sentence or more")
        return Asked(
            [compared.source_sentence, *compared.sentences],
            keywords,
            lambda results: _cosines(_arrays(results, may_cut)),
        )
    return Asked(as_list(body.inputs), keywords, lambda results: [each.tolist() for each in _arrays(results, may_cut)])


def _arrays(results: Sequence[Dict[str, Any]], may_cut: bool) -> List[np.ndarray]:
    """The embedding of each text, or of its tokens; InputError for a text that was cut and may not be."""
    if not may_cut:
        refuse_cut(results)
    return [result[EMBEDDING] if EMBEDDING in result else result[TOKENS] for result in results]


def _cosines(arrays: Sequence[np.ndarray]) -> List[float]:
    if arrays[0].ndim != 1:
        raise InputError(
            "this artifact has an embedding for each token, and texts are compared by one each",
            hint="compile with --pooling mean",
        )
    cosines: List[float] = similarities("cosine", arrays[0][None], np.stack(arrays[1:]))[0].tolist()
    return cosines
