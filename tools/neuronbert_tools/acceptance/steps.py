"""The steps of an acceptance run, in order, each recorded whether it works or fails."""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.artifact.manifest import read_manifest
from neuronbert.backends.neuron.target import recorded_layout
from neuronbert.errors import UsageError
from neuronbert.hardware.cores import INSTANCE_TYPES, instance_type
from neuronbert.runner.core_environment import core_environment
from neuronbert_tools.acceptance.bert_base import write_bert_base
from neuronbert_tools.acceptance.probes import probes
from neuronbert_tools.acceptance.processes import COMPILE_LIMIT_S, answered, measure, spoken, verb
from neuronbert_tools.acceptance.recipes import (
    BERT_BASE,
    DEMO,
    FULL_LAYERS,
    Recipe,
    bert_base,
    demo,
    published,
    published_casts,
)
from neuronbert_tools.acceptance.recorder import Record, Recorder
from neuronbert_tools.paths import ROOT
from neuronbert_tools.published_rows import Row, published_rows

SQUAD = ROOT / "examples" / "squad.json"
MODES: Mapping[str, object] = {"data-parallel": 1, "pipeline": "auto"}  # → pipeline cores
ODD_PIPELINES = (2, 3, 5, 6)
RATED_PIPELINES = (4, 8, 12, 16)  # where weights begin to stay on chip


class Options(NamedTuple):
    """The command line's options."""

    output: str
    instance_type: str
    only: List[str]
    seconds: float  # of each measurement
    layers: int  # of BERT-base, at most
    casts: List[str]
    rows: List[int]  # of the published table, from 1; all of them where there is none
    artifacts: List[Path]  # where artifacts lie that were compiled before
    compile_only: Optional[Path]


