"""Turns the options of a compilation for inf1 into buckets, a core layout and neuron-cc's arguments, for compiler.

Pure: nothing is imported that needs a device, torch or the compiler.
"""

from dataclasses import dataclass
from typing import List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from neuronbert.backends.base import Bucket, Recipe, Variant
from neuronbert.errors import LARGEST_COUNT, ArtifactError, UsageError, as_whole, counted, positive, shown_value
from neuronbert.hardware.cores import (
    DATA_PARALLEL,
    GIB,
    MODES,
    PIPELINE,
    CoreLayout,
    MemoryEstimate,
    PipelineChoice,
    choose_pipeline_cores,
    instance_type,
    layout_for,
    require_device_memory,
)
from neuronbert.hardware.neuron import COMPILE_MEMORY_BYTES

DEFAULT_BATCH_SIZE = 1
DEFAULT_SEQUENCE_LENGTH = 384
DEFAULT_INSTANCE_TYPE = "inf1.xlarge"
SHORTEST_SEQUENCE = 16  # a shorter window holds no question and context
AUTO = "auto"
# Three hours of neuron-cc. A compile that succeeded has been seen to take 40 minutes (distilbart, aws-neuron-sdk#364);
# one that never will can go on for ever, its memory growing to 100 GB (aws-neuron-sdk#978, #352).
DEFAULT_COMPILER_TIMEOUT_S = 10_800

# A NeuronCore has no 32-bit matrix product (aws-neuron-sdk issue 765): what can be chosen is which operators are
# cast, and to which 16 bits. The default is the most accurate that AWS names there: only matrix products, to fp16,
# whose 11 significant bits beat bf16's 8, and no relayout through the matrix engine, which would cast what it moves.
# fp16 ends at 65504; where a model's activations go beyond, NaN and Inf are caught, and bf16 is what helps.
DEFAULT_AUTO_CAST = "matmul"
AUTO_CASTS = ("none", "matmul", "all", "compiler")
AUTO_CAST_TYPES = ("bf16", "fp16", "mixed")
FAST_MATH: Mapping[Tuple[str, str], Tuple[str, ...]] = {
    ("none", "bf16"): ("none",),  # means fp32-cast-matmult-bf16 no-fast-relayout
    ("matmul", "fp16"): ("fp32-cast-matmult-fp16", "no-fast-relayout"),
    ("matmul", "bf16"): ("fp32-cast-matmult-bf16", "no-fast-relayout"),
    ("matmul", "mixed"): ("fp32-cast-matmult", "no-fast-relayout"),
    ("all", "bf16"): ("all",),  # means fp32-cast-all fast-relayout, by the documentation the compiler's own default
    ("all", "fp16"): ("fp32-cast-all-fp16",),
    ("compiler", "bf16"): (),  # the option left out, as in AWS's tutorials and in most of its published figures
}
DEFAULT_TYPES = {"none": "bf16", "matmul": "fp16", "all": "bf16", "compiler": "bf16"}

Numbers = Union[int, str, Sequence[Union[int, str]]]


class NeuronPlan(NamedTuple):
    """What is compiled: a layout, the buckets that every core group loads, and why those."""

    layout: CoreLayout
    choice: Optional[PipelineChoice]  # None in data-parallel mode
    memory: MemoryEstimate
    buckets: Tuple[Bucket, ...]
    refused_cores: Tuple[int, ...] = ()  # pipeline sizes that the compiler refused

    def sentences(self, host_memory_bytes: int = 0) -> List[str]:
        """What a person is told before anything is compiled, of a small host too; 0 where that says nothing."""
        layout = self.layout
        how = "one model per core" if self.choice is None else self.choice.sentence()
        return [
            f"{layout.mode} on {layout.instance}: {how}; "
            f"{counted(layout.replicas, 'core group')}, {counted(layout.idle_cores, 'core')} idle",
            self.memory.sentence(),
            *([_small_host(host_memory_bytes)] if 0 < host_memory_bytes < COMPILE_MEMORY_BYTES else []),
        ]


