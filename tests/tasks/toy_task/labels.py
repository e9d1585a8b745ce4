"""Texts to one row of tokens each, and scores to a label with the word that speaks most for it. Pure."""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, UsageError
from toy_task.options import CutOptions, LabelOptions


class TextRow(NamedTuple):
    """One row for the model."""

    input_ids: np.ndarray
    token_type_ids: np.ndarray


class Sample(NamedTuple):
    """A text as its one row, and what a result needs of it."""

    text: str
    windows: Sequence[TextRow]
    offsets: Sequence[Tuple[int, int]]  # characters of each token of the text
    first_token: int  # where those begin in the row
    labels: Sequence[str]  # the checkpoint's names, in order


def label_names(config: Mapping[str, Any]) -> List[str]:
    """The names in a config.json, which leaves out transformers' own two."""
    names = config.get("id2label") or {"0": "LABEL_0", "1": "LABEL_1"}
    return [names[number] for number in sorted(names, key=int)]


def encode_texts(tokenizer: Tokenizer, texts: Sequence[str], options: CutOptions) -> List[Sample]:
    """Every text as one row; InputError for one that is empty or no text."""
    for text in texts:
        if not isinstance(text, str) or not text:
            raise InputError(f"{text!r} is no text", hint="pass a str of one character or more")
    before, after = tokenizer.template.before, tokenizer.template.after
    room = room_for_text(tokenizer, options)
    names = label_names(tokenizer.config)
    samples = []
    for text, encoding in zip(texts, tokenizer.encode(list(texts))):
        ids = np.concatenate((before, np.array(encoding.ids[:room], dtype=np.int64), after)).astype(np.int64)
        row = TextRow(ids, np.zeros_like(ids))
        samples.append(Sample(text, [row], encoding.offsets[:room], len(before), names))
    return samples


def room_for_text(tokenizer: Tokenizer, options: CutOptions) -> int:
    """Tokens of a row that are left for the text; UsageError when there are none."""
    limits = [limit for limit in (options.max_tokens, tokenizer.max_length) if limit is not None]
    special = len(tokenizer.template.before) + len(tokenizer.template.after)
    room = min(limits, default=512) - special
    if room < 1:
        raise UsageError(f"max_tokens={options.max_tokens} leaves no room for text", hint=f"{special + 1} or more")
    return room


def label_of(sample: Sample, outputs: Sequence[Outputs], options: LabelOptions) -> Dict[str, Any]:
    """The label, its score, and its evidence if that is asked for."""
    (own,) = outputs  # one row
    scores = _softmax(own["label_scores"])
    best = int(scores.argmax())
    sure = scores[best] >= options.min_score
    result: Dict[str, Any] = {"label": sample.labels[best] if sure else None, "score": float(scores[best])}
    if options.evidence and sample.offsets:
        spoken = own["token_scores"][sample.first_token : sample.first_token + len(sample.offsets), best]
        start, end = sample.offsets[int(spoken.argmax())]
        result["evidence"] = sample.text[start:end]
    return result


def _softmax(scores: np.ndarray) -> np.ndarray:
    powers = np.exp(scores.astype(np.float64) - scores.max())
    return powers / powers.sum()