class Acceptance(Recorder):
    """One run, and what it has found so far; ``save`` is called after every step.

    Artifacts are compiled into the folder of --compile-only, or into ``scratch``, where checkpoints are made.
    """

    def __init__(self, options: Options, scratch: Path, save: Callable[[Sequence[Record]], None]):
        self.options = options
        self.scratch = scratch
        self.folder = options.compile_only or scratch
        self.instance = INSTANCE_TYPES[options.instance_type]
        super().__init__(save)

    def check(self) -> None:
        """UsageError for a run that would measure nothing of what was asked for, or something else."""
        fitting = self.rows_that_fit()
        others = [number for number in self.options.rows if number not in fitting]
        if others:
            raise UsageError(
                f"{self.instance.name} can run no published row {_listed(others)}",
                hint=f"--rows with some of {_listed([*fitting])}",
            )
        recipes = dict.fromkeys(self.recipes())
        if self.options.compile_only and not recipes:
            raise UsageError(
                f"--only {','.join(self.options.only)} loads no artifact, so there is nothing to compile",
                hint="--only with another step",
            )
        for found in filter(None, map(self.found, recipes)):
            self._refuse_other_cores(found)

    def _refuse_other_cores(self, artifact: Path) -> None:
        """UsageError for an artifact that was laid out for an instance with more or fewer cores than this run's."""
        made_for = recorded_layout(read_manifest(artifact)["variants"][0]).instance
        if instance_type(made_for).cores != self.instance.cores:
            raise UsageError(
                f"{artifact} was compiled for {made_for}, not for {self.instance.name}",
                hint=f"compile into another folder: --compile-only FOLDER --instance-type {self.instance.name}",
            )

    # ---- artifacts

    def artifact(self, recipe: Recipe) -> Path:
        """The recipe's artifact: one that was compiled before, or else compiled now."""
        found = self.found(recipe)
        if found is None:
            self.compile(recipe)
        return found or self.folder / recipe.name

    def found(self, recipe: Recipe) -> Optional[Path]:
        """The recipe's artifact where it was compiled before, here or elsewhere."""
        places = (folder / recipe.name for folder in (*self.options.artifacts, self.folder))
        return next((place for place in places if place.exists()), None)

    def compiled(self, recipe: Recipe) -> Record:
        """Where the recipe's artifact is, and what is worth keeping of its manifest."""
        artifact = self.artifact(recipe)
        # inspect verifies every checksum.
        return {"artifact": str(artifact), **summary({"manifest": verb("inspect", artifact)})}

    def compile(self, recipe: Recipe) -> Record:
        """Compile the recipe's artifact into this run's folder; what is worth keeping of its manifest."""
        more = ["--no-device"] if self.options.compile_only else [] if self._gated(recipe) else ["--skip-gate"]
        arguments = [*recipe.arguments(self.instance.name), *more]
        output = self.folder / recipe.name
        return summary(verb("compile", self.checkpoint(recipe), output, *arguments, limit_s=COMPILE_LIMIT_S))

    def _gated(self, recipe: Recipe) -> bool:
        """Whether the gate is asked: about the demo, whose weights mean something, unless this is a quick look."""
        return recipe.checkpoint == DEMO and self.options.layers == FULL_LAYERS

    def checkpoint(self, recipe: Recipe) -> object:
        """What the recipe compiles; a BERT-base is made when it is first asked for."""
        if recipe.checkpoint == DEMO:
            return DEMO
        folder = self.scratch / f"{BERT_BASE}-{recipe.layers}-layers"
        if not folder.exists():
            write_bert_base(folder, recipe.layers)
        return folder

    # ---- steps

    def doctor(self) -> None:
        """What the machine says of itself."""
        self.step("doctor", partial(verb, "doctor"))

    def demo(self) -> None:
        """The demo in both modes: compiled through the gate if it was not compiled elsewhere; its answers."""
        for mode, cores in MODES.items():
            recipe = demo(cores)
            if self.step(f"compile the demo, {mode}", partial(self.compiled, recipe)):
                artifact = self.artifact(recipe)
                self.step(f"answer, {mode}", partial(answered, artifact))
                self.step(f"accuracy, {mode}", partial(verb, "evaluate", artifact, SQUAD, "--against", DEMO))

    def rows(self) -> None:
        """The published rows that fit this instance, as they were measured: one process, so many requests in flight."""
        for number, row in self.chosen_rows():
            for casts in self.options.casts:
                self.step(f"row {number}, {casts}", partial(self.measure_row, row, casts))

    def chosen_rows(self) -> Iterator[Tuple[int, Row]]:
        """The published rows that were asked for, or else all that fit this instance, with their numbers."""
        fitting = self.rows_that_fit()
        return ((number, fitting[number]) for number in fitting if not self.options.rows or number in self.options.rows)

    def rows_that_fit(self) -> Dict[int, Row]:
        """The published rows that have no more cores than this instance, by their numbers."""
        rows = enumerate(published_rows(), start=1)
        return {n: row for n, row in rows if int(row["models"]) * int(row["pipeline_cores"]) <= self.instance.cores}

    def measure_row(self, row: Row, casts: str) -> Record:
        """A published row beside the same configuration measured here, compiled with ``casts``."""
        artifact = self.artifact(published(row, casts, self.options.layers))
        cores, models = int(row["pipeline_cores"]), int(row["models"])
        in_flight = int(row["client_threads"] or models * {1: 1, 4: 4, 16: 12}[cores])
        variables = {"NEURON_RT_VISIBLE_CORES": "0" if models * cores == 1 else f"0-{models * cores - 1}"}
        variables["NEURONCORE_GROUP_SIZES"] = ",".join([str(cores)] * models)
        measured = measure(artifact, variables, in_flight, self.options.seconds)
        ratio = measured["sequences_per_s"] / float(row["throughput_per_s"])
        like = casts == published_casts(row)
        how = {"casts": casts, "like_the_published": like, "in_flight": in_flight}
        return {"published": row, **how, **measured, "ratio": ratio}

    def unknowns(self) -> None:
        """What the documentation leaves open (whether, which text, how fast)."""
        if self.step("the demo for the unknowns", partial(self.compiled, demo(1))):
            whole = self.artifact(demo(1))
            for probe in probes(self.instance.cores):
                self.step(f"{probe.unknown}: {probe.question}", partial(probe.ask, whole))
        for cores in self._that_fit(ODD_PIPELINES):
            self.step(f"pipeline-cores-rounded: {cores} cores", partial(self.odd_pipeline, cores))
        self.step("one request at a time through a pipeline", self.single_stream)
        self.step("question answering at 384 tokens", self.long_sequences)
        for cores in self._that_fit(RATED_PIPELINES):
            self.step(f"rate of a pipeline of {cores} cores", partial(self.pipeline_rate, cores))

    def _that_fit(self, counts: Sequence[int]) -> List[int]:
        return [cores for cores in counts if cores <= self.instance.cores]

    def odd_pipeline(self, cores: int) -> Record:
        """Whether the demo compiles for ``cores`` cores, and loads on as many."""
        artifact = self.artifact(demo(cores, 128))
        # If the compiler rounds, as many cores as were asked for are too few or too many.
        variables = self._variables(artifact, worker=0)
        return {**self.compiled(demo(cores, 128)), "loads_on_as_many_cores": spoken(artifact, variables)}

    def _variables(self, artifact: Path, worker: Optional[int] = None) -> Mapping[str, str]:
        """The core variables of one worker, or of a process that has the whole instance."""
        return core_environment(artifact, instance_type=self.instance.name, worker=worker).variables

    def _bert_base(self, cores: int, tokens: int = 128) -> Recipe:
        return bert_base(self.options.layers, cores, 1, tokens)

    def single_stream(self) -> Record:
        """The latency of a pipeline that has one request at a time."""
        artifact = self.artifact(self._bert_base(min(16, self.instance.cores)))
        return measure(artifact, self._variables(artifact, worker=0), 1, self.options.seconds)

    def long_sequences(self) -> Record:
        """384 tokens on all cores, two requests in flight for each."""
        artifact = self.artifact(self._bert_base(1, 384))
        return measure(artifact, self._variables(artifact), 2 * self.instance.cores, self.options.seconds)

    def pipeline_rate(self, cores: int) -> Record:
        """A pipeline with as many requests in flight as it has cores."""
        artifact = self.artifact(self._bert_base(cores))
        return measure(artifact, self._variables(artifact, worker=0), cores, self.options.seconds)

    # ---- for another machine

    def compile_all(self) -> None:
        """Every artifact that the chosen steps load, compiled into this run's folder where it is not there yet."""
        for recipe in dict.fromkeys(self.recipes()):
            if not (self.folder / recipe.name).exists():
                self.step(f"compile {recipe.name}", partial(self.compile, recipe))

    def recipes(self) -> Iterator[Recipe]:
        """What the chosen steps load."""
        if {"demo", "unknowns"} & set(self.options.only):
            yield demo(1)
        if "demo" in self.options.only:
            yield from map(demo, MODES.values())
        if "rows" in self.options.only:
            for _, row in self.chosen_rows():
                yield from (published(row, casts, self.options.layers) for casts in self.options.casts)
        if "unknowns" in self.options.only:
            yield from (demo(cores, 128) for cores in self._that_fit(ODD_PIPELINES))
            pipelines = {min(16, self.instance.cores), *self._that_fit(RATED_PIPELINES)}
            yield from map(self._bert_base, sorted(pipelines))
            yield self._bert_base(1, 384)


STEPS: Dict[str, Callable[[Acceptance], None]] = {
    "doctor": Acceptance.doctor,
    "demo": Acceptance.demo,
    "rows": Acceptance.rows,
    "unknowns": Acceptance.unknowns,
}


def _listed(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))


def summary(compiled: Any) -> Record:
    """What is worth keeping of a manifest."""
    keys = ("name", "compile_s", "compiler_args", "percent_compiled", "agreement", "accuracy", "versions", "recipe")
    return {"variants": [{key: variant[key] for key in keys} for variant in compiled["manifest"]["variants"]]}
