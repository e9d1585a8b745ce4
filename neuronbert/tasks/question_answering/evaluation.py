"""Evaluates question answering on SQuAD files: the figures of metrics.py, their report, and a comparison of two."""

from dataclasses import asdict, dataclass, replace
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.families import Config
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, positive
from neuronbert.tasks.base import Document, PathLike, Table
from neuronbert.tasks.question_answering.answers import rank_answers
from neuronbert.tasks.question_answering.lines import Pair
from neuronbert.tasks.question_answering.metrics import Number, evaluate_answers, mean_f1, question_f1
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.squad import SquadData, load_squad_data
from neuronbert.tasks.question_answering.windows import Example, encode_examples, window_lengths
from neuronbert.tasks.report_text import shortened
from neuronbert.tasks.scoring import mean_interval


class Reading(NamedTuple):
    """The best answer to one question, and the best one that is not empty."""

    text: str  # "" for no answer
    score: float
    forced_text: str  # the best answer where "no answer" may not compete
    null_difference: float  # logit by which "no answer" leads the best answer


@dataclass(frozen=True)
class ChangedAnswer:
    """A question with two different answers; each F1 is 0 to 1, against the gold answers."""

    id: str
    question: str
    golds: Tuple[str, ...]
    answer: str
    score: float
    f1: float
    against_answer: str
    against_score: float
    against_f1: float


@dataclass(frozen=True)
class Comparison:
    """How the answers differ from those of ``against``."""

    against: str
    metrics: Dict[str, Number]  # of ``against``, as EvaluationReport.metrics
    equal_answers: float  # share of the questions, 0 to 1
    answer_f1: float  # mean token F1 of the answers against those of ``against``, 0 to 1
    changed: Tuple[ChangedAnswer, ...]


@dataclass(frozen=True)
class EvaluationReport:
    """What an artifact scores on a SQuAD file."""

    data: str
    version: str  # SQuAD "1.1" or "2.0": whose metrics these are
    questions: int
    artifact: str
    variant: str
    metrics: Dict[str, Number]  # percentages under the official scripts' names
    f1_interval: Tuple[float, float]  # 95 % bootstrap interval of the F1, in percent
    seconds: float  # from text to answers, loading not counted
    predictions: Dict[str, str]
    environment: Document
    comparison: Optional[Comparison] = None

    @property
    def questions_per_s(self) -> float:
        return self.questions / self.seconds

    def as_dict(self) -> Document:
        """Every figure, for JSON."""
        return {**asdict(self), "questions_per_s": self.questions_per_s}

    def tables(self) -> List[Union[str, Table]]:
        """Lines and tables for a person: the figures, and in a comparison every answer that changed."""
        facts = [
            ("artifact", f"{self.artifact} ({self.variant})"),
            ("data", f"{self.data}: {self.questions} questions, SQuAD {self.version}"),
            *(
                (name, f"{value:.4f}" if isinstance(value, float) else str(value))
                for name, value in self.metrics.items()
            ),
            ("f1, 95 % interval", _in_words(*self.f1_interval)),
            ("questions/s", f"{self.questions_per_s:.1f} (from text to answers, loading not counted)"),
        ]
        compared = [] if self.comparison is None else ["", *_comparison(self.comparison)]
        return [Table(facts), *compared]


def _in_words(low: float, high: float) -> str:
    """In words; whole contexts are drawn, so one alone tells nothing of others."""
    return f"{low:.2f} to {high:.2f}" if low < high else "unknown: all are about one context, or score alike"


def _comparison(comparison: Comparison) -> Iterator[Union[str, Table]]:
    """How the answers differ from the others, and every one that does."""
    yield (
        f"against {comparison.against}: {comparison.equal_answers:.1%} of the answers equal, "
        f"token F1 {comparison.answer_f1:.3f}, its own F1 {comparison.metrics['f1']:.4f}; "
        f"{len(comparison.changed)} changed"
    )
    rows = [
        [
            changed.id,
            f"{_short(changed.against_answer)} ({changed.against_score:.2f})",
            f"{_short(changed.answer)} ({changed.score:.2f})",
            _short(" | ".join(dict.fromkeys(changed.golds))),
        ]
        for changed in comparison.changed
    ]
    if rows:
        yield Table(rows, ("question", "was", "is", "gold"))


def _short(answer: str) -> str:
    return shortened(answer, 40) or "(no answer)"


