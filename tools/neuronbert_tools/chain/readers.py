"""Ways to answer questions: one row at a time, padded or not, in streams, in batches, and from a cache."""

import json
from contextlib import ExitStack
from typing import Dict, Iterable, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.base import Batch, Session
from neuronbert.backends.openvino.backend import pad_tokens
from neuronbert.backends.outputs import Output, Outputs, fit_tokens
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import RowsDone, infer_rows
from neuronbert.engine.engine import Engine, chunks_of
from neuronbert.errors import UsageError, counted
from neuronbert.server.cache import Answer, LocalCache, key_of
from neuronbert.tasks.base import Document, Row
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.windows import window_lengths
from neuronbert_tools.chain.models import Models
from neuronbert_tools.load import in_threads
from neuronbert_tools.questions import Pair
from neuronbert_tools.server.throughput import CACHE_BYTES

CACHE_TTL_S = 3600.0


class Configuration(NamedTuple):
    """A way to answer questions."""

    model: str  # models.BASE or models.STUDENT
    backend: str
    precision: str
    streams: int = 1  # rows or batches at once, which share the threads
    padded_to: Optional[int] = None  # tokens of every row; None: rows are as long as they are
    batched: bool = False  # several rows of similar length at once
    cached: bool = False

    @property
    def variant(self) -> str:
        """Its name in the artifact."""
        return f"{self.backend}-{self.precision}"

    def __str__(self) -> str:
        ways = [way for way in ("batched", "cached") if getattr(self, way)]
        ways += [f"padded to {self.padded_to}"] if self.padded_to else []
        return ", ".join([self.model, self.variant, counted(self.streams, "stream"), *ways])


class Reader(Protocol):
    """Something that answers questions, each answer as JSON."""

    def answer(self, pair: Pair) -> Document:
        """The answer of a question that is asked alone."""

    def answer_together(self, pairs: Sequence[Pair]) -> List[Document]:
        """The answers of many questions, as many at once as the configuration has."""


class PaddedSession:
    """A session all of whose rows have ``tokens``, as for a model that was made for one length."""

    def __init__(self, session: Session, specs: Sequence[Output], tokens: int, pad_id: int):
        self.precision = session.precision
        self.concurrency = session.concurrency
        self._session = session
        self._specs = specs
        self._padding = {"multiple": tokens, "limit": tokens, "pad_id": pad_id}

    def run(self, batch: Batch) -> Outputs:
        """The outputs of the tokens that were given."""
        found = self._session.run(pad_tokens(batch, self._padding))
        return fit_tokens(found, self._specs, batch.input_ids.shape[1])

    def close(self) -> None:
        """Nothing: whoever made the session closes it."""


class RowByRow(Engine):
    """An engine each of whose batches is a single row, of ``padded_to`` tokens where that is set."""

    padded_to: Optional[int] = None

    def outputs(self, rows: Sequence[Row], rows_done: RowsDone = lambda rows: None) -> List[Outputs]:
        """As those of an Engine."""
        loaded, session = self._loaded_for(rows), self.session
        if self.padded_to is not None:
            session = PaddedSession(session, self.specs, self.padded_to, self.tokenizer.pad_id)
        plan = loaded.plan._replace(rows=1)
        return infer_rows(session, rows, self.specs, plan, self.tokenizer.pad_id, loaded.pool, rows_done)


def longest_row(artifacts: Iterable[Artifact], asked: Optional[int]) -> int:
    """Tokens to pad to: ``asked``, or as many as the models have positions, as ``padding="max_length"`` does.

    UsageError where rows would not fit, or where a model has not so many positions.
    """
    tokenizers = [Tokenizer.from_files(artifact.folder) for artifact in artifacts]
    least = max(window_lengths(tokenizer, WindowOptions())[0] for tokenizer in tokenizers)
    most = min(tokenizer.max_positions or least for tokenizer in tokenizers)
    tokens = asked or most
    if not least <= tokens <= most:
        raise UsageError(
            f"rows of up to {least} tokens cannot be padded to {tokens} where the models have {most} positions",
            hint=f"--padded-to, from {least} to {most}" if least <= most else "models with the same positions",
        )
    return tokens


