"""What a task must provide, as a typed Protocol: how inputs become rows of tokens, and arrays become results.

Everything above (artifact, engine, compiler, runner, benchmark) works through this Protocol and knows no task by name.
"""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple, Type

import numpy as np

from neuronbert.backends.outputs import Output, Outputs
from neuronbert.checkpoint.families import Head
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import UsageError

NOT_FINITE = "its logits hold NaN or Inf"  # why the gate refuses such a variant
# FP32 variants compute the same function: only the order of additions differs.
FP32_MAX_ABS_DIFF = 1e-3
# Reduced precision: MLPerf inference's rule is 99 % of the FP32 accuracy.
DEFAULT_MIN_F1_RATIO = 0.99
DEFAULT_MIN_ANSWER_F1 = 0.90

# What is asked and answered is each task's own: a pair of texts and ranked answers, a text and labels, …
Input = Any
Result = Any
EncodeOptions = Any  # an instance of the task's ENCODE_OPTIONS
DecodeOptions = Any  # an instance of its DECODE_OPTIONS
Labelled = Any  # an input of a data file, with what is right for it


class Row(Protocol):
    """One row for the model, unpadded: int64 arrays of shape [tokens]."""

    @property
    def input_ids(self) -> np.ndarray: ...

    @property
    def token_type_ids(self) -> np.ndarray: ...


class Example(Protocol):
    """An input as the rows that the model sees, and whatever ``decode`` needs to know of it."""

    @property
    def windows(self) -> Sequence[Row]: ...


class Answerer(Protocol):
    """What a task's pipeline asks: an Engine, to which the tasks are below."""

    tokenizer: Tokenizer

    def answer(
        self, inputs: Sequence[Input], window_options: EncodeOptions = None, answer_options: DecodeOptions = None
    ) -> List[Result]:
        """The result of each input, in order."""


class Table(NamedTuple):
    """Rows of cells for a person; the command line lays them out."""

    rows: Sequence[Sequence[str]]
    header: Optional[Sequence[str]] = None


class LineForm(NamedTuple):
    """How a task's inputs stand in a file of JSON lines."""

    noun: str  # what one input is called
    hint: str  # the form of a line, in words
    example: str  # the shortest line
    keywords: Mapping[str, type]  # the options that a line may set for itself, by type: int, float, bool or str
    fault: Callable[[Mapping[str, Any]], Optional[str]]  # what is wrong with a line's fields, in words
    input: Callable[[Mapping[str, Any]], Input]  # of a line without a fault


class Agreement(Protocol):
    """How a variant's results compare with the FP32 reference's."""

    def as_dict(self) -> Dict[str, Any]:
        """Every figure, for JSON."""

    def entry(self) -> Dict[str, Any]:
        """The manifest's ``agreement`` and ``accuracy`` of the variant."""


@dataclass(frozen=True)
class GateLimits:
    """What a reduced-precision variant must reach; UsageError for what is not a number from 0 to 1."""

    min_f1_ratio: float = DEFAULT_MIN_F1_RATIO
    min_answer_f1: float = DEFAULT_MIN_ANSWER_F1

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            if not (number and 0 <= value <= 1):  # false for NaN too
                raise UsageError(
                    f"{name} must be a number from 0 to 1, not {value!r}",
                    hint=f"{name}={getattr(GateLimits, name):g}, or leave it out",
                )


class GateQuestions(NamedTuple):
    """What the gate asks, and the files that it and calibration come from."""

    calibration: List[Labelled]
    asked: List[Labelled]
    shipped: List[Labelled]  # of the package: the same in every artifact
    calibration_file: Path
    asked_files: List[Path]


class TaskGate(Protocol):
    """What the gate measures."""

    def questions(self, gate_data: Any, calibration_data: Any, skipped: bool) -> GateQuestions:
        """From files of the user's, filled up from the shipped ones.

        InputError for too few to mean anything, unless the gate is ``skipped``.
        """

    def inputs(self, labelled: Sequence[Labelled]) -> List[Input]:
        """What is asked, without what is right."""

    def judge(self, labelled: Sequence[Labelled], examples: Sequence[Any], outputs: Sequence[Outputs]) -> Any:
        """The results of one session on all rows of the examples, as ``compare`` takes them."""

    def compare(self, labelled: Sequence[Labelled], judged: Any, reference: Any) -> Agreement:
        """How what one session made of the questions agrees with what the reference made of them."""

    def refusals(self, precision: str, agreement: Any, limits: GateLimits) -> List[str]:
        """Why a variant is refused, in words; empty if it passes."""


class TaskFigures(Protocol):
    """What the gate measured, as text: a module of its own, so that ``inspect`` imports no tokenizer."""

    def agreement_text(self, agreement: Mapping[str, Any]) -> str:
        """An Agreement's ``as_dict`` in one line."""

    def columns(self, variant: Mapping[str, Any]) -> Dict[str, str]:
        """Heading → cell: what ``inspect`` shows of a variant's agreement and accuracy."""


