"""Measures an artifact on a SQuAD file (by metrics.py), alone or against another artifact or a checkpoint."""

import os
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.artifact.manifest import MANIFEST_NAME, Artifact, choose_variants, load_artifact
from neuronbert.backends import Logits, ThroughputPlan
from neuronbert.backends.reference import ReferenceSession
from neuronbert.checkpoint.loading import Checkpoint, load_checkpoint
from neuronbert.engine.engine import Engine, infer_windows
from neuronbert.errors import InputError, UsageError, positive
from neuronbert.hardware.machine import environment
from neuronbert.tasks.question_answering.answers import AnswerOptions, options_of, rank_answers
from neuronbert.tasks.question_answering.metrics import (
    Number,
    answer_exact,
    answer_f1,
    evaluate_answers,
    f1_interval,
    mean_f1,
    normalize_answer,
    question_f1,
)
from neuronbert.tasks.question_answering.squad import SquadData, SquadQuestion, load_squad_data
from neuronbert.tasks.question_answering.windows import Example, Tokenizer, Window, WindowOptions, encode_examples

__all__ = [
    "ChangedAnswer",
    "Comparison",
    "EvaluationReport",
    "answer_exact",
    "answer_f1",
    "compare_answers",
    "evaluate_answers",
    "evaluate_artifact",
    "f1_interval",
    "mean_f1",
    "normalize_answer",
    "question_f1",
]

Progress = Callable[[int, int], None]  # questions answered so far, questions in all

# Small enough for a progress bar that moves, large enough for batches of equal lengths.
CHUNK_QUESTIONS = 128


class Reader(NamedTuple):
    """Something that reads windows: an engine, or a checkpoint in FP32."""

    name: str
    tokenizer: Tokenizer
    logits: Callable[[Sequence[Window]], List[Logits]]


class Answered(NamedTuple):
    """A reader's best answer to one question, and its best if it has to answer."""

    text: str  # "" where it finds no answer
    score: float
    forced_text: str
    null_difference: float  # logit by which "no answer" leads the best answer


@dataclass(frozen=True)
class ChangedAnswer:
    """A question that two readers answer differently; each F1 is 0 to 1, against the gold answers."""

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
    answer_f1: float  # mean token F1 of the answers against the other's, 0 to 1
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
    environment: Dict[str, Any]
    comparison: Optional[Comparison] = None

    @property
    def questions_per_s(self) -> float:
        return self.questions / self.seconds

    def as_dict(self) -> Dict[str, Any]:
        """JSON-able."""
        return {**asdict(self), "questions_per_s": self.questions_per_s}