@dataclass(frozen=True)
class NeuronTarget:
    """The checked options of a compilation for inf1. UsageError for contradictions and for what does not exist.

    ``pipeline_cores`` is None for ``auto``: the formula decides in pipeline mode, and 1 in data-parallel mode.
    ``compiler_timeout_s`` ends neuron-cc; None sets no limit.
    """

    batch_sizes: Tuple[int, ...] = (DEFAULT_BATCH_SIZE,)
    sequence_lengths: Tuple[int, ...] = (DEFAULT_SEQUENCE_LENGTH,)
    instance: str = DEFAULT_INSTANCE_TYPE
    mode: str = DATA_PARALLEL
    pipeline_cores: Optional[int] = None
    auto_cast: str = DEFAULT_AUTO_CAST
    auto_cast_type: Optional[str] = None
    compiler_timeout_s: Optional[int] = DEFAULT_COMPILER_TIMEOUT_S

    def __post_init__(self) -> None:
        cores = instance_type(self.instance).cores
        if self.mode not in MODES:
            raise UsageError(f"there is no mode {self.mode!r}", hint=f"--mode {' or '.join(MODES)}")
        if self.mode == DATA_PARALLEL and self.pipeline_cores not in (None, 1):
            raise UsageError(
                f"data-parallel runs one model per core, not one over {self.pipeline_cores} cores",
                hint="--mode pipeline, or leave out --neuroncore-pipeline-cores",
            )
        if self.pipeline_cores is not None:
            choose_pipeline_cores(1, cores, self.pipeline_cores)
        for length in self.sequence_lengths:
            if length < SHORTEST_SEQUENCE:
                raise UsageError(
                    f"--sequence-length {length} leaves no room for a question and its context",
                    hint=f"at least {SHORTEST_SEQUENCE} tokens; 128 and 384 are usual",
                )
        self._check_cast()

    def _check_cast(self) -> None:
        if self.auto_cast not in AUTO_CASTS:
            raise UsageError(f"there is no --auto-cast {self.auto_cast!r}", hint=f"one of {', '.join(AUTO_CASTS)}")
        if self.auto_cast_type not in (None, *AUTO_CAST_TYPES):
            raise UsageError(
                f"there is no --auto-cast-type {self.auto_cast_type!r}", hint=f"one of {', '.join(AUTO_CAST_TYPES)}"
            )
        if (self.auto_cast, self.cast_type) not in FAST_MATH:
            offered = [dtype for cast, dtype in FAST_MATH if cast == self.auto_cast]
            raise UsageError(
                f"neuron-cc has no --auto-cast {self.auto_cast} with --auto-cast-type {self.cast_type}",
                hint=f"--auto-cast {self.auto_cast} goes with {' or '.join(offered)}",
            )

    @classmethod
    def of(
        cls,
        batch_size: Numbers = DEFAULT_BATCH_SIZE,
        sequence_length: Numbers = DEFAULT_SEQUENCE_LENGTH,
        instance_type: str = DEFAULT_INSTANCE_TYPE,
        mode: str = DATA_PARALLEL,
        neuroncore_pipeline_cores: Union[int, str] = AUTO,
        auto_cast: str = DEFAULT_AUTO_CAST,
        auto_cast_type: Optional[str] = None,
        compiler_timeout_s: Optional[int] = DEFAULT_COMPILER_TIMEOUT_S,
    ) -> "NeuronTarget":
        """From the options as a person gives them: numbers, lists, ``"128,384"``, ``"auto"``, 0 for no time limit."""
        cores = None
        if neuroncore_pipeline_cores != AUTO:
            cores = numbers("--neuroncore-pipeline-cores", neuroncore_pipeline_cores)[0]
        return cls(
            numbers("--batch-size", batch_size),
            numbers("--sequence-length", sequence_length),
            instance_type,
            mode,
            cores,
            auto_cast,
            auto_cast_type,
            None if as_whole(compiler_timeout_s) == 0 else positive("--compiler-timeout", compiler_timeout_s),
        )

    @property
    def cast_type(self) -> str:
        return self.auto_cast_type or DEFAULT_TYPES[self.auto_cast]

    @property
    def precision(self) -> str:
        """What matrix products are computed in. The compiler's ``mixed`` is bf16 with some help."""
        return "fp16" if self.cast_type == "fp16" else "bf16"

    @property
    def asks_for_auto_cores(self) -> bool:
        return self.mode == PIPELINE and self.pipeline_cores is None

    def compiler_args(self, pipeline_cores: int) -> List[str]:
        """neuron-cc's arguments, each an element of its own, as its command line takes them."""
        pipeline = [] if pipeline_cores == 1 else ["--neuroncore-pipeline-cores", str(pipeline_cores)]
        casts = FAST_MATH[self.auto_cast, self.cast_type]
        return [*pipeline, *(["--fast-math", *casts] if casts else [])]

    def plan(self, encoder_parameters: int, refused_cores: Sequence[int] = ()) -> NeuronPlan:
        """The layout and buckets for a model; ``refused_cores`` are pipeline sizes the compiler has refused already.

        UsageError, with the numbers, when the copies of all buckets do not fit the chips' memory.
        """
        choice = None
        cores = 1
        if self.mode == PIPELINE:
            choice = choose_pipeline_cores(encoder_parameters, instance_type(self.instance).cores, self.pipeline_cores)
            cores = one_step_smaller(min(refused_cores)) if refused_cores else choice.cores
        layout = layout_for(self.instance, self.mode, cores)
        buckets = self.buckets(cores)
        memory = require_device_memory(layout, encoder_parameters, len(buckets))
        return NeuronPlan(layout, choice, memory, buckets, tuple(refused_cores))

    def buckets(self, cores: Optional[int] = None) -> Tuple[Bucket, ...]:
        """Every batch size with every sequence length, over ``cores`` NeuronCores each (None: on the CPU)."""
        return tuple(
            Bucket(batch, length, cores)
            for length in sorted(self.sequence_lengths)
            for batch in sorted(self.batch_sizes)
        )

    def recipe(self, plan: NeuronPlan, bucket: Bucket) -> Recipe:
        """How one bucket is compiled, for the backend and for the manifest."""
        return {
            "batch_size": bucket.batch_size,
            "sequence_length": bucket.sequence_length,
            "pipeline_cores": plan.layout.cores_per_model,
            "compiler_args": self.compiler_args(plan.layout.cores_per_model),
            "compiler_timeout_s": self.compiler_timeout_s,
            "auto_cast": self.auto_cast,
            "auto_cast_type": self.cast_type,
            "instance_type": self.instance,
            "mode": self.mode,
            "pipeline": plan.choice.sentence() if plan.choice else None,
            "refused_pipeline_cores": list(plan.refused_cores),
        }


