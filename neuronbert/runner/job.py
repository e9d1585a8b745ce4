"""The offline job: a file of questions of any size in, a file of answers out, through the runner; can be resumed.

The input is worked through in blocks of entries: its lines or rows (job_input.py). A block's windows are cut into
batches by the block alone, and a batch goes to its worker as it is, so every number in the output depends on the input
only: not on the workers, on timing, or on where an earlier run was killed. A block is also what is recorded at once
(artifact/resumable.py).
"""

import time
from collections import deque
from concurrent.futures import Future, wait
from dataclasses import asdict, dataclass
from functools import partial
from heapq import merge
from operator import itemgetter
from typing import Any, Callable, Deque, Dict, Iterator, List, NamedTuple, Optional, Tuple, Union

from neuronbert import __version__
from neuronbert.artifact.files import refuse_inside
from neuronbert.artifact.manifest import Artifact, PathLike, artifact_of
from neuronbert.artifact.resumable import Record, as_job, resumable_output
from neuronbert.artifact.signatures import TrustedKey
from neuronbert.backends.outputs import Outputs, row_of
from neuronbert.checkpoint.config import read_config
from neuronbert.engine.batches import collate, plan_batches
from neuronbert.engine.lines import PreparedLine, prepare_lines, refuse_no_input, result_of
from neuronbert.errors import (
    BackendFailed,
    InputError,
    NeuronBertError,
    PoisonRequest,
    RunnerClosed,
    is_path,
    refuse_no_path,
)
from neuronbert.runner import job_input
from neuronbert.runner.job_input import JobInput, open_input
from neuronbert.runner.job_progress import JobProgress, Progress
from neuronbert.runner.runner import Runner
from neuronbert.tasks import load_task
from neuronbert.tasks.base import Columns, DecodeOptions, Document, EncodeOptions, Row, option_kinds, options_of
from neuronbert.tasks.line_formats import LineFormat, line_format
from neuronbert.tasks.lines import SkippedLine
from neuronbert.tasks.result_files import ResultFile, result_file

# The first is ranked and written, the second is computed, and the third has batches ready when that is done.
BLOCKS_IN_FLIGHT = 3


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
    for Runner. ``input_format`` and ``output_format`` are "jsonl", "csv" or "tsv", and of the output also "parquet", or
    "npy" for embeddings; None is that of the suffix, or "jsonl". ``options`` are those of the task (windows and
    answers), which a line may set for itself. A broken line fails the job; with ``on_error="skip"`` the output has its
    error in place of a result, and it is passed to ``on_skip``. ``on_unsaid`` is given the number of each line of whose
    result the output cannot say everything, and what is not said. ``progress`` is called when the workers are loaded,
    and then after each batch. ``neuronbert top`` shows the job, in the same numbers.

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
            workers=workers,
            variant=variant,
            threads=threads,
            busy_wait=busy_wait,
            publish=True,
            work=counts.work,
        ) as runner:
            description = _description(runner, source, reads, writes, encode_options, decode_options)
            record = growing.begin(description, source.resumable)
            source.skip(record, growing.output)
            counts.recorded(record)
            job = _Job(runner, source, reads, writes, columns, encode_options, decode_options, on_error)
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


