"""Teaches text classification (task.py): texts of CSV, TSV and JSON lines as rows, with their labels or scores."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Collection, Dict, FrozenSet, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.checkpoint.families import Config, Family, Shape, Tensor
from neuronbert.checkpoint.loading import BaseCheckpoint, load_base_checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, as_whole, counted, shown_value
from neuronbert.tasks.checkpoints import modules_of_tasks
from neuronbert.tasks.labels import MOST_DIGITS, SHOWN_LABELS, label_names, label_number
from neuronbert.tasks.records import SUFFIXES as SUFFIXES
from neuronbert.tasks.rows import CutRow, TextOrPair, encode_rows, row_limit
from neuronbert.tasks.text_classification.data import RawText, labelled, load_labelled, several
from neuronbert.tasks.text_classification.problem import (
    MULTI_LABEL,
    REGRESSION,
    SINGLE_LABEL,
    Problem,
    problem_of,
)
from neuronbert.tasks.text_classification.task import HEAD as HEAD
from neuronbert_tools.console import print_message
from neuronbert_tools.finetuning.distillation import softened
from neuronbert_tools.finetuning.options import TrainingOptions
from neuronbert_tools.finetuning.task import CHUNK, Imitation, Lesson, Lessons, Loss, Target

PROBLEM_TYPES = (SINGLE_LABEL, MULTI_LABEL, REGRESSION)
SCORE_NAME = "LABEL_0"  # as transformers calls the one output of a regression


@dataclass(frozen=True)
class ClassificationOptions(TrainingOptions):
    """How texts become rows, and what a label is."""

    max_seq_len: Optional[int] = None  # tokens; None: the model's limit
    problem_type: str = SINGLE_LABEL


OPTIONS = ClassificationOptions


# ---------------------------------------------------------------------------- the base


def _inner_shapes(family: Family, hidden: int, labels: int) -> Dict[str, Shape]:
    """The head's weights that are the same for any number of labels: BERT's pooler, or the head's first layer."""
    less, more = HEAD.shapes(family, hidden, 1), HEAD.shapes(family, hidden, 2)
    return {name: shape for name, shape in less.items() if more[name] == shape}


_INNER = HEAD._replace(shapes=_inner_shapes)


def read_base(source: str, **hub: Any) -> BaseCheckpoint:
    """The base with its classifier; without one, with the pooler that BERTs have, if it was ever trained."""
    hub = {**hub, "modules": modules_of_tasks()}
    base = load_base_checkpoint(source, HEAD, **hub)
    if _has_classifier(base):
        return base
    with_inner = load_base_checkpoint(source, _INNER, **{**hub, "revision": base.revision or hub.get("revision")})
    return with_inner if _is_inner_trained(with_inner) else base


def _is_inner_trained(base: BaseCheckpoint) -> bool:
    """Whether a bias of the pooler has left the 0 that it begins with.

    Sentence encoders that average tokens (all-MiniLM-L6-v2) store a pooler that was never trained, only decayed to a
    spread of 0.009: a classifier learns slower from it than from one drawn with 0.02.
    """
    biases = [name for name in _INNER.shapes(base.family, 1, 1) if name.endswith(".bias") and name in base.tensors]
    return any(base.tensors[name].float32().any() for name in biases)


def _outer_names(family: Family) -> FrozenSet[str]:
    """The head's weights that have a row for each label."""
    return frozenset(HEAD.shapes(family, 1, 1)).difference(_inner_shapes(family, 1, 1))


def _has_classifier(base: BaseCheckpoint) -> bool:
    return _outer_names(base.family).issubset(base.tensors)


# ---------------------------------------------------------------------------- texts and their labels


class _Text(NamedTuple):
    """A text of a data file, as the file has it."""

    path: Path
    raw: RawText


def read_lessons(
    paths: Sequence[Path], base: BaseCheckpoint, tokenizer: Tokenizer, options: ClassificationOptions
) -> Lessons:
    """Every text of the files as a row with its label, and the base with the config of these labels.

    A classifier that the base has goes on if it tells apart exactly the labels of the data; else it is left out, and a
    new one has them in sorted order. InputError for a text without a label, and where all texts have the same.
    """
    texts = [_Text(path, raw) for path in paths for raw in load_labelled(path)]
    base = _with_labels(base, texts, options.problem_type)
    problem = problem_of(base.config)
    targets = [_target(text, problem) for text in texts]
    rows = _rows([text.raw.asked for text in texts], tokenizer, options.max_seq_len)
    items = [Lesson(cut.row, target) for cut, target in zip(rows, targets)]
    return Lessons(items, LOSSES[problem.kind], IMITATIONS[problem.kind], base)


def _target(text: _Text, problem: Problem) -> Target:
    """The label's number; 1.0 for each label that holds and 0.0 for the others; or the score."""
    label = labelled(text.raw, problem, text.path).label
    assert label is not None, "load_labelled refuses such a text"
    return [float(number in label) for number in range(len(problem.labels))] if isinstance(label, tuple) else label


def _rows(asked: Sequence[TextOrPair], tokenizer: Tokenizer, max_length: Optional[int]) -> List[CutRow]:
    rows: List[CutRow] = []
    for begin in range(0, len(asked), CHUNK):
        rows.extend(encode_rows(tokenizer, asked[begin : begin + CHUNK], max_length))
    truncated = sum(cut.truncated for cut in rows)
    if truncated:
        print_message(f"{counted(truncated, 'text')} cut to {row_limit(tokenizer, max_length)} tokens")
    return rows


