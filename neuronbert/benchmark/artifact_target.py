"""An artifact as what a sweep measures (targets.py): its points, and a runner for each of them (measure.py).

instances.py knows what there is room for, missing_shapes.py compiles what the artifact lacks.
"""

import os
from collections import Counter
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Set, Union

from neuronbert.artifact.manifest import Artifact, Variant
from neuronbert.benchmark.instances import PointInstances
from neuronbert.benchmark.load import Period
from neuronbert.benchmark.measure import Measured, MeasureOptions, full_rows, measure
from neuronbert.benchmark.missing_shapes import Progress, ShapeCompiler
from neuronbert.benchmark.points import Axes, Setting, chosen_variants, loads_of, settings_of
from neuronbert.benchmark.sweep_plan import START_S, SweepOptions, SweepPlan, refuse_options
from neuronbert.benchmark.targets import TargetFacts
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.emulator.emulator_settings import settings_from
from neuronbert.errors import InputError, UsageError
from neuronbert.hardware.prices import Price, load_prices
from neuronbert.tasks.base import Input, Task

OF_A_SERVER = ("model", "protocol", "task", "timeout_ms")


class ArtifactTarget:
    """The points of an artifact that the options ask for and that can be measured.

    Raises UsageError for options that cannot be and when no point is left, ArtifactError for a variant that is not
    there, InputError for a price file that cannot be used.
    """

    start_s = START_S

    def __init__(self, artifact: Artifact, task: Task, inputs: List[Input], options: SweepOptions, progress: Progress):
        refuse_options(options, OF_A_SERVER, "for a server's URL, and this is an artifact")
        self._artifact, self._options = artifact, options
        self._variants = chosen_variants(artifact, options.variant, options.precision)
        self._instances = PointInstances(artifact, options.instance_type, load_prices(options.prices))
        self._shapes = ShapeCompiler(artifact, self._instances, progress)
        self.plan = self._planned(task, inputs)

    def _planned(self, task: Task, inputs: List[Input]) -> SweepPlan:
        options = self._options
        axes = Axes(
            options.batch_size,
            options.workers,
            options.threads,
            options.sequence_length,
            options.neuroncore_pipeline_cores,
        )
        texts = _FullTexts(task, Tokenizer.from_files(self._artifact.folder), inputs)
        loads = loads_of(options.scenario, options.concurrency, options.request_rate, loadgen=options.loadgen)
        settings: List[Setting] = []
        left_out: Counter[str] = Counter()
        for setting in settings_of(self._variants, axes, loads):
            try:
                texts.require(setting)
                self._instances.require_room(setting)
                settings.append(setting)
            except (UsageError, InputError) as error:
                left_out[error.message] += 1
        if not settings:
            raise UsageError(f"no point of this sweep can be: {next(iter(left_out))}", hint="other values")
        return SweepPlan(inputs, settings, left_out)

    @property
    def digest(self) -> str:
        """Of the artifact's manifest."""
        return str(self._artifact.manifest["digest"])

    @property
    def facts(self) -> TargetFacts:
        """Its name and its weights."""
        checkpoint = self._artifact.manifest["checkpoint"]
        artifact = {
            "name": self._artifact.folder.name,
            "fingerprint": checkpoint["fingerprint"],
            "source": checkpoint["source"],
            "emulated": any(variant["emulated"] for variant in self._variants),
        }
        return TargetFacts(artifact, _emulation(self._variants), None)

    def compile_s(self, setting: Setting) -> float:
        """As the artifact's own variant took."""
        return self._shapes.compile_s(setting)

    def instance_of(self, setting: Setting) -> str:
        """The one asked for, or what the variant was compiled for, or this machine."""
        return self._instances.name_of(setting)

    def price_of(self, setting: Setting) -> Optional[Price]:
        """None for this machine, unless a price file names it."""
        return self._instances.price_of(setting)

    def measure(self, setting: Setting, period: Period) -> Measured:
        """With a runner of its own; a shape that is missing is compiled first."""
        options = self._options
        folder = _loadgen_folder(options.report) if options.loadgen else None
        shared = MeasureOptions(self.plan.inputs, options.request_distribution, period, folder, options.busy_wait)
        artifact = self._shapes.artifact_for(setting)
        return measure(artifact, setting, shared, self._instances.inf1_instance_type)

    def refuse_changed(self) -> None:
        """Nothing: a runner reads the artifact's files itself, and verifies them."""


class _FullTexts:
    """Checks that rows of a length can be filled with text: the model takes them, and the inputs are long enough."""

    def __init__(self, task: Task, tokenizer: Tokenizer, inputs: Sequence[Input]):
        self._task, self._tokenizer, self._inputs = task, tokenizer, inputs
        self._checked: Set[int] = set()

    def require(self, setting: Setting) -> None:
        """Raise UsageError for a length beyond the model's, InputError when the inputs hold no such text."""
        length, longest = setting.sequence_length, self._tokenizer.max_length
        if length and longest and length > longest:
            raise UsageError(f"{length} tokens are more than the model's {longest}")
        if length and not setting.text and length not in self._checked:
            full_rows(self._task, self._tokenizer, self._inputs, length)
            self._checked.add(length)


def _loadgen_folder(report: Optional[Union[str, Path]]) -> Path:
    return Path("loadgen") if report is None else Path(f"{os.fspath(report)}.loadgen")


def _emulation(variants: Sequence[Variant]) -> Optional[Dict[str, Optional[str]]]:
    """What stands in for the device, for variants that run on the emulator; None where it is not used."""
    emulator = settings_from(os.environ) if any(variant["emulated"] for variant in variants) else None
    return None if emulator is None else {"instance_type": emulator.instance, "timed_as_release": emulator.release}
