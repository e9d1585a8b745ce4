"""What a classifier's logits mean, read from its config.json: names of the labels, and how many of them may hold."""

from typing import Any, Mapping, NamedTuple, Tuple

from neuronbert.tasks.labels import label_names

SINGLE_LABEL, MULTI_LABEL, REGRESSION = "single_label_classification", "multi_label_classification", "regression"
# What sentence-transformers' CrossEncoder applies to its scores, by the class of torch that its config names.
_ACTIVATIONS = {"Identity": "none", "Sigmoid": "sigmoid"}


class Problem(NamedTuple):
    """What a classifier decides."""

    kind: str  # SINGLE_LABEL, MULTI_LABEL or REGRESSION
    labels: Tuple[str, ...]
    function: str  # from logits to scores, where none is asked for: softmax, sigmoid or none
    ranking_function: str  # the same of a ranking


def problem_of(config: Mapping[str, Any]) -> Problem:
    """The problem of a checkpoint with this config.json, by the rules of transformers' text-classification pipeline."""
    labels = label_names(config)
    named = config.get("problem_type")
    kind = named if named in (MULTI_LABEL, REGRESSION) else (REGRESSION if len(labels) == 1 else SINGLE_LABEL)
    if named == REGRESSION:
        function = "none"
    else:
        function = "sigmoid" if named == MULTI_LABEL or len(labels) == 1 else "softmax"
    return Problem(kind, labels, function, _ACTIVATIONS.get(_named_activation(config), function))


def _named_activation(config: Mapping[str, Any]) -> str:
    """The last part of the class that a CrossEncoder's config names, in its new place or its old one."""
    own = config.get("sentence_transformers")
    if not isinstance(own, dict) or "activation_fn" not in own:
        own = {"activation_fn": config.get("sbert_ce_default_activation_function")}
    named = own["activation_fn"]
    return named.rpartition(".")[2] if isinstance(named, str) else ""