# ---------------------------------------------------------------------------- the labels of the model


def _with_labels(base: BaseCheckpoint, texts: Sequence[_Text], kind: str) -> BaseCheckpoint:
    """The base with a config of these labels, and without a classifier of others."""
    found = [_names(text, kind) for text in texts]
    _refuse_alike(found, texts)
    distinct = {name for names in found for name in names}
    continues = _has_classifier(base) and _same_labels(distinct, label_names(base.config), kind)
    names = label_names(base.config) if continues else (SCORE_NAME,) if kind == REGRESSION else _in_order(distinct)
    shown = ", ".join(names[:SHOWN_LABELS]) + (", ..." if len(names) > SHOWN_LABELS else "")
    origin = f"going on from the classifier of {base.source}" if continues else "a new classifier"
    print_message(f"{counted(len(texts), 'text')}, {kind}, {counted(len(names), 'output')} ({shown}): {origin}")
    outer = frozenset() if continues else _outer_names(base.family)
    return base._replace(
        config=_config_of(base.config, names, kind),
        tensors={name: tensor for name, tensor in base.tensors.items() if name not in outer},
    )


def _names(text: _Text, kind: str) -> FrozenSet[str]:
    """The labels that a text has; of a regression its score."""
    label = text.raw.label
    if kind == REGRESSION:
        return frozenset([str(label)])
    return frozenset(_name(each, text) for each in (several(label) if kind == MULTI_LABEL else [label]))


def _refuse_alike(found: Sequence[FrozenSet[str]], texts: Sequence[_Text]) -> None:
    if len(set(found)) == 1:
        files = ", ".join(dict.fromkeys(str(text.path) for text in texts))
        raise InputError(
            f"every text of {files} has the label {shown_value(texts[0].raw.label)}: there is nothing to tell apart",
            hint="data with two labels or more",
        )


def _name(label: Any, text: _Text) -> str:
    if isinstance(label, str):
        return label
    if as_whole(label) is not None:
        return str(label)
    raise InputError(
        f"{text.path}, line {text.raw.line_number}: the label {shown_value(label)} is no name",
        hint=f"--problem-type {MULTI_LABEL} for lists of labels, --problem-type {REGRESSION} for scores",
    )


def _same_labels(names: Collection[str], known: Sequence[str], kind: str) -> bool:
    """Whether a classifier of the labels ``known`` tells apart exactly ``names``, by name or by number."""
    if kind == REGRESSION:
        return len(known) == 1
    try:
        return {label_number(name, known) for name in names} == set(range(len(known)))
    except InputError:
        return False


def _in_order(names: Iterable[str]) -> Tuple[str, ...]:
    """Sorted; by value where all are numbers: of 0 to 11, label 2 is output 2."""
    by_name = sorted(names)
    are_numbers = all(name.isdecimal() and len(name) < MOST_DIGITS for name in by_name)
    return tuple(sorted(by_name, key=int) if are_numbers else by_name)


def _config_of(config: Config, names: Sequence[str], kind: str) -> Mapping[str, Any]:
    return {
        **{key: value for key, value in config.items() if key != "num_labels"},
        "id2label": {str(number): name for number, name in enumerate(names)},
        "label2id": {name: number for number, name in enumerate(names)},
        "problem_type": kind,
    }


# ---------------------------------------------------------------------------- losses, as transformers' problem_type


def _cross_entropy(outputs: Sequence[Tensor], mask: Tensor, targets: Tensor) -> Tensor:
    """Of the numbers of the labels, int64 [rows]."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(outputs[0].float(), targets)


def _binary_cross_entropy(outputs: Sequence[Tensor], mask: Tensor, targets: Tensor) -> Tensor:
    """Of each label by itself, 0 or 1, float32 [rows, labels]."""
    from torch.nn.functional import binary_cross_entropy_with_logits

    return binary_cross_entropy_with_logits(outputs[0].float(), targets)


def _squared_error(outputs: Sequence[Tensor], mask: Tensor, targets: Tensor) -> Tensor:
    """Of the scores, float32 [rows]."""
    from torch.nn.functional import mse_loss

    return mse_loss(outputs[0].float()[:, 0], targets)


LOSSES: Dict[str, Loss] = {
    SINGLE_LABEL: _cross_entropy,
    MULTI_LABEL: _binary_cross_entropy,
    REGRESSION: _squared_error,
}

# ---------------------------------------------------------------------------- losses where a teacher is imitated


def _imitate_choice(outputs: Sequence[Tensor], taught: Sequence[Tensor], mask: Tensor) -> Tensor:
    return softened(outputs[0], taught[0])


def _imitate_labels(outputs: Sequence[Tensor], taught: Sequence[Tensor], mask: Tensor) -> Tensor:
    return _binary_cross_entropy(outputs, mask, taught[0].float().sigmoid())


def _imitate_score(outputs: Sequence[Tensor], taught: Sequence[Tensor], mask: Tensor) -> Tensor:
    return _squared_error(outputs, mask, taught[0].float()[:, 0])


IMITATIONS: Dict[str, Imitation] = {
    SINGLE_LABEL: _imitate_choice,
    MULTI_LABEL: _imitate_labels,
    REGRESSION: _imitate_score,
}
