"""What a task must provide to be compared, as a Protocol, and what its contenders are made of; TASKS lists the tasks.

The modules run in every peer's environment, where neither neuronbert nor the other peers are: imports of anything but
the standard library and these modules are inside the functions. What a contender is asked, and what it answers, goes
from process to process as JSON.
"""

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Protocol, Sequence, Tuple

# Values that only the task itself looks into, JSON as they stand.
Input = Any  # what is asked once: a question with its context, a text
Answer = Any
Gold = Any

Make = Callable[[Path, Path, Sequence[Input]], None]  # (checkpoint, new folder, inputs to calibrate with)

US = "neuronbert"
OURS = (US, "neuronbert-fp32")  # contenders that are given an artifact


class Job(NamedTuple):
    """Where a contender finds what it needs."""

    model: Path  # a checkpoint folder, float32; for neuronbert an artifact
    prepared: Path  # the folder of its export, where it has one
    threads: int


class Loaded(NamedTuple):
    """A model ready to answer: ``answer(inputs, mode)`` gives an answer for each, in order."""

    answer: Callable[[Sequence[Input], str], Any]
    facts: Dict[str, Any]


class Export(NamedTuple):
    """What a contender makes of a checkpoint once, in a process of its own; kept for the next run."""

    name: str  # contenders that name the same one share it
    environment: str
    make: Make
    is_calibrated: bool = False  # depends on the inputs to calibrate with


class Contender(NamedTuple):
    """One line of the table.

    ``modes`` are measured in every round, the first one being the contender's default; of each group of ``probed`` only
    the mode that was fastest in a short probe is.
    """

    environment: str
    modes: Tuple[str, ...]
    load: Callable[[Job], Loaded]
    probed: Tuple[Tuple[str, ...], ...] = ()
    export: Optional[Export] = None
    compile_options: Tuple[str, ...] = ()  # of OURS


class Model(NamedTuple):
    """A model that is measured."""

    note: str
    is_trained: bool = True  # of random weights neither our gate nor a figure means anything


class Figure(NamedTuple):
    """How good answers are, as reports and tables have it."""

    key: str
    name: str
    unit: str = ""
    scale: float = 1.0  # what `neuronbert evaluate` is multiplied with
    decimals: int = 1

    @property
    def label(self) -> str:
        """A table's heading."""
        return f"{self.name}, {self.unit}" if self.unit else self.name


class PeerTask(Protocol):
    """A task module."""

    NAME: str  # of transformers' pipeline
    UNIT: str  # what is counted: "question" makes "questions_per_s"
    DATA: Optional[Path]  # asked where no file is named; None: one has to be
    COUNT: int  # of inputs that are asked where no number is named
    PARTS: Tuple[str, ...]  # what can be measured: speed, start, accuracy
    MODELS: Mapping[str, Model]
    MAIN_MODEL: str  # the trained one
    CONTENDERS: Mapping[str, Contender]
    FIGURES: Tuple[Figure, ...]  # the first is measured of every contender, all of them by `neuronbert evaluate`
    # model → what is compared with → the least ratio: "best peer", "int8 GEMM", a contender, or "contender mode"
    SPEED_TARGETS: Mapping[str, Mapping[str, float]]
    MOST_LOST: float  # of the first figure, by the variant that auto chose
    HEAD_SIZES: int  # multiply-adds of the head for each token, in hidden sizes; 0 where it sees one token of a text

    # ---- in the parent, which has neuronbert

    def refuse_model(self, model: Path) -> None:
        """InputError for a checkpoint of the caller's that contenders could not all run, or would not run alike."""

    def read(self, data: Path, count: int) -> List[Input]:
        """The inputs of a data file, at most ``count``."""

    def calibration(self, data: Optional[Path]) -> List[Input]:
        """What int8 is calibrated with: inputs of ``data``, or of the text that neuronbert ships."""

    def start_commands(self, pythons: Mapping[str, Path], model: Path, artifact: Path) -> Dict[str, List[str]]:
        """Contender → command that loads a model and answers once; empty where "start" is not one of PARTS."""

    # ---- in a child

    def make_model(self, name: str, folder: Path, source: Path, seed: int) -> None:
        """Write the model called ``name`` into ``folder`` in float32 (needs torch and transformers).

        ``source`` is a checkpoint: the model itself, or of random weights where the tokenizer is from.
        """

    def plain(self, answers: Any) -> List[Answer]:
        """What a contender answered, as JSON."""

    def count_tokens(self, model: Path, inputs: Sequence[Input]) -> List[int]:
        """Tokens of every row, without padding (needs neuronbert)."""

    def golds(self, data: Path, count: int, model: Path) -> Optional[List[Gold]]:
        """What is right for each of the inputs that ``read`` gives (needs neuronbert); None: the data does not say."""

    def scores(self, golds: Optional[Sequence[Gold]], answers: Mapping[str, Sequence[Answer]]) -> Dict[str, float]:
        """Contender → the first figure of its answers (needs neuronbert)."""