class TaskEvaluation(Protocol):
    """One evaluation on a data file: what is asked, how results are read, and the report."""

    @property
    def inputs(self) -> List[Input]:
        """What is asked, in order."""

    decode_options: DecodeOptions

    def options_for(self, tokenizer: Tokenizer) -> EncodeOptions:
        """The rows that an artifact can read, so that whoever it is compared with reads the same ones."""

    def refuse(self, tokenizer: Tokenizer, first: int, count: int, options: EncodeOptions) -> None:
        """Raise InputError, by its name, for the first of some inputs that cannot be encoded."""

    def read(self, example: Any, outputs: Sequence[Outputs]) -> Any:
        """What is kept of one result."""

    def report(self, read: Sequence[Any], **facts: Any) -> Any:
        """The task's report, a frozen dataclass with ``as_dict``, and ``tables`` for a person."""

    def compared(self, report: Any, read: Sequence[Any], against: str, other: Sequence[Any]) -> Any:
        """The report with how its results differ from those of ``against``."""


class Task(Protocol):
    """A task module. ``NAME`` is that of transformers' pipeline; the table in ``tasks`` lists it."""

    NAME: str
    HEAD: Head
    OUTPUTS: Tuple[Output, ...]  # what the graph returns, in order
    ENCODE_OPTIONS: Type[Any]  # frozen dataclass of keywords: how inputs become rows
    DECODE_OPTIONS: Type[Any]  # frozen dataclass of keywords: how arrays become results
    MODEL_OUTPUT: Callable[..., Any]  # a NamedTuple of OUTPUTS: what the task's model class gives
    LINES: LineForm

    # ---- inputs

    def call_input(self, *inputs: Any, **keywords: Any) -> Tuple[Input, Dict[str, Any]]:
        """The input of a call such as ``Runner.submit``, and the keywords that are left; TypeError as for any call."""

    def call_arguments(self, asked: Input) -> Sequence[str]:
        """The texts of an input, as ``call_input`` takes them."""

    def encode(self, tokenizer: Tokenizer, inputs: Sequence[Input], options: EncodeOptions) -> Sequence[Example]:
        """Every input as rows; InputError for one that cannot be asked."""

    def check_options(self, tokenizer: Tokenizer, options: EncodeOptions) -> None:
        """UsageError for options that fit no input at all."""

    def bucket_options(self, tokens: Optional[int]) -> EncodeOptions:
        """Rows of ``tokens`` at most, a bucket's; None: the defaults."""

    def read_inputs(self, path: Any) -> List[Input]:
        """The inputs of a JSONL or data file, without what is right for them; None: of the shipped file."""

    def full_rows(self, tokenizer: Tokenizer, inputs: Sequence[Input], tokens: int, count: int) -> List[Row]:
        """At most ``count`` rows of exactly ``tokens``, of the inputs' text; InputError when there is too little."""

    # ---- results

    def decode(self, example: Any, outputs: Sequence[Outputs], options: DecodeOptions) -> Result:
        """The result of an example; one Outputs for each of its rows, without padding."""

    def call_result(self, result: Result) -> Any:
        """A result as ``pipeline`` and ``Runner.submit`` give it."""

    def json_result(self, result: Result, options: DecodeOptions) -> Dict[str, Any]:
        """A result as a line of JSON has it."""

    def result_text(self, result: Result) -> str:
        """A result for a person."""

    # ---- what is made of the task: each imports its module on use

    def pipeline(self, model: Answerer, **keywords: Any) -> Any:
        """The stand-in for transformers' pipeline of this name."""

    def gate(self) -> TaskGate:
        """What compile's gate measures."""

    def evaluation(
        self, data: Any, limit: Optional[int], window_options: EncodeOptions, answer_options: DecodeOptions
    ) -> TaskEvaluation:
        """An evaluation on the file ``data``, on its first ``limit`` inputs."""


def option_kinds(task: Task) -> Tuple[Type[Any], Type[Any]]:
    """The classes of a task's options: how inputs become rows, how arrays become results."""
    return task.ENCODE_OPTIONS, task.DECODE_OPTIONS


def option_names(kinds: Sequence[Type[Any]]) -> Tuple[str, ...]:
    """Every keyword of the classes."""
    return tuple(field.name for kind in kinds for field in fields(kind))


def options_of(kinds: Tuple[Type[Any], Type[Any]], keywords: Mapping[str, Any]) -> Tuple[EncodeOptions, DecodeOptions]:
    """Keywords of both kinds as what they are; one that is None keeps its default. TypeError for another name."""
    encode, decode = kinds
    given = {name: value for name, value in keywords.items() if value is not None}
    own = {name: given.pop(name) for name in option_names([encode]) if name in given}
    return encode(**own), decode(**given)