def _description(
    runner: Runner,
    source: JobInput,
    reads: LineFormat,
    writes: ResultFile,
    encode_options: EncodeOptions,
    decode_options: DecodeOptions,
) -> Dict[str, Any]:
    """All that the output depends on except the input's bytes; a message names the part that changed."""
    plan = runner.plan
    return as_job(
        input=source.kind,
        input_format=reads.name,
        output_format=writes.name,
        artifact=runner.artifact.manifest["digest"],
        variant=runner.name,
        **asdict(encode_options),
        **asdict(decode_options),
        batches={"rows": plan.rows, "tokens": plan.tokens, "lengths": plan.lengths},
        threads_per_batch=max(1, runner.places[0].threads // plan.streams),
        block={
            "lines": (job_input.FIRST_LINES, job_input.BLOCK_LINES),
            "bytes": (job_input.FIRST_BYTES, job_input.BLOCK_BYTES),
        },
        neuronbert=__version__,
    )


# ---------------------------------------------------------------------- the work


class _Batch(NamedTuple):
    """The indexes of its rows in the block, and the future of their outputs."""

    rows: List[int]
    outputs: "Future[Outputs]"


class _Block(NamedTuple):
    """Lines in flight, and how far the input was read with them."""

    prepared: List[PreparedLine]
    skipped: List[SkippedLine]
    rows: List[Row]
    batches: List[_Batch]
    input_sha256: str
    input_bytes: int
    input_lines: int
    is_last: bool  # cut short by the end of the input

    def recorded(self, before: Record, done: "_Answered") -> Record:
        """The record of the job once this block is done."""
        return before._replace(
            input_sha256=self.input_sha256,
            input_bytes=self.input_bytes,
            input_lines=self.input_lines,
            answered=before.answered + done.answered,
            skipped=before.skipped + len(done.skipped),
        )


class _Answered(NamedTuple):
    """What a block adds to the output, as bytes and counts."""

    data: bytes
    answered: int
    skipped: List[SkippedLine]
    unsaid: List[Tuple[int, str]]  # numbers of lines, and what the output cannot say of their results


class _Job:
    def __init__(
        self,
        runner: Runner,
        source: JobInput,
        reads: LineFormat,
        writes: ResultFile,
        columns: Columns,
        encode_options: EncodeOptions,
        decode_options: DecodeOptions,
        on_error: str,
    ):
        self._runner, self._source = runner, source
        self._reads, self._writes = reads, writes
        self._options = encode_options, decode_options
        self._columns = columns
        self._on_error = on_error
        self._waiting: Deque[_Block] = deque()

    def blocks(self) -> Iterator[_Block]:
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
        """Whether every worker has rows to do while the first block is ranked, and the next one is read."""
        plan, rows = self._runner.plan, sum(len(block.rows) for block in self._waiting)
        busy = len(self._runner.places) * (plan.streams + 1) * plan.rows
        blocks = len(self._waiting)
        return blocks >= BLOCKS_IN_FLIGHT and rows - len(self._waiting[0].rows) >= busy

    def _ask(self) -> Optional[_Block]:
        runner, source = self._runner, self._source
        entries = source.block()
        if not entries:
            return None
        prepared, skipped = prepare_lines(
            runner.task,
            runner.tokenizer,
            entries,
            *self._options,
            on_error=self._on_error,
            line_format=self._reads,
            check_result=self._check_result,
        )
        source.pass_over()  # not before: a line that fails the job may have no end
        rows = [row for line in prepared for row in line.example.windows]
        batches = [
            _Batch(batch, self._submit(rows, batch))
            for batch in plan_batches([len(row.input_ids) for row in rows], runner.plan)
        ]
        return _Block(
            prepared, skipped, rows, batches, source.sha256, source.bytes, source.lines, is_last=source.is_ended
        )

    def _check_result(self, options: DecodeOptions) -> None:
        if options == self._options[1]:  # most lines set none of these
            return
        columns = self._runner.task.columns(self._runner.tokenizer.config, options)
        self._writes.check_line(self._columns, columns)

    def _submit(self, rows: List[Row], batch: List[int]) -> "Future[Outputs]":
        return self._runner.submit_together(collate([rows[index] for index in batch], self._runner.tokenizer.pad_id))

    def answer(self, block: _Block, progress: Callable[[float], None]) -> _Answered:
        """The output lines of ``block``, once its batches are done; ``progress`` is told the share of its rows."""
        outputs, failed = self._outputs(block, progress)
        task = self._runner.task
        documents: List[Document] = []
        skipped = list(block.skipped)
        first = 0
        for line in block.prepared:
            rows = range(first, first + len(line.example.windows))
            first = rows.stop
            error = next((failed[index] for index in rows if index in failed), None)
            if error is None:
                result = task.decode(line.example, [outputs[index] for index in rows], line.options)
                documents.append(result_of(task, line, result))
            elif self._on_error == "skip":
                skipped.append(SkippedLine(line.line.line_number, _reason_of(error), line.line.id))
            else:
                raise BackendFailed(
                    f"line {line.line.line_number}: {error.message}",
                    hint="--on-error skip writes an error in place of such a result",
                )
        skipped.sort()
        errors = (line.document() for line in skipped)
        data = self._writes.part([*merge(documents, errors, key=itemgetter("line"))], self._columns)
        unsaid = [(document["line"], self._writes.unsaid(document)) for document in documents]
        return _Answered(data, len(documents), skipped, [(number, what) for number, what in unsaid if what])

    def _outputs(
        self, block: _Block, progress: Callable[[float], None]
    ) -> Tuple[Dict[int, Outputs], Dict[int, NeuronBertError]]:
        """The outputs of each row by its number, and what is wrong with those that have none."""
        outputs: Dict[int, Outputs] = {}
        failed: Dict[int, NeuronBertError] = {}
        for batch in block.batches:
            outcome = _outcome(batch.outputs)
            if not isinstance(outcome, NeuronBertError):
                outputs.update(self._rows_of(block, batch.rows, outcome))
                progress((len(outputs) + len(failed)) / len(block.rows))
                continue
            # One of its rows may be at fault, or a row of another batch that was with the same worker when it died.
            wait([in_flight.outputs for waiting in (block, *self._waiting) for in_flight in waiting.batches])
            for index in batch.rows:
                alone = _outcome(self._submit(block.rows, [index]))
                if isinstance(alone, NeuronBertError):
                    failed[index] = alone
                else:
                    outputs.update(self._rows_of(block, [index], alone))
        return outputs, failed

    def _rows_of(self, block: _Block, batch: List[int], outputs: Outputs) -> Dict[int, Outputs]:
        specs = self._runner.specs
        return {
            index: row_of(outputs, specs, number, len(block.rows[index].input_ids))
            for number, index in enumerate(batch)
        }


def _reason_of(error: NeuronBertError) -> str:
    """Why a line has no result, for the output: the same words in every run."""
    if isinstance(error, PoisonRequest):  # which numbers the request, and the workers that died
        return "the workers that read it died"
    return error.message


def _outcome(outputs: "Future[Outputs]") -> Union[Outputs, NeuronBertError]:
    try:
        return outputs.result()
    except RunnerClosed:
        raise
    except NeuronBertError as error:
        return error
