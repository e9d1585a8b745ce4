"""The offline job: a file of questions of any size in, a file of answers out, through the runner; can be resumed.

The input is worked through in blocks of entries: its lines or rows (job_input.py). A block's windows are cut into
batches by the block alone (blocks.py), and a batch goes to its worker as it is, so every number in the output depends
on the input only: not on the workers, on timing, or on where an earlier run was killed. A block is also what is
recorded at once (artifact/resumable.py).

There are two ways to the same bytes. Where the model takes most of the time, this process tokenises, and workers get
batches. Where one process that tokenises cannot keep a device busy (``Backend.HOST_BOUND``), workers get blocks, as
text. A block of which no worker makes its part of the output goes the other way: there it shows which line is at fault.
"""

import time
from collections import deque
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple, TypeVar, Union

from neuronbert import __version__
from neuronbert.artifact.files import refuse_inside
from neuronbert.artifact.manifest import Artifact, PathLike, artifact_of
from neuronbert.artifact.resumable import Record, as_job, resumable_output
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.backends import load_backend
from neuronbert.backends.base import Backend
from neuronbert.backends.outputs import Outputs
from neuronbert.checkpoint.config import read_config
from neuronbert.engine.lines import refuse_no_input
from neuronbert.errors import InputError, NeuronBertError, RunnerClosed, is_path, refuse_no_path
from neuronbert.runner import job_input
from neuronbert.runner.blocks import Block, CutBlock, Part, Rules, cut_block, part_of
from neuronbert.runner.job_input import JobInput, open_input
from neuronbert.runner.job_progress import JobProgress, Progress
from neuronbert.runner.placement import workers_of_job
from neuronbert.runner.runner import Runner
from neuronbert.tasks import load_task
from neuronbert.tasks.base import option_kinds, options_of
from neuronbert.tasks.line_formats import line_format
from neuronbert.tasks.lines import SkippedLine
from neuronbert.tasks.result_files import result_file

# The first is ranked and written, the second is computed, and the third has batches ready when that is done.
BLOCKS_IN_FLIGHT = 3
# A block of so many times BLOCK_BYTES has a line so long that a worker would tokenise it in silence for too long.
TOO_LONG_FOR_WORKER = 2


@dataclass(frozen=True)
class JobReport:
    """What a job did. Counts of lines are of the whole output, whichever run wrote them."""

    output: str
    artifact: str
    variant: str
    lines: int  # of the input, a table's header among them
    answered: int
    skipped: int
    resumed_lines: int  # of the input, that were done when this run began
    seconds: float  # of this run, from text to answers, loading not counted
    inputs_per_s: float  # of this run

    def as_dict(self) -> Dict[str, Any]:
        """The report as plain JSON data."""
        return asdict(self)


