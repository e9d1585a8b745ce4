"""Evaluates token classification on labelled files: the figures of entity_f1.py, their report, and a comparison."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, FrozenSet, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.families import Config
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, positive
from neuronbert.tasks.base import Document, PathLike, Table
from neuronbert.tasks.labels import label_names
from neuronbert.tasks.report_text import shortened
from neuronbert.tasks.token_classification.data import LabelledText, MarkedText, load_marked, with_labels
from neuronbert.tasks.token_classification.entity_f1 import (
    Counts,
    Span,
    count_entities,
    f1_interval,
    macro_f1,
    overall,
    shared_f1,
    tag_accuracy,
)
from neuronbert.tasks.token_classification.options import StrideOptions
from neuronbert.tasks.token_classification.tagging import Found, equal_labels, found_in
from neuronbert.tasks.token_classification.windows import Example, TextInput, encode_texts, row_lengths

Metrics = Dict[str, float]


class NamedEntity(NamedTuple):
    """An entity of a text, in characters, as reports have it."""

    label: str
    start: int
    end: int
    text: str


@dataclass(frozen=True)
class ChangedText:
    """A text in which two models found different entities, and those that are right."""

    place: str  # in the file
    gold: Tuple[NamedEntity, ...]
    entities: Tuple[NamedEntity, ...]
    against_entities: Tuple[NamedEntity, ...]


@dataclass(frozen=True)
class Comparison:
    """How the labels and entities differ from those of ``against``."""

    against: str
    metrics: Metrics  # of ``against``, as EvaluationReport.metrics
    equal_labels: float  # share of the tokens with the same label, 0 to 1
    entity_f1: float  # of the entities against those of ``against``, 0 to 1
    changed: Tuple[ChangedText, ...]


@dataclass(frozen=True)
class EvaluationReport:
    """What an artifact scores on a labelled file."""

    data: str
    texts: int
    artifact: str
    variant: str
    # Percentages: precision, recall and f1 over all entities, macro_f1 over their types, and, where the data has a tag
    # for every word, accuracy: the share of words that have the right one.
    metrics: Metrics
    f1_interval: Tuple[float, float]  # 95 % bootstrap interval of the F1, in percent
    by_type: Dict[str, Metrics]  # precision, recall and f1 in percent, and how many there are in the data: support
    seconds: float  # from text to labels, loading not counted
    predictions: Tuple[Tuple[NamedEntity, ...], ...]  # of each text
    environment: Document
    comparison: Optional[Comparison] = None

    @property
    def texts_per_s(self) -> float:
        return self.texts / self.seconds

    def as_dict(self) -> Document:
        """Every figure, for JSON."""
        document = {**asdict(self), "texts_per_s": self.texts_per_s}
        document["predictions"] = [[entity._asdict() for entity in found] for found in self.predictions]
        if self.comparison is not None:
            document["comparison"]["changed"] = [_changed_document(changed) for changed in self.comparison.changed]
        return document

    def tables(self) -> List[Union[str, Table]]:
        """Lines and tables for a person: the figures, each type, and in a comparison every text that changed."""
        low, high = self.f1_interval
        facts = [
            ("artifact", f"{self.artifact} ({self.variant})"),
            ("data", f"{self.data}: {self.texts} texts"),
            *((name, f"{value:.4f}") for name, value in self.metrics.items()),
            ("f1, 95 % interval", f"{low:.2f} to {high:.2f}"),
            ("texts/s", f"{self.texts_per_s:.1f} (from text to labels, loading not counted)"),
        ]
        compared = [] if self.comparison is None else ["", *_comparison(self.comparison)]
        return [Table(facts), "", _types(self.by_type), *compared]


def _changed_document(changed: ChangedText) -> Document:
    return {
        name: [entity._asdict() for entity in value] if isinstance(value, tuple) else value
        for name, value in vars(changed).items()
    }


def _types(by_type: Mapping[str, Metrics]) -> Table:
    rows = [
        [name, *(f"{figures[key]:.2f}" for key in ("precision", "recall", "f1")), str(figures["support"])]
        for name, figures in by_type.items()
    ]
    return Table(rows, ("type", "precision", "recall", "f1", "entities"))


def _comparison(comparison: Comparison) -> Iterator[Union[str, Table]]:
    """How the entities differ from the others, and every text in which they do."""
    yield (
        f"against {comparison.against}: {comparison.equal_labels:.1%} of the labels equal, "
        f"entity F1 {comparison.entity_f1:.3f}, its own F1 {comparison.metrics['f1']:.4f}; "
        f"{len(comparison.changed)} texts changed"
    )
    rows = [
        [changed.place, *map(_short, (changed.against_entities, changed.entities, changed.gold))]
        for changed in comparison.changed
    ]
    if rows:
        yield Table(rows, ("text", "was", "is", "gold"))


def _short(entities: Sequence[NamedEntity]) -> str:
    return shortened(", ".join(f"{entity.label} {entity.text}" for entity in entities), 60) or "(no entities)"


class TaggingEvaluation:
    """One evaluation on a labelled file (tasks.base.TaskEvaluation).

    What is read of a text are the tags of its words, as tagging.py gives them, whatever the options of its entities.
    """

    def __init__(self, name: str, marked: Sequence[MarkedText], options: StrideOptions):
        self.name = name
        self._marked = marked
        self._options = options
        # Which labels the file may use is known once the artifact is.
        self._labelled: Sequence[LabelledText] = ()

    @classmethod
    def of(cls, path: PathLike, limit: Optional[int], options: StrideOptions) -> "TaggingEvaluation":
        """The evaluation on a file's first ``limit`` texts; InputError for a file that cannot be read."""
        return cls(str(path), load_marked(path)[: positive("limit", limit)], options)

    @property
    def inputs(self) -> List[TextInput]:
        """The texts, with their words where those have tags."""
        return [text.input for text in self._marked]

    def options_for(self, tokenizer: Tokenizer) -> StrideOptions:
        """The rows that an artifact can read: static shapes cut them shorter.

        InputError for a file with labels that the artifact's checkpoint does not have.
        """
        self._labelled = with_labels(self._marked, label_names(tokenizer.config), self.name)
        length, stride = row_lengths(tokenizer, self._options)
        return replace(self._options, max_length=length, stride=stride)

    def for_other(self, config: Config, options: StrideOptions) -> Tuple["TaggingEvaluation", StrideOptions]:
        """The same: what is compared with reads the same rows."""
        return self, options

    def refuse(self, tokenizer: Tokenizer, first: int, count: int, options: StrideOptions) -> None:
        """Raise InputError with the place of the first of ``count`` texts from ``first`` on that cannot be encoded."""
        for text in self._marked[first : first + count]:
            try:
                encode_texts(tokenizer, [text.input], options)
            except InputError as error:
                raise error.at(f"{self.name}, {text.place}") from None

    def read(self, example: Example, outputs: Sequence[Outputs]) -> Found:
        """The tags of its words, and the entities they make."""
        return found_in(example, outputs)

    def report(self, readings: Sequence[Found], **facts: Any) -> EvaluationReport:
        """The figures; ``facts`` are the report's fields that no result changes."""
        by_type = self._counts(readings)
        return EvaluationReport(
            data=self.name,
            texts=len(self._marked),
            metrics=self._metrics(readings, by_type),
            f1_interval=self._interval(readings),
            by_type={name: {**_percentages(counts), "support": counts.gold} for name, counts in by_type.items()},
            predictions=tuple(_named(found.entities, text.text) for found, text in zip(readings, self._labelled)),
            **facts,
        )

    def compared(
        self, report: EvaluationReport, readings: Sequence[Found], against: str, against_readings: Sequence[Found]
    ) -> EvaluationReport:
        """The report, with the texts in which ``against`` finds other entities."""
        pairs = list(zip(readings, against_readings))
        comparison = Comparison(
            against=against,
            metrics=self._metrics(against_readings, self._counts(against_readings)),
            equal_labels=equal_labels(pairs),
            entity_f1=shared_f1([ours.entities for ours, _ in pairs], [theirs.entities for _, theirs in pairs]),
            changed=tuple(self._changes(pairs)),
        )
        return replace(report, comparison=comparison)

    def _golds(self) -> List[FrozenSet[Span]]:
        return [item.entities or frozenset() for item in self._labelled]

    def _counts(self, readings: Sequence[Found]) -> Dict[str, Counts]:
        return count_entities(self._golds(), [found.entities for found in readings])

    def _metrics(self, readings: Sequence[Found], by_type: Dict[str, Counts]) -> Metrics:
        metrics = {**_percentages(overall(by_type)), "macro_f1": 100 * macro_f1(by_type)}
        if all(item.words is not None for item in self._labelled):
            tags = [item.tags for item in self._labelled]
            metrics["accuracy"] = 100 * tag_accuracy(tags, [found.tags for found in readings])
        return metrics

    def _interval(self, readings: Sequence[Found]) -> Tuple[float, float]:
        counts = [overall(count_entities([gold], [found.entities])) for gold, found in zip(self._golds(), readings)]
        low, high = f1_interval(counts)
        return 100 * low, 100 * high

    def _changes(self, pairs: Sequence[Tuple[Found, Found]]) -> Iterator[ChangedText]:
        for marked, labelled, (ours, theirs) in zip(self._marked, self._labelled, pairs):
            if ours.entities != theirs.entities:
                golds, found, others = (
                    _named(spans, labelled.text)
                    for spans in (labelled.entities or frozenset(), ours.entities, theirs.entities)
                )
                yield ChangedText(marked.place, golds, found, others)


def _percentages(counts: Counts) -> Metrics:
    return {"precision": 100 * counts.precision, "recall": 100 * counts.recall, "f1": 100 * counts.f1}


def _named(spans: FrozenSet[Span], text: str) -> Tuple[NamedEntity, ...]:
    """Entities in the order in which they stand in their text."""
    ordered = sorted(spans, key=lambda span: (span.start, span.stop, span.type))
    return tuple(NamedEntity(span.type, span.start, span.stop, text[span.start : span.stop]) for span in ordered)
