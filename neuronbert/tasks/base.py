"""What a task must provide, as Protocols: how inputs become rows of tokens, and how the model's outputs become results.

Everything above (artifact, engine, compiler, runner, benchmark) works through them and knows no task by name.
"""

import os
from dataclasses import dataclass, fields
from enum import Enum
from pathlib import Path
from typing import (
    Any,
    Callable,
    Dict,
    FrozenSet,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Protocol,
    Sequence,
    Tuple,
    Type,
    Union,
)

import numpy as np

from neuronbert.backends.base import Variant
from neuronbert.backends.outputs import Output, Outputs
from neuronbert.checkpoint.families import Config, Head
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError, as_real, shown_value
from neuronbert.tasks.option import Verb

NOT_FINITE = "its logits hold NaN or Inf"  # why the gate refuses such a variant
# An FP32 variant computes the same function as the reference: only the order of additions differs.
FP32_MAX_ABS_DIFF = 1e-3
# What the gate is told in place of the precision of a model that was cut, whatever it computes in.
REDUCED = "reduced"
# Reduced precision: MLPerf inference's rule is 99 % of the FP32 accuracy.
DEFAULT_MIN_F1_RATIO = 0.99
DEFAULT_MIN_ANSWER_F1 = 0.90

PathLike = Union[str, "os.PathLike[str]"]
Document = Dict[str, Any]  # a JSON object
Keywords = Mapping[str, Any]  # of a call

# Values that only the task itself looks into: everyone else hands them from one of its functions to another.
Input = Any  # such as a question with its context
Result = Any  # such as ranked answers
EncodeOptions = Any  # an instance of the task's ENCODE_OPTIONS
DecodeOptions = Any  # an instance of its DECODE_OPTIONS
Labelled = Any  # an input of a data file, with the right result
TaskExample = Any  # an Example that its ``encode`` made
Judged = Any  # one session's results on the gate's questions
TaskAgreement = Any  # an Agreement that its gate made
Reading = Any  # what its evaluation keeps of one result
TaskReport = Any  # a Report that its evaluation made


class Row(Protocol):
    """One row for the model, unpadded: int64 arrays of shape [tokens]."""

    @property
    def input_ids(self) -> np.ndarray: ...

    @property
    def token_type_ids(self) -> np.ndarray: ...


class Example(Protocol):
    """An input as the rows that the model sees, and whatever else ``decode`` needs."""

    @property
    def windows(self) -> Sequence[Row]: ...


class Answerer(Protocol):
    """What a task's pipeline needs of an Engine, which is in a folder above the tasks."""

    tokenizer: Tokenizer

    def answer(
        self, pairs: Sequence[Input], window_options: EncodeOptions = None, answer_options: DecodeOptions = None
    ) -> List[Result]:
        """The result of each input, in order."""


class Table(NamedTuple):
    """Rows of cells for a person to read; the command line lays them out."""

    rows: Sequence[Sequence[str]]
    header: Optional[Sequence[str]] = None


class ColumnType(Enum):
    """What one key of a result holds, where a result has that key."""

    TEXT = "text"
    NUMBER = "number"
    WHOLE = "whole number"
    FLAG = "true or false"
    OBJECTS = "list of objects"
    VECTOR = "list of numbers"
    VECTORS = "list of lists of numbers"


class Column(NamedTuple):
    """One key of results; of a VECTOR how many numbers it has, unless a line asks for fewer."""

    type: ColumnType
    width: int = 0


Columns = Mapping[str, Column]  # by key, in the order of the columns of a table


class LineForm(NamedTuple):
    """The form of a task's inputs in a file of JSON lines, or of a table, whose header has the keys of a line."""

    noun: str  # what one input is called
    hint: str  # describes the form of a line
    example: str  # the shortest possible line
    keywords: Mapping[str, type]  # the options that a line may set for itself, by type: int, float, bool or str
    fault: Callable[[Document], Optional[str]]  # says what is wrong with a line's fields; None: nothing
    input: Callable[[Document], Input]  # reads a line without a fault
    needs: Tuple[
        Tuple[str, ...], ...
    ]  # the keys of a line; several sets of them where a line may be one thing or another
    lists: Tuple[str, ...] = ()  # the keys whose value is a list of texts
    may_have: Tuple[str, ...] = ()  # the keys of texts that a line may leave out