class SquadEvaluation:
    """One evaluation on a SQuAD file (tasks.base.TaskEvaluation).

    On v2.0 data the empty answer is allowed, and the best figures that any ``null_threshold`` reaches are reported with
    it (``best_exact_thresh``, ``best_f1_thresh``).
    """

    def __init__(self, name: str, data: SquadData, window_options: WindowOptions, decode_options: AnswerOptions):
        self.name = name
        self.data = data
        self.window_options = window_options
        self.decode_options = decode_options

    @classmethod
    def of(
        cls, path: PathLike, limit: Optional[int], window_options: WindowOptions, answer_options: AnswerOptions
    ) -> "SquadEvaluation":
        """The evaluation on a file's first ``limit`` questions; InputError for a file that cannot be read."""
        data = load_squad_data(path)
        data = data._replace(questions=data.questions[: positive("limit", limit)])
        if data.version == "2.0":
            answer_options = replace(answer_options, handle_impossible_answer=True)
        return cls(str(path), data, window_options, answer_options)

    @property
    def inputs(self) -> List[Pair]:
        """The questions and contexts."""
        return [Pair(item.question, item.context) for item in self.data.questions]

    def options_for(self, tokenizer: Tokenizer) -> WindowOptions:
        """The windows that an artifact can read: static shapes cut them shorter, with no loss of precision."""
        max_seq_len, doc_stride = window_lengths(tokenizer, self.window_options)
        return replace(self.window_options, max_seq_len=max_seq_len, doc_stride=doc_stride)

    def for_other(self, config: Config, options: WindowOptions) -> Tuple["SquadEvaluation", WindowOptions]:
        """The same: what is compared with reads the same windows."""
        return self, options

    def refuse(self, tokenizer: Tokenizer, first: int, count: int, options: WindowOptions) -> None:
        """Raise InputError with the id of the first of ``count`` questions from ``first`` on that cannot be encoded."""
        for item in self.data.questions[first : first + count]:
            try:
                encode_examples(tokenizer, [(item.question, item.context)], options)
            except InputError as error:
                raise InputError(f"question {item.id!r}: {error.message}", hint=error.hint) from None

    def read(self, example: Example, outputs: Sequence[Outputs]) -> Reading:
        """The best answer, and the best one that is not empty."""
        options = replace(self.decode_options, details=True)
        best = forced = rank_answers(example, outputs, options)[0]
        if options.handle_impossible_answer or options.null_threshold is not None:
            without_null = replace(options, handle_impossible_answer=False, null_threshold=None)
            forced = rank_answers(example, outputs, without_null)[0]
        return Reading(best["answer"], best["score"], forced["answer"], best["null_difference"])

    def report(self, readings: Sequence[Reading], **facts: Any) -> EvaluationReport:
        """The figures of the official scripts; ``facts`` are the report's fields that no answer changes."""
        return EvaluationReport(
            data=self.name,
            version=self.data.version,
            questions=len(self.data.questions),
            metrics=_metrics(self.data, readings),
            f1_interval=_interval(self.data, readings),
            predictions={item.id: reading.text for item, reading in zip(self.data.questions, readings)},
            **facts,
        )

    def compared(
        self, report: EvaluationReport, readings: Sequence[Reading], against: str, against_readings: Sequence[Reading]
    ) -> EvaluationReport:
        """The report, with the questions that ``against`` answers differently."""
        return replace(report, comparison=compare_answers(self.data, readings, against, against_readings))


def compare_answers(
    data: SquadData, readings: Sequence[Reading], against: str, against_readings: Sequence[Reading]
) -> Comparison:
    """The answers whose texts differ, and the figures of all answers of ``against``."""
    changed = tuple(
        ChangedAnswer(
            id=item.id,
            question=item.question,
            golds=item.answers,
            answer=reading.text,
            score=reading.score,
            f1=question_f1(item, reading.text, data.version),
            against_answer=against_reading.text,
            against_score=against_reading.score,
            against_f1=question_f1(item, against_reading.text, data.version),
        )
        for item, reading, against_reading in zip(data.questions, readings, against_readings)
        if reading.text != against_reading.text
    )
    return Comparison(
        against=against,
        metrics=_metrics(data, against_readings),
        equal_answers=1 - len(changed) / len(data.questions),
        answer_f1=mean_f1([reading.text for reading in readings], [[reading.text] for reading in against_readings]),
        changed=changed,
    )


def _metrics(data: SquadData, readings: Sequence[Reading]) -> Dict[str, Number]:
    """The official figures; for v2.0 the best over all thresholds too, which are logit differences here."""
    ids = [item.id for item in data.questions]
    decided = {key: reading.text for key, reading in zip(ids, readings)}
    figures = evaluate_answers(data.questions, decided, version=data.version)
    if data.version == "1.1":
        return figures
    forced = {key: reading.forced_text for key, reading in zip(ids, readings)}
    differences = {key: reading.null_difference for key, reading in zip(ids, readings)}
    swept = evaluate_answers(data.questions, forced, differences, version=data.version)
    return {**figures, **{name: value for name, value in swept.items() if name.startswith("best_")}}


def _interval(data: SquadData, readings: Sequence[Reading]) -> Tuple[float, float]:
    scores = [100 * question_f1(item, reading.text, data.version) for item, reading in zip(data.questions, readings)]
    return mean_interval(scores, [item.context for item in data.questions])