def _small_host(memory_bytes: int) -> str:
    return (
        f"warning: neuron-cc may be killed for want of memory, of which this machine has {memory_bytes / GIB:.1f} GiB\n"
        "  try: compile on one with 32 GiB or more (c5.4xlarge), and copy the artifact to inf1"
    )


def one_step_smaller(cores: int) -> int:
    """The next smaller pipeline: the formula's steps of 4, and 1 below 4."""
    return max(1, 4 * ((cores - 1) // 4))


def numbers(option: str, value: Numbers) -> Tuple[int, ...]:
    """``128``, ``"128,384"`` or ``[128, "384"]`` as whole numbers of at least 1, without repetitions."""
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    parts = [part for item in items for part in (item.split(",") if isinstance(item, str) else [item])]
    wholes = []
    for part in parts:
        text = part.strip() if isinstance(part, str) else shown_value(part)
        number = int(text) if text.isdecimal() and len(text) <= 10 else None
        if isinstance(part, bool) or number is None or not 1 <= number <= LARGEST_COUNT:
            raise UsageError(f"{option} must be a whole number of at least 1, not {text!r}")
        wholes.append(number)
    if not wholes:
        raise UsageError(f"{option} needs a number")
    return tuple(dict.fromkeys(wholes))


def recorded_layout(variant: Variant, instance_type: Optional[str] = None) -> CoreLayout:
    """The layout that a variant of an artifact was compiled for, on ``instance_type`` if given.

    ArtifactError for a variant that was compiled for no cores.
    """
    recipe = variant["recipe"]
    if variant["pipeline_cores"] is None:
        raise ArtifactError(
            f"variant {variant['name']} says it is of the backend {variant['backend']}, and was compiled for no cores",
            hint="compile the checkpoint again",
        )
    return layout_for(instance_type or recipe["instance_type"], recipe["mode"], variant["pipeline_cores"])