class Agreement(Protocol):
    """How a variant's results compare with the FP32 reference's."""

    def as_dict(self) -> Document:
        """Every figure, for JSON."""

    def entry(self) -> Document:
        """The manifest's ``agreement`` and ``accuracy`` of the variant."""

    @property
    def known(self) -> int:
        """Of how many inputs the accuracy is that may stand in for FP32's own results; 0: of none."""


@dataclass(frozen=True)
class GateLimits:
    """What a reduced-precision variant must reach; UsageError for anything but numbers from 0 to 1.

    They are compile's two options, named for F1; a gate that measures something else takes them for its own shares, and
    has defaults of its own for those.
    """

    min_f1_ratio: float = DEFAULT_MIN_F1_RATIO
    min_answer_f1: float = DEFAULT_MIN_ANSWER_F1

    def __post_init__(self) -> None:
        for name, value in list(vars(self).items()):
            number = as_real(value)
            if number is None or not 0 <= number <= 1:
                raise UsageError(
                    f"{name} must be a number from 0 to 1, not {shown_value(value)}",
                    hint=f"{name}={getattr(GateLimits, name):g}, or leave it out",
                )
            object.__setattr__(self, name, number)


def asked_limits(min_f1_ratio: Optional[float], min_answer_f1: Optional[float]) -> Dict[str, float]:
    """Those of GateLimits' that a person asks for; the others are the gate's own. UsageError for what is no limit."""
    asked = {"min_f1_ratio": min_f1_ratio, "min_answer_f1": min_answer_f1}
    limits = {name: value for name, value in asked.items() if value is not None}
    GateLimits(**limits)
    return limits


class GateQuestions(NamedTuple):
    """The inputs for calibration and for the gate, and the files that they are from."""

    calibration: List[Labelled]
    asked: List[Labelled]  # what the gate asks
    shipped: List[Labelled]  # those that the task ships: the same for every artifact
    calibration_file: Path
    asked_files: List[Path]


class TaskGate(Protocol):
    """How the gate judges variants."""

    LIMITS: GateLimits  # where a person asks for none

    def questions(
        self, gate_data: Optional[PathLike], calibration_data: Optional[PathLike], skipped: bool
    ) -> GateQuestions:
        """The questions of the user's files, filled up from the shipped ones.

        InputError when there are too few to mean anything, unless the gate is ``skipped``.
        """

    def inputs(self, labelled: Sequence[Labelled]) -> List[Input]:
        """The inputs alone, without the right results."""

    def judge(
        self, labelled: Sequence[Labelled], examples: Sequence[TaskExample], outputs: Sequence[Outputs]
    ) -> Judged:
        """The results of one session, from its outputs for all rows of the examples, as ``compare`` takes them."""

    def compare(self, labelled: Sequence[Labelled], judged: Judged, reference: Judged) -> Agreement:
        """How the results of one session agree with those of the reference."""

    def refusals(self, precision: str, agreement: TaskAgreement, limits: GateLimits) -> List[str]:
        """The reasons why a variant is refused; empty if it passes.

        ``precision`` is the variant's, or REDUCED: only of "fp32" are the reference's own numbers expected.
        """


class SelectingGate(TaskGate, Protocol):
    """The gate of a task with a ROW_SELECTION: it measures what reading only some rows costs."""

    def long_inputs(self, labelled: Sequence[Labelled]) -> Sequence[Labelled]:
        """Questions of many rows each, made of the gate's; InputError where there is too little text."""

    def decode_options(self, labelled: Sequence[Labelled]) -> DecodeOptions:
        """How ``judge`` makes results."""

    def judge_whole(
        self, labelled: Sequence[Labelled], examples: Sequence[TaskExample], outputs: Sequence[Outputs]
    ) -> Sequence[Judged]:
        """``judge`` of all rows, in each way in which a user may have the results of many rows compared."""

    def accuracy(self, labelled: Sequence[Labelled], judged: Judged) -> float:
        """How good the results are, in percent."""


class Reduction(Protocol):
    """What the runner's workers make of rows' outputs, of which ``decode`` needs little.

    The one process that serves all callers then has less to read and to do.
    """

    OUTPUTS: Tuple[Output, ...]  # what is left of a row, arrays of any numbers; by other names than the model's

    def wanted_of(self, example: TaskExample, options: DecodeOptions) -> Sequence[Optional[Tuple[int, ...]]]:
        """What ``decode`` needs of each of the example's rows; None: the outputs as they are.

        Whole numbers, of every row of every example as many.
        """

    def reduce(self, outputs: Outputs, wanted: np.ndarray) -> Outputs:
        """What is left of some rows of a batch; ``wanted`` is int64 of shape [rows, numbers].

        What it raises fails the batch, and then each of its requests that fails alone too.
        """


