"""The offline job: a file of questions of any size in, a file of answers out, through the runner; goes on after a kill.

The input is worked through in blocks of lines. A block's windows are cut into batches by the block alone, and a batch
goes to its worker as it is, so every number in the output depends on the input only: not on the workers, on timing, or
on where an earlier run was killed. A block is also what is recorded at once (resumable.py).
"""

import hashlib
import json
import os
import stat
import sys
import time
from collections import deque
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, BinaryIO, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from neuronbert import __version__
from neuronbert.artifact.manifest import Artifact, PathLike, load_artifact
from neuronbert.artifact.resumable import Record, as_job, partial_path, record_path, resumable_output
from neuronbert.backends import Logits
from neuronbert.engine.engine import CHUNK_QUESTIONS, plan_batches, unpad
from neuronbert.engine.lines import PreparedLine, prepare_lines, refuse_no_question, result_of
from neuronbert.errors import BackendFailed, InputError, NeuronBertError, OutputError, RunnerClosed
from neuronbert.runner import Runner
from neuronbert.tasks.question_answering.answers import AnswerOptions, options_of, rank_answers
from neuronbert.tasks.question_answering.squad import SkippedLine
from neuronbert.tasks.question_answering.windows import Window, WindowOptions, collate

# Part of what an unfinished job was begun with: a release that changes either must not go on with it.
BLOCK_LINES = CHUNK_QUESTIONS
BLOCK_BYTES = 8 << 20
# One that is ranked and written, one that is computed, one whose first batches are there when that is done.
BLOCKS_IN_FLIGHT = 3
READ_BYTES = 1 << 20

# Called after each block with the input's bytes read by this run, how many there are for it (None: nobody knows), and
# how many lines are done, those of earlier runs included.
Progress = Callable[[int, Optional[int], int], None]


@dataclass(frozen=True)
class JobReport:
    """What a job did. Counts of lines are of the whole output, whichever run wrote them."""

    output: str
    artifact: str
    variant: str
    lines: int  # of the input
    answered: int
    skipped: int
    resumed_lines: int  # of the input, that were done when this run began
    seconds: float  # of this run, from text to answers, loading not counted
    questions_per_s: float  # of this run

    def as_dict(self) -> Dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def run_job(
    artifact: Union[Artifact, PathLike],
    input: PathLike,
    output: PathLike,
    *,
    workers: Optional[int] = None,
    variant: Optional[str] = None,
    threads: Optional[int] = None,
    on_error: str = "fail",
    progress: Progress = lambda done, total, lines: None,
    on_skip: Callable[[SkippedLine], None] = lambda line: None,
    **options: Any,
) -> JobReport:
    """Answer the JSON lines of ``input`` (a path, or "-" for stdin) into the new file ``output``, a line for each.

    While it runs, ``output``.partial grows, and ``output``.partial.json records how far it is: the same call goes on
    after a kill, and the output is what one undisturbed run writes. Input that is no plain file cannot be read again,
    so such a job begins anew. workers, variant, threads: as for Runner. ``options`` are those of WindowOptions and
    AnswerOptions, which a line may set for itself. A broken line fails the job, or is passed to
    ``on_skip`` with ``on_error="skip"``. ``neuronbert top`` shows the job.

    Raises InputError naming the line, OutputError (``output`` exists, the disk is full, the partial output is of
    another job), ArtifactError and what else keeps workers from running.
    """
    with resumable_output(output) as growing, _opened(input) as source:
        loaded = artifact if isinstance(artifact, Artifact) else load_artifact(artifact)
        windows, answers = options_of(options)
        with Runner(loaded, workers=workers, variant=variant, threads=threads, publish=True) as runner:
            record = growing.begin(_description(runner, source, windows, answers), source.resumable)
            source.skip(record, growing.output)
            job = _Job(runner, source, windows, answers, on_error)
            first, started = record, time.perf_counter()
            for block in job.blocks():
                done = job.answer(block)
                record = block.recorded(record, done)
                growing.append(done.text, record)
                for line in done.skipped:
                    on_skip(line)
                progress(record.input_bytes - first.input_bytes, source.left, record.input_lines)
            refuse_no_question(record.answered + record.skipped)
            seconds = time.perf_counter() - started
        growing.finish()
    return JobReport(
        output=str(growing.output),
        artifact=str(loaded.folder),
        variant=_names(runner),
        lines=record.input_lines,
        answered=record.answered,
        skipped=record.skipped,
        resumed_lines=first.input_lines,
        seconds=seconds,
        questions_per_s=(record.answered - first.answered) / seconds,
    )


