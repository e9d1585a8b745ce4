"""The keywords of the toy task: as light as those of every task."""

from dataclasses import dataclass
from typing import Optional, Tuple

from neuronbert.errors import UsageError
from neuronbert.tasks.option import Text, Verb, option


@dataclass(frozen=True)
class CutOptions:
    """How a text becomes a row: what lies behind its first ``max_tokens`` (special ones counted) is left out."""

    max_tokens: Optional[int] = option(None, "Tokens that are read.", least=1)


@dataclass(frozen=True)
class LabelOptions:
    """What is wanted: no label (None) below ``min_score``, a softmax; with ``evidence`` the word that speaks for it."""

    min_score: float = option(0.0, "The least score of a label.", shows_default=True)
    evidence: bool = option(False, "Add the word that speaks for it.", of_output=True)

    def __post_init__(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise UsageError(f"min_score must be from 0 to 1, not {self.min_score!r}")


ENCODE_OPTIONS = CutOptions
DECODE_OPTIONS = LabelOptions
EVALUATION = "labelled sentences (JSON): how many labels are right"
OFFERS: Tuple[str, ...] = ()
VERBS: Tuple[Verb, ...] = (
    Verb("feel", "Label a sentence.", "Label a sentence with ARTIFACT.", (Text("text", "A sentence."),), '{"text"}'),
)
