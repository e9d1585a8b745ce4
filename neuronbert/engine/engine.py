"""The Engine: inputs to rows, rows in batches (batches.py) through a loaded variant (loading.py), and results."""

from itertools import islice
from threading import Lock
from typing import Iterable, Iterator, List, Optional, Sequence, TypeVar, Union

from neuronbert.artifact.manifest import Artifact, PathLike, artifact_of, verified_again
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.artifact.variants import choose_variants
from neuronbert.backends import load_backend
from neuronbert.backends.base import Session, ThroughputPlan
from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import RowsDone, infer_rows, plan_batches
from neuronbert.engine.loading import Loaded, load_tested, specs_of, throughput_streams
from neuronbert.engine.rounds import Rounds
from neuronbert.errors import BackendFailed, positive
from neuronbert.hardware.machine import compute_threads
from neuronbert.tasks import load_task
from neuronbert.tasks.base import DecodeOptions, EncodeOptions, Example, Input, Result, Row
from neuronbert.tasks.encoding import encode_together

# Rows are sorted by length within a chunk: large enough for batches of equal lengths, small enough to stream.
CHUNK_INPUTS = 512

Item = TypeVar("Item")


class Engine:
    """A verified artifact with one of its variants loaded and self-tested; calls may come from several threads.

    ``threads`` is the number of CPU threads to use (default: machine.compute_threads). ``streams`` is how many
    batches run at once on them: 1 answers a single input soonest, more answer many inputs fastest. Without it, a call
    of one batch has all threads, and the first call of many batches loads the model a second time, with the streams
    that the backend is fastest with. ``variants`` are the loaded ones: all buckets of the first, or only the one called
    ``variant``, or those of the backend called so. ``trusted_key``: a file of public keys, one of which must have
    signed the artifact (as for ``load_artifact``). The artifact's ``task`` decides what inputs and results are: for
    example questions with their contexts, and ranked answers. ``specs`` are the arrays that the model returns.
    """

    def __init__(
        self,
        artifact: Union[Artifact, PathLike],
        *,
        variant: Optional[str] = None,
        threads: Optional[int] = None,
        streams: Optional[int] = None,
        trusted_key: TrustedKey = None,
    ):
        self.artifact = artifact_of(artifact, trusted_key)
        self.task = load_task(self.artifact.task)
        self.variants = choose_variants(self.artifact, variant)
        self.variant = self.variants[0]
        self.threads = positive("threads", threads) or compute_threads()
        self.tokenizer = Tokenizer.from_files(self.artifact.folder)
        self.tokenizer.first_rows = self.artifact.first_rows
        self.specs = specs_of(self.artifact, self.task, self.tokenizer.config)
        self._lock = Lock()
        self._closed = False
        most_streams = throughput_streams(self.variant, self.threads)
        # Streams share a CPU's threads; on another device each is as fast alone, and a second load takes its memory.
        on_cpu = load_backend(self.variant["backend"]).DEVICE == "cpu"
        self._soonest = self._load(positive("streams", streams) or (1 if on_cpu else most_streams))
        self._fastest: Optional[Loaded] = None
        if self._soonest.plan.lengths:
            self.tokenizer.limit_length(max(self._soonest.plan.lengths))
        self._fastest_streams = most_streams if on_cpu and streams is None else 1

    @classmethod
    def for_many(
        cls,
        artifact: Union[Artifact, PathLike],
        *,
        variant: Optional[str] = None,
        threads: Optional[int] = None,
        trusted_key: TrustedKey = None,
    ) -> "Engine":
        """An engine for many inputs at a time: loaded once, with as many streams as its backend runs fastest."""
        artifact = artifact_of(artifact, trusted_key)
        chosen = choose_variants(artifact, variant)[0]
        streams = throughput_streams(chosen, positive("threads", threads) or compute_threads())
        return cls(artifact, variant=variant, threads=threads, streams=streams)

    @property
    def name(self) -> str:
        """The loaded variants, for reports."""
        return ", ".join(variant["name"] for variant in self.variants)

    @property
    def session(self) -> Session:
        """The session that a call of one batch uses."""
        return self._soonest.session

    @property
    def plan(self) -> ThroughputPlan:
        """How that session is kept busy."""
        return self._soonest.plan

    @property
    def streams(self) -> int:
        """How many batches that session runs at once."""
        return self._soonest.plan.streams

    def _load(self, streams: int) -> Loaded:
        return load_tested(self.artifact, self.variants, self.specs, threads=self.threads, streams=streams)

    def _loaded_for(self, rows: Sequence[Row]) -> Loaded:
        """Several streams are faster with two batches or more for each; with fewer, all threads work on one batch."""
        with self._lock:
            if self._closed:
                raise BackendFailed("this engine is closed", hint="make a new one, or ask inside its with block")
            streams = self._fastest_streams
            if streams == 1:
                return self._soonest
            many = self._batches(rows) >= 2 * streams
            if self._fastest is None and many:
                verified_again(self.artifact)
                self._fastest = self._load(streams)
            return self._fastest if many and self._fastest is not None else self._soonest

    def _batches(self, rows: Sequence[Row]) -> int:
        return len(plan_batches([len(row.input_ids) for row in rows], self._soonest.plan))

    def answer(
        self, pairs: Iterable[Input], window_options: EncodeOptions = None, answer_options: DecodeOptions = None
    ) -> List[Result]:
        """The result of each input, in order; InputError for one that cannot be asked.

        The options are the task's: how inputs become rows, and how outputs become results. None: its defaults.
        """
        return list(self.stream(pairs, window_options, answer_options))

    def stream(
        self, pairs: Iterable[Input], window_options: EncodeOptions = None, answer_options: DecodeOptions = None
    ) -> Iterator[Result]:
        """Like ``answer``, over any number of inputs in bounded memory."""
        options = self.task.ENCODE_OPTIONS() if window_options is None else window_options
        for number, chunk in enumerate(chunks_of(pairs)):
            examples = encode_together(self.task, self.tokenizer, chunk, options, number * CHUNK_INPUTS)
            yield from self.answer_encoded(examples, answer_options)

    def encode(self, pairs: Sequence[Input], window_options: EncodeOptions = None) -> Sequence[Example]:
        """Tokenise inputs into rows."""
        options = self.task.ENCODE_OPTIONS() if window_options is None else window_options
        return self.task.encode(self.tokenizer, pairs, options)

    def answer_encoded(
        self,
        examples: Sequence[Example],
        answer_options: Union[DecodeOptions, Sequence[DecodeOptions]] = None,
        rows_done: RowsDone = lambda rows: None,
    ) -> Iterator[Result]:
        """The results of examples that ``encode`` made; ``answer_options`` are the same for all, or one for each.

        ``rows_done`` is called after each batch, with how many of their rows are read, or need not be.
        """
        if answer_options is None:
            answer_options = self.task.DECODE_OPTIONS()
        if isinstance(answer_options, self.task.DECODE_OPTIONS):
            answer_options = [answer_options] * len(examples)
        if len(answer_options) != len(examples):
            raise ValueError(f"{len(answer_options)} answer options for {len(examples)} examples")
        rounds = Rounds(self.task, examples, answer_options)
        rounds.read_all(self.outputs, rows_done)
        for number, options in enumerate(answer_options):
            yield self.task.decode(*rounds.read(number), options)

    def outputs(self, rows: Sequence[Row], rows_done: RowsDone = lambda rows: None) -> List[Outputs]:
        """The model's outputs for each row, without padding; ``rows_done`` is called after each batch."""
        loaded = self._loaded_for(rows)
        return infer_rows(loaded.session, rows, self.specs, loaded.plan, self.tokenizer.pad_id, loaded.pool, rows_done)

    def close(self) -> None:
        """Release the threads and the loaded model; calls from then on raise BackendFailed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        for loaded in filter(None, (self._soonest, self._fastest)):
            loaded.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def chunks_of(items: Iterable[Item]) -> Iterator[List[Item]]:
    """The items in lists of CHUNK_INPUTS, the last one shorter."""
    source = iter(items)
    return iter(lambda: list(islice(source, CHUNK_INPUTS)), [])