def _names(runner: Runner) -> str:
    return ", ".join(variant["name"] for variant in runner.variants)


def _description(runner: Runner, source: "_Source", windows: WindowOptions, answers: AnswerOptions) -> Dict[str, Any]:
    """All that the output depends on but the input's bytes; the names are for whoever changed one of them."""
    plan = runner.plan
    return as_job(
        input=source.kind,
        artifact=runner.artifact.manifest["digest"],
        variant=_names(runner),
        **asdict(windows),
        **asdict(answers),
        batches={"rows": plan.rows, "tokens": plan.tokens, "lengths": plan.lengths},
        threads_per_batch=max(1, runner.places[0].threads // plan.streams),
        block={"lines": BLOCK_LINES, "bytes": BLOCK_BYTES},
        neuronbert=__version__,
    )


# ---------------------------------------------------------------------- the input


class _Source:
    """The input in blocks of whole lines, and how far it was read."""

    def __init__(self, file: BinaryIO):
        self.resumable = stat.S_ISREG(os.fstat(file.fileno()).st_mode)
        self.kind = "file" if self.resumable else "stream"
        self.left: Optional[int] = os.fstat(file.fileno()).st_size if self.resumable else None
        self.bytes = self.lines = 0
        self._file = file
        self._sha = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Of what was read so far."""
        return self._sha.hexdigest()

    def skip(self, record: Record, output: PathLike) -> None:
        """Pass over what was done before. OutputError if that is not what the input begins with now."""
        while self.bytes < record.input_bytes:
            data = self._file.read(min(READ_BYTES, record.input_bytes - self.bytes))
            if not data:
                break
            self._count(data)
        if self.sha256 != record.input_sha256:
            raise OutputError(
                f"{partial_path(output)} was begun with another input: the first {record.input_bytes:,} bytes of this "
                "one are others",
                hint=f"the same input, or begin anew: rm {partial_path(output)} {record_path(output)}",
            )
        self.lines = record.input_lines
        if self.left is not None:
            self.left -= self.bytes

    def block(self) -> List[bytes]:
        """The next lines; none at the end."""
        lines: List[bytes] = []
        before = self.bytes
        while len(lines) < BLOCK_LINES and self.bytes - before < BLOCK_BYTES:
            line = self._file.readline()
            if not line:
                break
            lines.append(line)
            self._count(line)
        self.lines += len(lines)
        return lines

    def _count(self, data: bytes) -> None:
        self._sha.update(data)
        self.bytes += len(data)


@contextmanager
def _opened(path: PathLike) -> Iterator[_Source]:
    if path == "-":
        yield _Source(sys.stdin.buffer)
        return
    try:
        file = open(path, "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}", hint="a file of JSON lines, or - for stdin") from None
    with file:
        yield _Source(file)


# ---------------------------------------------------------------------- the work


class _Batch(NamedTuple):
    """Which of its block's windows, and their logits to come."""

    windows: List[int]
    logits: "Future[Logits]"


class _Block(NamedTuple):
    """Lines on their way, and how far the input was read with them."""

    prepared: List[PreparedLine]
    skipped: List[SkippedLine]
    windows: List[Window]
    batches: List[_Batch]
    input_sha256: str
    input_bytes: int
    input_lines: int

    def recorded(self, before: Record, done: "_Answered") -> Record:
        """How far the job is with this block."""
        return before._replace(
            input_sha256=self.input_sha256,
            input_bytes=self.input_bytes,
            input_lines=self.input_lines,
            answered=before.answered + done.answered,
            skipped=before.skipped + len(done.skipped),
            output_bytes=before.output_bytes + len(done.text),
        )


class _Answered(NamedTuple):
    """What a block adds to the output."""

    text: bytes
    answered: int
    skipped: List[SkippedLine]


class _Job:
    def __init__(self, runner: Runner, source: _Source, windows: WindowOptions, answers: AnswerOptions, on_error: str):
        self._runner, self._source = runner, source
        self._options = windows, answers
        self._on_error = on_error
        self._waiting: Deque[_Block] = deque()

    def blocks(self) -> Iterator[_Block]:
        """Every block, in order and already asked, with the next ones on their way behind it."""
        broken: Optional[InputError] = None
        while True:
            try:
                block = self._ask()
            except InputError as error:
                broken, block = error, None  # what was good before it is still recorded
            if block is None:
                break
            self._waiting.append(block)
            if len(self._waiting) == BLOCKS_IN_FLIGHT:
                yield self._waiting.popleft()
        while self._waiting:
            yield self._waiting.popleft()
        if broken is not None:
            raise broken

    def _ask(self) -> Optional[_Block]:
        first_line = self._source.lines + 1
        lines = self._source.block()
        if not lines:
            return None
        prepared, skipped = prepare_lines(
            self._runner.tokenizer, lines, *self._options, on_error=self._on_error, first_line=first_line
        )
        shown = [window for one in prepared for window in one.example.windows]
        batches = [
            _Batch(batch, self._submit(shown, batch))
            for batch in plan_batches([len(window.input_ids) for window in shown], self._runner.plan)
        ]
        return _Block(prepared, skipped, shown, batches, self._source.sha256, self._source.bytes, self._source.lines)

    def _submit(self, windows: List[Window], batch: List[int]) -> "Future[Logits]":
        return self._runner.submit_together(collate([windows[index] for index in batch], self._runner.tokenizer.pad_id))

    def answer(self, block: _Block) -> _Answered:
        """The output's lines of ``block``, when its batches are done."""
        logits, failed = self._logits(block)
        results: List[str] = []
        skipped = list(block.skipped)
        first = 0
        for one in block.prepared:
            own = range(first, first + len(one.example.windows))
            first = own.stop
            error = next((failed[index] for index in own if index in failed), None)
            if error is None:
                starts, ends = [logits[index].start for index in own], [logits[index].end for index in own]
                ranked = rank_answers(one.example, starts, ends, one.options)
                results.append(json.dumps(result_of(one, ranked), ensure_ascii=False))
            elif self._on_error == "skip":
                skipped.append(SkippedLine(one.line.line_number, error.message))
            else:
                raise BackendFailed(
                    f"line {one.line.line_number}: {error.message}", hint="--on-error skip leaves such lines out"
                )
        text = "".join(result + "\n" for result in results).encode("utf-8")
        return _Answered(text, len(results), sorted(skipped))

    def _logits(self, block: _Block) -> Tuple[List[Logits], Dict[int, NeuronBertError]]:
        """The logits of each window, and what is wrong with those that have none."""
        answered: List[Tuple[List[int], Logits]] = []
        failed: Dict[int, NeuronBertError] = {}
        for batch in block.batches:
            outcome = _outcome(batch.logits)
            if isinstance(outcome, Logits):
                answered.append((batch.windows, outcome))
                continue
            # One of its rows may be at fault, or a row of another batch that was with the same worker when it died.
            wait([each.logits for other in (block, *self._waiting) for each in other.batches])
            for index in batch.windows:
                alone = _outcome(self._submit(block.windows, [index]))
                if isinstance(alone, Logits):
                    answered.append(([index], alone))
                else:
                    failed[index] = alone
        return unpad(block.windows, answered), failed


def _outcome(logits: "Future[Logits]") -> Union[Logits, NeuronBertError]:
    try:
        return logits.result()
    except RunnerClosed:
        raise
    except NeuronBertError as error:
        return error