class RowSelection(Protocol):
    """Which of an example's rows are read, where not all have to be: in rounds (engine/rounds.py)."""

    def next_rows(self, example: TaskExample, read: Mapping[int, Outputs], options: DecodeOptions) -> Sequence[int]:
        """Numbers of the rows to read next; none where ``decode`` has enough in those that are ``read``."""

    def narrowed(self, example: TaskExample, rows: Sequence[int]) -> TaskExample:
        """The example with the rows of these numbers alone, as ``decode`` takes it."""


class TaskKeywords(Protocol):
    """A task's keywords and verbs: in a module of its own, so that ``--help`` imports neither numpy nor tokenizer."""

    ENCODE_OPTIONS: Type[EncodeOptions]  # frozen dataclass of keywords: how inputs become rows
    DECODE_OPTIONS: Type[DecodeOptions]  # frozen dataclass of keywords: how outputs become results
    VERBS: Tuple[Verb, ...]  # its commands; the first is what an error names
    EVALUATION: str  # a sentence for ``evaluate --help``: which data, and what is measured
    OFFERS: Tuple[str, ...]  # the most of other protocols' questions (tasks/offers.py) that a checkpoint of it answers


class TaskFigures(Protocol):
    """The gate's figures as text: in a module of its own, so that ``inspect`` imports no tokenizer."""

    def agreement_text(self, agreement: Document) -> str:
        """An Agreement's ``as_dict`` in one line."""

    def columns(self, variant: Variant) -> Dict[str, str]:
        """Heading → cell: what ``inspect`` shows of a variant's agreement and accuracy."""


class Report(Protocol):
    """What an evaluation measured: a frozen dataclass of the task's."""

    def as_dict(self) -> Document:
        """Every figure, for JSON."""

    def tables(self) -> Sequence[Union[str, Table]]:
        """Lines and tables for a person."""


class TaskEvaluation(Protocol):
    """One evaluation on a data file: its inputs, how results are read, and the report."""

    @property
    def inputs(self) -> List[Input]:
        """The file's inputs, in order."""

    def options_for(self, tokenizer: Tokenizer) -> EncodeOptions:
        """Options for rows that an artifact can read."""

    def for_other(self, config: Config, options: EncodeOptions) -> Tuple["TaskEvaluation", EncodeOptions]:
        """The evaluation and the options for what is compared with, whose config.json is ``config``.

        ``options`` are the artifact's (``options_for``). Asked before either reads a row: UsageError where the two
        cannot be compared.
        """

    def refuse(self, tokenizer: Tokenizer, first: int, count: int, options: EncodeOptions) -> None:
        """Raise InputError naming the first of ``count`` inputs, from number ``first`` on, that cannot be encoded."""

    def read(self, example: TaskExample, outputs: Sequence[Outputs]) -> Reading:
        """What is kept of one result."""

    def report(self, readings: Sequence[Reading], **facts: Any) -> Report:
        """The task's report; ``facts`` are its fields that no result changes."""

    def compared(
        self, report: TaskReport, readings: Sequence[Reading], against: str, against_readings: Sequence[Reading]
    ) -> Report:
        """The report, with how its results differ from those of ``against``."""