class EngineReader:
    """Asks an engine: with calls of many questions where it makes batches, else by a caller for each stream."""

    def __init__(self, engine: Engine, configuration: Configuration, options: AnswerOptions):
        self.engine = engine
        self._options = options
        self._callers = configuration.streams
        self._batched = configuration.batched
        engine.tokenizer.recent.resize(0)  # every pass is over the same contexts: each is to cost what the first does

    def answer(self, pair: Pair) -> Document:
        return self._answers([pair])[0]

    def answer_together(self, pairs: Sequence[Pair]) -> List[Document]:
        if self._batched:
            return self._answers(pairs)
        answers: Dict[int, Document] = {}
        waiting = iter(enumerate(pairs))  # of which each caller takes the next: a list's iterator is safe to share

        def caller() -> None:
            for number, pair in waiting:
                answers[number] = self.answer(pair)

        in_threads([caller] * min(self._callers, len(pairs)))
        return [answers[number] for number in range(len(pairs))]

    def _answers(self, pairs: Sequence[Pair]) -> List[Document]:
        task = self.engine.task
        results = self.engine.answer(pairs, None, self._options)
        return [task.json_result(result, self._options) for result in results]


class CachedReader:
    """Answers what was asked before from a server's cache, in this process, and the rest through another reader."""

    def __init__(self, reader: Reader, identity: Tuple[str, ...]):
        self._reader = reader
        self._identity = identity  # of who answers
        self.empty()

    def empty(self) -> None:
        """Forget the answers, and how many there were."""
        self._cache = LocalCache(CACHE_BYTES, CACHE_TTL_S)
        self.asked = self.made = 0

    @property
    def hit_rate(self) -> float:
        """The share of questions that were not answered anew."""
        return 1 - self.made / self.asked

    def answer(self, pair: Pair) -> Document:
        return self._answered([pair])[0]

    def answer_together(self, pairs: Sequence[Pair]) -> List[Document]:
        return [answer for chunk in chunks_of(pairs) for answer in self._answered(chunk)]

    def _answered(self, pairs: Sequence[Pair]) -> List[Document]:
        """Of what is asked twice among ``pairs``, the second waits for the first: as a server's requests do."""
        keys = [key_of(self._identity, pair) for pair in pairs]
        answers: Dict[Optional[bytes], Document] = {}
        new: Dict[bytes, Pair] = {}
        for key, pair in zip(keys, pairs):
            assert key is not None, "a question that was read from a file is text"
            found = self._cache.get(key)
            if found is None:
                new[key] = pair
            else:
                answers[key] = json.loads(found.answer.body)
        made = self._reader.answer_together(list(new.values())) if new else []
        for key, answer in zip(new, made):
            self._cache.put(key, Answer(json.dumps(answer).encode(), b"application/json"))
            answers[key] = answer
        self.asked += len(pairs)
        self.made += len(new)
        return [answers[key] for key in keys]


class Readers:
    """The readers of one run: loaded when they are first asked for, and kept.

    Engines that nobody asks take no CPU time, their threads sleep; so those of other steps do not disturb one.
    """

    def __init__(self, models: Models, threads: int, options: AnswerOptions, stack: ExitStack):
        self.models = models
        self.threads = threads
        self._options = options
        self._stack = stack  # closes them
        self._opened: Dict[Configuration, EngineReader] = {}

    def engine_reader(self, configuration: Configuration) -> EngineReader:
        """The reader that asks the engine itself, for a configuration that is not cached."""
        if configuration not in self._opened:
            artifact = self.models.artifact(configuration.model, configuration.backend)
            kind = Engine if configuration.batched else RowByRow
            engine = kind(artifact, variant=configuration.variant, threads=self.threads, streams=configuration.streams)
            self._stack.callback(engine.close)
            if isinstance(engine, RowByRow):
                engine.padded_to = configuration.padded_to
            self._opened[configuration] = EngineReader(engine, configuration, self._options)
        return self._opened[configuration]

    def reader(self, configuration: Configuration) -> Reader:
        """The reader of a configuration; a cached one has an empty cache."""
        asking = self.engine_reader(configuration._replace(cached=False))
        if not configuration.cached:
            return asking
        return CachedReader(asking, (asking.engine.artifact.manifest["digest"], asking.engine.name))