def run_job(
    artifact: Union[Artifact, PathLike],
    input: PathLike,
    output: PathLike,
    *,
    workers: Optional[int] = None,
    variant: Optional[str] = None,
    threads: Optional[int] = None,
    busy_wait: bool = False,
    trusted_key: TrustedKey = None,
    on_error: str = "fail",
    input_format: Optional[str] = None,
    output_format: Optional[str] = None,
    progress: Progress = lambda done, total: None,
    on_skip: Callable[[SkippedLine], None] = lambda line: None,
    on_unsaid: Callable[[int, str], None] = lambda line_number, what: None,
    **options: Any,
) -> JobReport:
    """Answer the lines of ``input`` (a path, or "-" for stdin) into the new file ``output``, a line for each.

    While it runs, ``output``.partial grows, and ``output``.partial.json records how far it is: the same call goes on
    after a kill, and the output is what one undisturbed run writes. The input may have grown until then. Input that is
    no plain file cannot be read again, so such a job begins anew. workers, variant, threads, busy_wait, trusted_key: as
    for Runner; but by default a GPU has as many workers as there are CPU cores for it, 8 at most, if it has the memory.
    ``input_format`` and ``output_format`` are "jsonl", "csv" or "tsv", and of the output also "parquet", or "npy" for
    embeddings; None is that of the suffix, or "jsonl". ``options`` are those of the task (windows and answers), which a
    line may set for itself. A broken line fails the job; with ``on_error="skip"`` the output has its error in place of
    a result, and it is passed to ``on_skip``. ``on_unsaid`` is given the number of each line of whose result the output
    cannot say everything, and what is not said. ``progress`` is called when the workers are loaded, and then after each
    batch. ``neuronbert top`` shows the job, in the same numbers.

    Raises InputError naming the line, or if the input became shorter while it was read, OutputError (``output`` exists,
    the disk is full, the partial output is of another job), ArtifactError and what else keeps workers from running.
    """
    refuse_no_path("input", input)
    refuse_no_path("output", output)
    reads = line_format("input_format", input_format, input)
    writes = result_file("output_format", output_format, output)
    folder = artifact.folder if isinstance(artifact, Artifact) else artifact
    if is_path(folder):  # anything else is refused where it is opened
        refuse_inside(folder, output)
    with resumable_output(output, input) as growing, open_input(input) as source:
        loaded = artifact_of(artifact, trusted_key)
        task = load_task(loaded.task)
        encode_options, decode_options = options_of(option_kinds(task), options)
        columns = task.columns(read_config(loaded.folder) or {}, decode_options)
        writes.check(columns)
        source.begin(reads, task.LINES)
        counts = JobProgress(growing.output, source.total, progress)
        with Runner(
            loaded,
            workers=workers_of_job(loaded, variant) if workers is None else workers,
            variant=variant,
            threads=threads,
            busy_wait=busy_wait,
            publish=True,
            work=counts.work,
        ) as runner:
            backend = load_backend(runner.variants[0]["backend"])
            rules = Rules(reads.name, writes.name, encode_options, decode_options, columns, on_error, runner.plan)
            description = _description(runner, backend, source, rules)
            record = growing.begin(description, source.resumable)
            source.skip(record, growing.output)
            counts.recorded(record)
            job = _Job(runner, source, rules, in_workers=backend.HOST_BOUND)
            first, started = record, time.perf_counter()
            for block in job.blocks():
                done = job.answer(block, partial(counts.beyond, record, block.input_lines - record.input_lines))
                data = done.data if record.output_bytes else writes.head(columns) + done.data
                record = growing.append(data, block.recorded(record, done), is_end=block.is_last)
                counts.recorded(record)
                for line in done.skipped:
                    on_skip(line)
                for line_number, what in done.unsaid:
                    on_unsaid(line_number, what)
            refuse_no_input(task, record.answered + record.skipped, reads)
            seconds = time.perf_counter() - started
        growing.finish(writes.made_of(columns))
    return JobReport(
        output=str(growing.output),
        artifact=str(loaded.folder),
        variant=runner.name,
        lines=record.input_lines,
        answered=record.answered,
        skipped=record.skipped,
        resumed_lines=first.input_lines,
        seconds=seconds,
        inputs_per_s=(record.answered - first.answered) / seconds,
    )


