"""A block of a job's entries: cut into rows and batches, and made into its part of the output, of the block alone.

``job`` does it in its own process, and ``worker_process`` where one process that tokenises cannot keep a device busy.
"""

from dataclasses import dataclass
from heapq import merge
from operator import itemgetter
from typing import Callable, Dict, List, NamedTuple, Tuple

from neuronbert.backends.base import Batch, ThroughputPlan
from neuronbert.backends.outputs import Output, Outputs, row_of
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import collate, plan_batches
from neuronbert.engine.engine import Engine
from neuronbert.engine.lines import PreparedLine, prepare_lines, result_of
from neuronbert.engine.rounds import Rounds
from neuronbert.errors import BackendFailed, NeuronBertError, PoisonRequest
from neuronbert.tasks.base import Columns, DecodeOptions, Document, EncodeOptions, Task
from neuronbert.tasks.line_formats import FORMATS
from neuronbert.tasks.lines import Entry, SkippedLine
from neuronbert.tasks.result_files import RESULT_FILES


@dataclass(frozen=True)
class Rules:
    """How a job's entries are read, its batches cut and its results written; formats are called by their names."""

    reads: str
    writes: str
    encode_options: EncodeOptions
    decode_options: DecodeOptions
    columns: Columns
    on_error: str
    plan: ThroughputPlan


class Block(NamedTuple):
    """Entries that are answered together."""

    entries: List[Entry]
    rules: Rules


class CutBlock(NamedTuple):
    """A block as rows, in the order of its lines, a round after the other (engine/rounds.py)."""

    prepared: List[PreparedLine]
    skipped: List[SkippedLine]
    rounds: Rounds

    def batches(self, plan: ThroughputPlan) -> List[List[int]]:
        """The batches of this round: the numbers of the rows in each."""
        return plan_batches([len(row.input_ids) for row in self.rounds.rows], plan)

    def batch(self, rows: List[int], pad_id: int) -> Batch:
        """Rows of these numbers, stacked."""
        return collate([self.rounds.rows[number] for number in rows], pad_id)

    def outputs(self, rows: List[int], outputs: Outputs, specs: Tuple[Output, ...]) -> Dict[int, Outputs]:
        """Those of a batch by the numbers of its rows, without padding."""
        lengths = [len(self.rounds.rows[number].input_ids) for number in rows]
        return {number: row_of(outputs, specs, place, lengths[place]) for place, number in enumerate(rows)}

    def share(self, answered: int) -> float:
        """The share of the block's rows that is done, where ``answered`` of this round are."""
        return (self.rounds.settled_rows + answered) / self.rounds.total_rows


class Part(NamedTuple):
    """What a block adds to the output, as bytes and counts."""

    data: bytes
    answered: int
    skipped: List[SkippedLine]
    unsaid: List[Tuple[int, str]]  # numbers of lines, and what the output cannot say of their results


def cut_block(block: Block, task: Task, tokenizer: Tokenizer) -> CutBlock:
    """Tokenise a block. InputError for the first broken line, unless such lines are skipped; UsageError for options."""
    rules = block.rules

    def check_result(options: DecodeOptions) -> None:
        if options != rules.decode_options:  # most lines set none of these
            RESULT_FILES[rules.writes].check_line(rules.columns, task.columns(tokenizer.config, options))

    prepared, skipped = prepare_lines(
        task,
        tokenizer,
        block.entries,
        rules.encode_options,
        rules.decode_options,
        on_error=rules.on_error,
        line_format=FORMATS[rules.reads],
        check_result=check_result,
    )
    rounds = Rounds(task, [line.example for line in prepared], [line.options for line in prepared])
    return CutBlock(prepared, skipped, rounds)


def part_of(cut: CutBlock, rules: Rules, task: Task) -> Part:
    """The part of the output of a block whose rounds are over.

    BackendFailed naming the first line with a row that failed, unless those are skipped.
    """
    documents: List[Document] = []
    skipped = list(cut.skipped)
    for number, line in enumerate(cut.prepared):
        error = cut.rounds.errors[number]
        if error is None:
            result = task.decode(*cut.rounds.read(number), line.options)
            documents.append(result_of(task, line, result))
        elif rules.on_error == "skip":
            skipped.append(SkippedLine(line.line.line_number, _reason_of(error), line.line.id))
        else:
            raise BackendFailed(
                f"line {line.line.line_number}: {error.message}",
                hint="--on-error skip writes an error in place of such a result",
            )
    skipped.sort()
    writes, errors = RESULT_FILES[rules.writes], (line.document() for line in skipped)
    data = writes.part([*merge(documents, errors, key=itemgetter("line"))], rules.columns)
    unsaid = [(document["line"], writes.unsaid(document)) for document in documents]
    return Part(data, len(documents), skipped, [(number, what) for number, what in unsaid if what])


def _reason_of(error: NeuronBertError) -> str:
    """Why a line has no result, for the output: the same words in every run."""
    if isinstance(error, PoisonRequest):  # which numbers the request, and the workers that died
        return "the workers that read it died"
    return error.message


def answer_block(block: Block, engine: Engine, run: Callable[[Batch, float], Outputs]) -> Part:
    """A block answered by ``run``, which is given each batch, and the share of the block's rows that is then done."""
    cut = cut_block(block, engine.task, engine.tokenizer)
    while cut.rounds.rows:
        outputs: Dict[int, Outputs] = {}
        for rows in cut.batches(block.rules.plan):
            found = run(cut.batch(rows, engine.tokenizer.pad_id), cut.share(len(outputs) + len(rows)))
            outputs.update(cut.outputs(rows, found, engine.specs))
        cut.rounds.give(outputs)
    return part_of(cut, block.rules, engine.task)