def evaluate_artifact(
    artifact: Union[Artifact, str, "os.PathLike[str]"],
    data: Union[str, "os.PathLike[str]"],
    *,
    variant: Optional[str] = None,
    against: Any = None,
    against_variant: Optional[str] = None,
    limit: Optional[int] = None,
    threads: Optional[int] = None,
    revision: Optional[str] = None,
    token: Optional[str] = None,
    local_files_only: bool = False,
    allow_pickle: bool = False,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> EvaluationReport:
    """Answer the SQuAD v1.1 or v2.0 file ``data`` (its first ``limit`` questions) and score the answers.

    ``against`` is another artifact's folder or a checkpoint (folder, hub id, ``"demo"``, (model, tokenizer)), which
    is run in FP32 by torch; the hub options are for it. ``options`` are those of windows and answers (WindowOptions,
    AnswerOptions). On v2.0 data the empty answer is allowed, and the best figures that any ``null_threshold`` reaches
    are reported with it (``best_exact_thresh``, ``best_f1_thresh``).

    Raises InputError for a file or a question that cannot be read, ArtifactError and CheckpointError.
    """
    window_options, answer_options = options_of(options)
    chosen = _choose_questions(load_squad_data(data), limit)
    asked = len(chosen.questions)
    total = asked if against is None else 2 * asked
    if chosen.version == "2.0":
        answer_options = replace(answer_options, handle_impossible_answer=True)

    def answer(reader: Reader, before: int) -> List[Answered]:
        return _answer(reader, chosen.questions, windows, answer_options, lambda done: progress(before + done, total))

    hub = {"revision": revision, "token": token, "local_files_only": local_files_only, "allow_pickle": allow_pickle}
    # Before any question is answered: a wrong name must not cost the time that takes.
    other_source = None if against is None else _find(against, against_variant, hub)
    with Engine.for_many(artifact, variant=variant, threads=threads) as engine:
        progress(0, total)
        windows = _windows_of(engine, window_options)
        started = time.perf_counter()
        answered = answer(_engine_reader(engine), 0)
        seconds = time.perf_counter() - started
    report = EvaluationReport(
        data=str(data),
        version=chosen.version,
        questions=asked,
        artifact=str(engine.artifact.folder),
        variant=engine.name,
        metrics=_metrics(chosen, answered),
        f1_interval=_interval(chosen, answered),
        seconds=seconds,
        predictions={item.id: one.text for item, one in zip(chosen.questions, answered)},
        environment=environment(),
    )
    if other_source is None:
        return report
    with ExitStack() as stack:
        reader = _open(other_source, against_variant, threads, stack)
        other = answer(reader, asked)
    return replace(report, comparison=compare_answers(chosen, answered, reader.name, other))


def compare_answers(
    data: SquadData, answered: Sequence[Answered], against: str, other: Sequence[Answered]
) -> Comparison:
    """The answers that are not the same text, and what all of them score."""
    changed = tuple(
        ChangedAnswer(
            id=item.id,
            question=item.question,
            golds=item.answers,
            answer=one.text,
            score=one.score,
            f1=question_f1(item, one.text, data.version),
            against_answer=two.text,
            against_score=two.score,
            against_f1=question_f1(item, two.text, data.version),
        )
        for item, one, two in zip(data.questions, answered, other)
        if one.text != two.text
    )
    return Comparison(
        against=against,
        metrics=_metrics(data, other),
        equal_answers=1 - len(changed) / len(data.questions),
        answer_f1=mean_f1([one.text for one in answered], [[two.text] for two in other]),
        changed=changed,
    )


def _choose_questions(data: SquadData, limit: Optional[int]) -> SquadData:
    return data._replace(questions=data.questions[: positive("limit", limit)])


def _metrics(data: SquadData, answered: Sequence[Answered]) -> Dict[str, Number]:
    """The official figures; for v2.0 the best over all thresholds too, which are logit differences here."""
    ids = [item.id for item in data.questions]
    decided = {key: one.text for key, one in zip(ids, answered)}
    figures = evaluate_answers(data.questions, decided, version=data.version)
    if data.version == "1.1":
        return figures
    forced = {key: one.forced_text for key, one in zip(ids, answered)}
    differences = {key: one.null_difference for key, one in zip(ids, answered)}
    swept = evaluate_answers(data.questions, forced, differences, version=data.version)
    return {**figures, **{name: value for name, value in swept.items() if name.startswith("best_")}}


def _interval(data: SquadData, answered: Sequence[Answered]) -> Tuple[float, float]:
    scores = [100 * question_f1(item, one.text, data.version) for item, one in zip(data.questions, answered)]
    return f1_interval(scores, [item.context for item in data.questions])


def _find(source: Any, variant: Optional[str], hub: Mapping[str, Any]) -> Union[Artifact, Checkpoint]:
    if isinstance(source, (str, os.PathLike)) and (Path(source) / MANIFEST_NAME).exists():
        source = load_artifact(source)
    if isinstance(source, Artifact):
        choose_variants(source, variant)
        return source
    if variant is not None:
        raise UsageError(f"a checkpoint has no variants, such as {variant}", hint="against an artifact, or without it")
    return load_checkpoint(source, **hub)


def _open(
    source: Union[Artifact, Checkpoint], variant: Optional[str], threads: Optional[int], stack: ExitStack
) -> Reader:
    if isinstance(source, Artifact):
        return _engine_reader(stack.enter_context(Engine.for_many(source, variant=variant, threads=threads)))
    checkpoint = source
    files = checkpoint.tokenizer_files()
    tokenizer = Tokenizer.from_bytes(files["tokenizer.json"], files["tokenizer_config.json"], checkpoint.config)
    session = ReferenceSession(checkpoint.torch_model(), threads=threads)
    stack.callback(session.close)
    # One row at a time, as the gate's reference: its answers must not depend on how rows are batched.
    plan = ThroughputPlan(streams=1, rows=1, tokens=1)

    def logits(windows: Sequence[Window]) -> List[Logits]:
        return infer_windows(session, windows, plan, tokenizer.pad_id)

    return Reader(f"{checkpoint.source} in FP32", tokenizer, logits)


def _windows_of(engine: Engine, options: WindowOptions) -> WindowOptions:
    """The windows that the artifact can read, for both readers: static shapes cut them, with no loss of precision."""
    max_seq_len, doc_stride = engine.tokenizer.lengths(options)
    return replace(options, max_seq_len=max_seq_len, doc_stride=doc_stride)


def _engine_reader(engine: Engine) -> Reader:
    return Reader(f"{engine.artifact.folder} ({engine.name})", engine.tokenizer, engine.logits)


def _answer(
    reader: Reader,
    questions: Sequence[SquadQuestion],
    window_options: WindowOptions,
    options: AnswerOptions,
    progress: Callable[[int], None],
) -> List[Answered]:
    answered: List[Answered] = []
    for first in range(0, len(questions), CHUNK_QUESTIONS):
        examples = _encode(reader.tokenizer, questions[first : first + CHUNK_QUESTIONS], window_options)
        logits = iter(reader.logits([window for example in examples for window in example.windows]))
        for example in examples:
            answered.append(_read(example, [next(logits) for _ in example.windows], options))
        progress(len(answered))
    return answered


def _read(example: Example, logits: Sequence[Logits], options: AnswerOptions) -> Answered:
    starts, ends = [one.start for one in logits], [one.end for one in logits]
    best = rank_answers(example, starts, ends, replace(options, details=True))[0]
    forced = best
    if options.handle_impossible_answer or options.null_threshold is not None:
        without_null = replace(options, details=True, handle_impossible_answer=False, null_threshold=None)
        forced = rank_answers(example, starts, ends, without_null)[0]
    return Answered(best["answer"], best["score"], forced["answer"], best["null_difference"])


def _encode(tokenizer: Tokenizer, questions: Sequence[SquadQuestion], options: WindowOptions) -> List[Example]:
    try:
        return encode_examples(tokenizer, [(item.question, item.context) for item in questions], options)
    except InputError:
        for item in questions:
            _encode_one(tokenizer, item, options)
        raise


def _encode_one(tokenizer: Tokenizer, item: SquadQuestion, options: WindowOptions) -> None:
    """Raise for the question that cannot be encoded, by its id."""
    try:
        encode_examples(tokenizer, [(item.question, item.context)], options)
    except InputError as error:
        raise InputError(f"question {item.id!r}: {error.message}", hint=error.hint) from None