def _description(runner: Runner, backend: Backend, source: JobInput, rules: Rules) -> Dict[str, Any]:
    """All that the output depends on except the input's bytes; a message names the part that changed."""
    plan = runner.plan
    on_cpu = backend.DEVICE != "cuda"  # where no CPU thread computes, their number changes nothing
    return as_job(
        input=source.kind,
        input_format=rules.reads,
        output_format=rules.writes,
        artifact=runner.artifact.manifest["digest"],
        variant=runner.name,
        **asdict(rules.encode_options),
        **asdict(rules.decode_options),
        batches={"rows": plan.rows, "tokens": plan.tokens, "lengths": plan.lengths},
        threads_per_batch=max(1, runner.places[0].threads // plan.streams) if on_cpu else None,
        block={
            "lines": (job_input.FIRST_LINES, job_input.BLOCK_LINES),
            "bytes": (job_input.FIRST_BYTES, job_input.BLOCK_BYTES),
        },
        neuronbert=__version__,
    )


# ---------------------------------------------------------------------- the work


class _InWorker(NamedTuple):
    """A block that a worker answers: the future of its part of the output, and the shares of its rows that are done."""

    block: Block
    part: "Future[Part]"
    shares: "SimpleQueue[Optional[float]]"  # None behind the last one


class _InBatches(NamedTuple):
    """A block of which workers answer batches: those of its present round, and the futures of their outputs."""

    cut: CutBlock
    batches: List[List[int]]
    outputs: "List[Future[Outputs]]"


class _InFlight(NamedTuple):
    """A block that is asked, and how far the input was read with it."""

    asked: Union[_InWorker, _InBatches]
    input_sha256: str
    input_bytes: int
    input_lines: int
    is_last: bool  # cut short by the end of the input

    def recorded(self, before: Record, done: Part) -> Record:
        """The record of the job once this block is done."""
        return before._replace(
            input_sha256=self.input_sha256,
            input_bytes=self.input_bytes,
            input_lines=self.input_lines,
            answered=before.answered + done.answered,
            skipped=before.skipped + len(done.skipped),
        )

    @property
    def futures(self) -> "List[Future[Any]]":
        return [self.asked.part] if isinstance(self.asked, _InWorker) else [*self.asked.outputs]


class _Job:
    def __init__(self, runner: Runner, source: JobInput, rules: Rules, in_workers: bool):
        self._runner, self._source, self._rules = runner, source, rules
        self._in_workers = in_workers
        self._waiting: Deque[_InFlight] = deque()

    def blocks(self) -> Iterator[_InFlight]:
        """Every block, in order and already submitted, with the next ones in flight behind it."""
        broken: Optional[InputError] = None
        while True:
            try:
                block = self._ask()
            except InputError as error:
                broken, block = error, None  # what was good before it is still recorded
            if block is None:
                break
            self._waiting.append(block)
            while self._is_enough():
                yield self._waiting.popleft()
        while self._waiting:
            yield self._waiting.popleft()
        if broken is not None:
            raise broken

    def _is_enough(self) -> bool:
        """Whether every worker has all that it may hold, while the first block is written and the next one is read."""
        blocks, held = len(self._waiting), len(self._runner.places) * (self._runner.plan.streams + 1)
        if blocks < BLOCKS_IN_FLIGHT:
            return False
        behind = [waiting.asked for waiting in self._waiting][1:]
        rows = sum(len(asked.cut.rounds.rows) for asked in behind if isinstance(asked, _InBatches))
        whole = sum(isinstance(asked, _InWorker) for asked in behind)
        return whole + rows / self._runner.plan.rows >= held

    def _ask(self) -> Optional[_InFlight]:
        source, before = self._source, self._source.bytes
        entries = source.block()
        if not entries:
            return None
        block = Block(entries, self._rules)
        is_short = not source.is_inside and source.bytes - before < TOO_LONG_FOR_WORKER * job_input.BLOCK_BYTES
        asked = self._ask_worker(block) if self._in_workers and is_short else self._ask_batches(self._cut(block))
        source.pass_over()  # not before: a line that fails the job may have no end
        return _InFlight(asked, source.sha256, source.bytes, source.lines, is_last=source.is_ended)

    def _ask_worker(self, block: Block) -> _InWorker:
        shares: SimpleQueue[Optional[float]] = SimpleQueue()
        part = self._runner.submit_block(block, shares.put)
        part.add_done_callback(lambda _: shares.put(None))
        return _InWorker(block, part, shares)

    def _ask_batches(self, cut: CutBlock) -> _InBatches:
        batches = cut.batches(self._rules.plan)
        return _InBatches(cut, batches, [self._submit(cut, rows) for rows in batches])

    def _cut(self, block: Block) -> CutBlock:
        return cut_block(block, self._runner.task, self._runner.tokenizer)

    def _submit(self, cut: CutBlock, rows: List[int]) -> "Future[Outputs]":
        return self._runner.submit_together(cut.batch(rows, self._runner.tokenizer.pad_id))

    def answer(self, asked: _InFlight, progress: Callable[[float], None]) -> Part:
        """The output of a block, once it is done; ``progress`` is told the share of its rows, which only grows."""
        told = 0.0

        def tell(share: float) -> None:
            nonlocal told
            told = max(told, share)
            progress(told)

        if isinstance(asked.asked, _InWorker):
            for share in iter(asked.asked.shares.get, None):
                tell(share)
            part = _outcome(asked.asked.part)
            if not isinstance(part, NeuronBertError):
                return part
            cut = self._cut(asked.asked.block)  # raises if a line fails the job
            self._wait_for_all(asked)
            asked = asked._replace(asked=self._ask_batches(cut))
        assert isinstance(asked.asked, _InBatches)
        cut = asked.asked.cut
        while asked.asked.batches:
            outputs, failed = self._outputs(asked, asked.asked, tell)
            cut.rounds.give(outputs, failed)
            asked = asked._replace(asked=self._ask_batches(cut))
        return part_of(cut, self._rules, self._runner.task)

    def _outputs(
        self, asked: _InFlight, batches: _InBatches, progress: Callable[[float], None]
    ) -> Tuple[Dict[int, Outputs], Dict[int, NeuronBertError]]:
        """The outputs of each row of the round by its number, and what is wrong with those that have none."""
        cut, specs = batches.cut, self._runner.specs
        outputs: Dict[int, Outputs] = {}
        failed: Dict[int, NeuronBertError] = {}
        for rows, future in zip(batches.batches, batches.outputs):
            outcome = _outcome(future)
            if not isinstance(outcome, NeuronBertError):
                outputs.update(cut.outputs(rows, outcome, specs))
                progress(cut.share(len(outputs) + len(failed)))
                continue
            self._wait_for_all(asked)
            for row in rows:
                alone = _outcome(self._submit(cut, [row]))
                if isinstance(alone, NeuronBertError):
                    failed[row] = alone
                else:
                    outputs.update(cut.outputs([row], alone, specs))
        return outputs, failed

    def _wait_for_all(self, failed: _InFlight) -> None:
        """Until nothing else is with a worker: what failed is tried again in parts, one of which may end some.

        And what is at fault may be something that was with the same worker when it died.
        """
        wait([future for asked in (failed, *self._waiting) for future in asked.futures])


Outcome = TypeVar("Outcome")


def _outcome(future: "Future[Outcome]") -> Union[Outcome, NeuronBertError]:
    try:
        return future.result()
    except RunnerClosed:
        raise
    except NeuronBertError as error:
        return error