class Task(Protocol):
    """A task module. ``NAME`` is the name of transformers' pipeline for it; the table in ``tasks`` lists it."""

    NAME: str
    HEAD: Head
    ENCODE_OPTIONS: Type[EncodeOptions]  # those of its TaskKeywords
    DECODE_OPTIONS: Type[DecodeOptions]
    MODEL_OUTPUT: Callable[..., Any]  # makes the NamedTuple that the task's model class returns, of the outputs by name
    LINES: LineForm
    REDUCTION: Optional[Reduction]  # None: ``decode`` needs the outputs as they are
    ROW_SELECTION: Optional[RowSelection]  # None: all rows are read at once

    def outputs(self, config: Config) -> Tuple[Output, ...]:
        """What the graph of a checkpoint with this config.json returns, in order."""

    def meaning(self, config: Config) -> Dict[str, str]:
        """What its results are read by, in words: the same of two checkpoints whose outputs mean the same."""

    # ---- inputs

    def call_input(self, *inputs: Any, **keywords: Any) -> Tuple[Input, Keywords]:
        """The input of a call such as ``Runner.submit``, and the keywords that are left; TypeError as for any call."""

    def call_arguments(self, asked: Input) -> Sequence[Any]:
        """The texts of an input, each a str or a list of them, as ``call_input`` takes them."""

    def encode(self, tokenizer: Tokenizer, inputs: Sequence[Input], options: EncodeOptions) -> Sequence[Example]:
        """Every input as rows; InputError for one that cannot be asked."""

    def check_options(self, tokenizer: Tokenizer, encode: EncodeOptions, decode: DecodeOptions) -> None:
        """UsageError for options that fit no input at all."""

    def bucket_options(self, tokens: Optional[int]) -> EncodeOptions:
        """Options for rows of ``tokens`` at most, a bucket's; None: the defaults."""

    def read_inputs(self, path: Optional[PathLike]) -> List[Input]:
        """The inputs of a JSONL or data file, without the right results; None: of the shipped file."""

    def full_rows(self, tokenizer: Tokenizer, inputs: Sequence[Input], tokens: int, count: int) -> List[Row]:
        """At most ``count`` rows of exactly ``tokens``, from the inputs' text; InputError when there is too little."""

    # ---- results

    def decode(self, example: TaskExample, outputs: Sequence[Outputs], options: DecodeOptions) -> Result:
        """The result of an example, from each row's outputs, without padding, or from what REDUCTION left of them."""

    def is_slow_to_decode(self, example: TaskExample, options: DecodeOptions) -> bool:
        """Whether ``decode`` may take longer than about 0.05 s: the runner does it where nobody else waits for it."""

    def call_result(self, result: Result) -> Any:
        """A result as ``pipeline`` and ``Runner.submit`` return it."""

    def json_result(self, result: Result, options: DecodeOptions) -> Document:
        """A result as a line of JSON."""

    def columns(self, config: Config, options: DecodeOptions) -> Columns:
        """Every key that ``json_result`` may give under these options, whatever a line sets for itself.

        ``config`` is the checkpoint's config.json.
        """

    def result_text(self, result: Result) -> str:
        """A result as text for a person."""

    # ---- objects of the task: each function imports its module on use

    def pipeline(self, model: Answerer, **keywords: Any) -> Any:
        """The stand-in for transformers' pipeline of this name."""

    def gate(self, config: Config) -> TaskGate:
        """The task's part of compile's gate, for a checkpoint with this config.json."""

    def evaluation(
        self, data: PathLike, limit: Optional[int], window_options: EncodeOptions, answer_options: DecodeOptions
    ) -> TaskEvaluation:
        """An evaluation on the file ``data``, on its first ``limit`` inputs."""


class Asked(NamedTuple):
    """What a body asks for, and how it is answered."""

    inputs: Sequence[Input]  # as Runner.prepare takes them
    keywords: Keywords  # of the task's options
    answer: Callable[[Sequence[Any]], Any]  # of the result of each input the value that is sent, as msgspec encodes it


class TaskHttp(Protocol):
    """What a task's artifacts can be asked over HTTP: a module of its own, for it needs what only the server needs.

    ``BODY`` and ``asked`` are the form of Hugging Face's inference API.
    """

    BODY: Any  # the type that msgspec decodes a body as
    EXAMPLE: Any  # a body, for /openapi.json and the page

    def offers(self, config: Config) -> FrozenSet[str]:
        """Which of the task's OFFERS a checkpoint with this config.json answers."""

    def asked(self, body: Any) -> Asked:
        """What ``body``, a BODY, asks for."""


OptionKinds = Tuple[Type[EncodeOptions], Type[DecodeOptions]]


def option_kinds(task: Task) -> OptionKinds:
    """The classes of a task's options: how inputs become rows, and how outputs become results."""
    return task.ENCODE_OPTIONS, task.DECODE_OPTIONS


def option_names(kinds: Iterable[type]) -> Tuple[str, ...]:
    """Every keyword of the classes."""
    return tuple(field.name for kind in kinds for field in fields(kind))


def options_of(kinds: OptionKinds, keywords: Keywords) -> Tuple[EncodeOptions, DecodeOptions]:
    """Keywords of both kinds as options; one that is None keeps its default. UsageError for an unknown name."""
    encode, decode = kinds
    decode_keywords = {name: value for name, value in keywords.items() if value is not None}
    known = sorted(option_names(kinds))
    unknown = sorted(set(decode_keywords).difference(known))
    if unknown:
        raise UsageError(f"there is no keyword {unknown[0]!r}", hint=f"one of {', '.join(known)}")
    encode_keywords = {name: decode_keywords.pop(name) for name in option_names([encode]) if name in decode_keywords}
    return encode(**encode_keywords), decode(**decode_keywords)
