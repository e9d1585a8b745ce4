"""One process, one loaded variant: windows of many questions, cut into batches by length, and the answers in order."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from threading import Lock
from typing import Any, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from neuronbert.artifact.manifest import SELFTEST_NAME, Artifact, PathLike, Variant, choose_variants, load_artifact
from neuronbert.backends import Batch, Logits, Session, ThroughputPlan, load_backend
from neuronbert.backends.buckets import BucketedSession
from neuronbert.errors import BackendFailed, positive
from neuronbert.hardware.machine import compute_threads
from neuronbert.tasks.question_answering.answers import AnswerOptions, rank_answers
from neuronbert.tasks.question_answering.windows import (
    Example,
    Tokenizer,
    Window,
    WindowOptions,
    collate,
    encode_examples,
)

Pair = Tuple[str, str]  # question, context
Answers = List[Dict[str, Any]]

# A chunk is what is sorted by length together: long enough that batches hold equal lengths, short enough to stream.
CHUNK_QUESTIONS = 512


def plan_batches(lengths: Sequence[int], plan: ThroughputPlan) -> List[List[int]]:
    """Cut windows into batches of similar length, longest first.

    Longest first lets the last batches, which no longer fill all threads, be the short ones. Every index appears in
    exactly one batch; a window longer than ``plan.tokens`` has a batch of its own. Where the plan has buckets, a batch
    holds windows of one bucket only: a short one would take as long as the longest.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable").tolist()
    batches: List[List[int]] = []
    first = 0
    while first < len(order):
        longest = lengths[order[first]]
        rows = max(1, min(plan.rows, plan.tokens // longest))
        shorter_bucket = max((length for length in plan.lengths if length < longest), default=0)
        batch = [index for index in order[first : first + rows] if lengths[index] > shorter_bucket]
        batches.append(batch)
        first += len(batch)
    return batches


def infer_windows(
    session: Session,
    windows: Sequence[Window],
    plan: ThroughputPlan,
    pad_id: int,
    pool: Optional[ThreadPoolExecutor] = None,
) -> List[Logits]:
    """The logits of each window, un-padded, in the order given.

    With a ``pool`` as many batches run at once as the session allows.
    """
    batches = plan_batches([len(window.input_ids) for window in windows], plan)

    def run(batch: List[int]) -> Logits:
        return session.run(collate([windows[index] for index in batch], pad_id))

    results = pool.map(run, batches) if pool is not None and len(batches) > 1 else map(run, batches)
    return unpad(windows, zip(batches, results))


def unpad(windows: Sequence[Window], answered: Iterable[Tuple[List[int], Logits]]) -> List[Logits]:
    """The logits of each window, in order, from batches of them: which windows, and logits of [rows, tokens]."""
    logits: List[Any] = [None] * len(windows)
    for batch, (start, end) in answered:
        for row, index in enumerate(batch):
            length = len(windows[index].input_ids)
            logits[index] = Logits(start[row, :length], end[row, :length])
    return logits


def load_variants(
    folders: Sequence[Path], variants: Sequence[Variant], *, threads: int, streams: Optional[int]
) -> Tuple[Session, ThroughputPlan]:
    """The session of one variant, or of several buckets behind one, and how to keep it busy."""
    backend = load_backend(variants[0]["backend"])
    plan: ThroughputPlan = backend.throughput_plan(threads)
    sessions: List[Any] = []
    with ExitStack() as opened:
        for folder, variant in zip(folders, variants):
            sessions.append(backend.load(folder, variant, threads=threads, streams=streams or plan.streams))
            opened.callback(sessions[-1].close)
        opened.pop_all()  # all are loaded: whoever asked for them closes them
    if not backend.STATIC_SHAPES:
        return sessions[0], plan._replace(streams=streams or plan.streams)
    bucketed = BucketedSession(sessions, variants)
    return bucketed, bucketed.plan()


class Loaded(NamedTuple):
    """A session, how to keep it busy, and the threads that do."""

    session: Session
    plan: ThroughputPlan
    pool: Optional[ThreadPoolExecutor]

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()
        self.session.close()


class Engine:
    """A verified artifact with one of its variants loaded and self-tested; calls may come from several threads.

    ``threads`` is the number of CPU threads to use (default: machine.compute_threads). ``streams`` is how many
    batches run at once on them. 1 answers a single question soonest, more answer many questions fastest; without it
    a call of one batch has all threads, and the first call of several loads the model a second time, as the backend
    runs many fastest. ``variants`` are the loaded ones: all buckets of the first, or only the one called ``variant``.
    """

    def __init__(
        self,
        artifact: Union[Artifact, PathLike],
        *,
        variant: Optional[str] = None,
        threads: Optional[int] = None,
        streams: Optional[int] = None,
    ):
        self.artifact = artifact if isinstance(artifact, Artifact) else load_artifact(artifact)
        self.variants = choose_variants(self.artifact, variant)
        self.variant = self.variants[0]
        self.threads = positive("threads", threads) or compute_threads()
        self.tokenizer = Tokenizer.from_files(self.artifact.folder)
        self._lock = Lock()
        self._closed = False
        throughput_streams = _throughput_streams(self.variant, self.threads)
        # Static shapes keep as many requests in flight as their cores take: loading them twice would need more cores.
        static = load_backend(self.variant["backend"]).STATIC_SHAPES
        self._one = self._load(positive("streams", streams) or (throughput_streams if static else 1))
        self._many: Optional[Loaded] = None
        if self._one.plan.lengths:
            self.tokenizer.limit_length(max(self._one.plan.lengths))
        self._many_streams = 1 if static or streams is not None else throughput_streams

    @classmethod
    def for_many(
        cls, artifact: Union[Artifact, PathLike], *, variant: Optional[str] = None, threads: Optional[int] = None
    ) -> "Engine":
        """An engine for many questions at a time: loaded once, with as many streams as its backend runs fastest."""
        artifact = artifact if isinstance(artifact, Artifact) else load_artifact(artifact)
        chosen = choose_variants(artifact, variant)[0]
        streams = _throughput_streams(chosen, positive("threads", threads) or compute_threads())
        return cls(artifact, variant=variant, threads=threads, streams=streams)

    @property
    def name(self) -> str:
        """The loaded variants, for reports."""
        return ", ".join(variant["name"] for variant in self.variants)

    @property
    def session(self) -> Session:
        """The session that a call of one batch uses."""
        return self._one.session

    @property
    def plan(self) -> ThroughputPlan:
        """How that session is kept busy."""
        return self._one.plan

    @property
    def streams(self) -> int:
        """How many batches that session runs at once."""
        return self._one.plan.streams

    def _load(self, streams: int) -> Loaded:
        folders = [self.artifact.variant_folder(one) for one in self.variants]
        session, plan = load_variants(folders, self.variants, threads=self.threads, streams=streams)
        # A self-test for every copy of every bucket: a dead core gives wrong numbers by itself.
        parts = session.parts() if isinstance(session, BucketedSession) else [(self.variant, session)]
        try:
            for variant, part in parts:
                self_test(part, self.artifact, variant)
        except BaseException:
            session.close()
            raise
        return Loaded(session, plan, ThreadPoolExecutor(session.concurrency) if session.concurrency > 1 else None)

    def _loaded_for(self, windows: Sequence[Window]) -> Loaded:
        """Streams pay when there are batches enough to keep each busy twice; before that, all threads share a batch."""
        with self._lock:
            if self._closed:
                raise BackendFailed("this engine is closed", hint="make a new one, or ask inside its with block")
            many = self._many or self._one
            streams = self._many_streams
            if many is self._one and streams > 1 and self._batches(windows) >= 2 * streams:
                many = self._many = self._load(streams)
            return many if self._batches(windows) >= 2 * streams else self._one

    def _batches(self, windows: Sequence[Window]) -> int:
        return len(plan_batches([len(window.input_ids) for window in windows], self._one.plan))

    def answer(
        self,
        pairs: Iterable[Pair],
        window_options: WindowOptions = WindowOptions(),
        answer_options: AnswerOptions = AnswerOptions(),
    ) -> List[Answers]:
        """The ranked answers to each (question, context), in order; InputError for a pair that cannot be asked."""
        return list(self.stream(pairs, window_options, answer_options))

    def stream(
        self,
        pairs: Iterable[Pair],
        window_options: WindowOptions = WindowOptions(),
        answer_options: AnswerOptions = AnswerOptions(),
    ) -> Iterator[Answers]:
        """Like ``answer``, over any number of pairs in bounded memory."""
        source = iter(pairs)
        for chunk in iter(lambda: list(islice(source, CHUNK_QUESTIONS)), []):
            yield from self.answer_encoded(self.encode(chunk, window_options), answer_options)

    def encode(self, pairs: Sequence[Pair], window_options: WindowOptions = WindowOptions()) -> List[Example]:
        """Tokenise pairs into windows."""
        return encode_examples(self.tokenizer, pairs, window_options)

    def answer_encoded(
        self,
        examples: Sequence[Example],
        answer_options: Union[AnswerOptions, Sequence[AnswerOptions]] = AnswerOptions(),
    ) -> Iterator[Answers]:
        """The ranked answers to examples that ``encode`` made; the options are one for all, or one for each."""
        if isinstance(answer_options, AnswerOptions):
            answer_options = [answer_options] * len(examples)
        if len(answer_options) != len(examples):
            raise ValueError(f"{len(answer_options)} answer options for {len(examples)} examples")
        logits = iter(self.logits([window for example in examples for window in example.windows]))
        for example, option in zip(examples, answer_options):
            own = list(islice(logits, len(example.windows)))
            yield rank_answers(example, [one.start for one in own], [one.end for one in own], option)

    def logits(self, windows: Sequence[Window]) -> List[Logits]:
        """The logits of each window, un-padded."""
        loaded = self._loaded_for(windows)
        return infer_windows(loaded.session, windows, loaded.plan, self.tokenizer.pad_id, loaded.pool)

    def close(self) -> None:
        """Release the threads and the loaded model; calls from then on raise BackendFailed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for loaded in filter(None, (self._one, self._many)):
            loaded.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()


def _throughput_streams(variant: Variant, threads: int) -> int:
    plan: ThroughputPlan = load_backend(variant["backend"]).throughput_plan(threads)
    return plan.streams


def self_test(session: Session, artifact: Artifact, variant: Variant) -> float:
    """Compare the session with the FP32 logits stored in the artifact; the largest difference.

    A dead or wrong runtime gives wrong numbers, not errors. Raises BackendFailed when the difference exceeds what the
    gate allowed this variant when it was compiled (``selftest_tolerance``).
    """
    with np.load(artifact.folder / SELFTEST_NAME, allow_pickle=False) as stored:
        batch = Batch(stored["input_ids"], stored["attention_mask"], stored["token_type_ids"])
        expected = Logits(stored["start_logits"], stored["end_logits"])
    difference = max_difference(session.run(batch), expected, batch.attention_mask)
    if not difference <= variant["selftest_tolerance"]:
        raise BackendFailed(
            f"variant {variant['name']} of {artifact.folder} fails its self-test: "
            f"logits differ from the FP32 reference by {difference:.3g}, "
            f"and {variant['selftest_tolerance']:.3g} is allowed",
            hint="neuronbert doctor; the same artifact on another machine tells a damaged runtime from a wrong one",
        )
    return difference


def max_difference(actual: Logits, expected: Logits, mask: np.ndarray) -> float:
    """The largest absolute difference over the tokens that are not padding; NaN if there is one."""
    kept = mask.astype(bool)
    return float(np.max([np.abs(a - b)[kept].max() for a, b in zip(actual, expected)]))
