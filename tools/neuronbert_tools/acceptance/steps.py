"""The steps of an acceptance run, in order, each recorded whether it works or fails."""

import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, TypeVar

from neuronbert.hardware.cores import INSTANCE_TYPES
from neuronbert.runner.core_environment import core_environment
from neuronbert_tools.acceptance.bert_base import write_bert_base
from neuronbert_tools.acceptance.processes import answered, held, measure, spoken, verb
from neuronbert_tools.console import print_message
from neuronbert_tools.published_rows import Row, published_rows

FULL_LAYERS = 12
MODES = ("data-parallel", "pipeline")
Result = TypeVar("Result")


class Options(NamedTuple):
    """The command line's options."""

    output: str
    instance_type: str
    only: List[str]
    seconds: float  # of each measurement
    layers: int  # of BERT-base


class Acceptance:
    """One run: where things are written, and what has been found so far."""

    def __init__(self, options: Options, folder: Path):
        self.options = options
        self.folder = folder
        self.instance = INSTANCE_TYPES[options.instance_type]
        self.steps: List[Dict[str, Any]] = []

    def step(self, name: str, work: Callable[[], Result]) -> Optional[Result]:
        """Run ``work`` and record what it returns or how it failed; None if it failed."""
        print_message(f"{name} …")
        started = time.perf_counter()
        record: Dict[str, Any] = {"name": name}
        result: Optional[Result] = None
        try:
            result = work()
            record.update(ok=True, result=result)
        except Exception as error:
            record.update(ok=False, error=f"{type(error).__name__}: {error}")
            print_message(f"  failed: {error}")
        record["seconds"] = round(time.perf_counter() - started, 2)
        self.steps.append(record)
        return result

    def doctor(self) -> None:
        """What the machine says of itself."""
        self.step("doctor", partial(verb, "doctor"))

    def demo(self) -> None:
        """The demo compiled in both modes, through the gate, and its answers."""
        for mode in MODES:
            output = self.folder / f"demo-{mode}"
            if self.step(f"compile the demo, {mode}", partial(self.compile_demo, output, mode)):
                self.step(f"answer, {mode}", partial(answered, output))

    def rows(self) -> None:
        """The published rows that fit this instance, as they were measured: one process, so many requests in flight."""
        checkpoint = self.make_bert_base()
        if checkpoint is None:
            return
        for number, row in enumerate(published_rows(), start=1):
            if int(row["models"]) * int(row["pipeline_cores"]) <= self.instance.cores:
                self.step(f"row {number}", partial(self.measure_row, checkpoint, row))

    def unknowns(self) -> None:
        """What the documentation leaves open (whether, which text, how fast)."""
        demo = self.folder / "demo-data-parallel"
        if not demo.exists():
            self.step("compile the demo for the unknowns", partial(self.compile_demo, demo, "data-parallel"))
        self.step("group sizes alone: which cores are held", partial(held, demo, {"NEURONCORE_GROUP_SIZES": "1"}))
        beyond = {"NEURON_RT_VISIBLE_CORES": f"0-{self.instance.cores}"}
        self.step("visible cores beyond the last: what is said", partial(spoken, demo, beyond))
        for cores in self._that_fit(2, 3, 5, 6):
            self.step(f"a pipeline of {cores} cores", partial(self.odd_pipeline, cores))
        checkpoint = self.folder / "bert-base"
        if not checkpoint.exists():
            self.make_bert_base()
        self.step("one request at a time through a pipeline", partial(self.single_stream, checkpoint))
        self.step("question answering at 384 tokens", partial(self.long_sequences, checkpoint))
        for cores in self._that_fit(4, 8, 12, 16):  # where weights begin to stay on chip
            self.step(f"rate of a pipeline of {cores} cores", partial(self.pipeline_rate, checkpoint, cores))

    def _that_fit(self, *counts: int) -> List[int]:
        return [cores for cores in counts if cores <= self.instance.cores]

    def make_bert_base(self) -> Optional[str]:
        """The folder of a new BERT-base checkpoint, as a step; None if that failed."""
        return self.step("make BERT-base", lambda: str(write_bert_base(self.folder / "bert-base", self.options.layers)))

    def compile_demo(self, output: Path, mode: str) -> Dict[str, Any]:
        """The demo for one row of 128 and of 384 tokens; the gate is skipped in a quick look."""
        skip = ["--skip-gate"] if self.options.layers < FULL_LAYERS else []
        return summary(self.compile("demo", output, mode, "--batch-size", 1, "--sequence-length", "128,384", *skip))

    def compile(self, checkpoint: object, output: Path, mode: str, *more: object) -> Any:
        """What neuronbert compile says."""
        instance = ["--backend", "neuron", "--instance-type", self.instance.name, "--mode", mode]
        return verb("compile", checkpoint, output, *instance, *more)

    def bert_base(self, checkpoint: object, cores: int, batch_size: int, sequence_length: int) -> Path:
        """The folder of BERT-base compiled so; compiled when it is asked for first."""
        output = self.folder / f"bert-base-p{cores}-b{batch_size}-s{sequence_length}"
        if not output.exists():
            mode = "data-parallel" if cores == 1 else "pipeline"
            pipeline = [] if cores == 1 else ["--neuroncore-pipeline-cores", cores]
            shape = ["--batch-size", batch_size, "--sequence-length", sequence_length]
            self.compile(checkpoint, output, mode, "--skip-gate", *shape, *pipeline)
        return output

    def measure_row(self, checkpoint: object, row: Row) -> Dict[str, Any]:
        """A published row beside the same configuration measured here."""
        cores, models = int(row["pipeline_cores"]), int(row["models"])
        output = self.bert_base(checkpoint, cores, int(row["batch_size"]), int(row["sequence_length"]))
        in_flight = int(row["client_threads"] or models * {1: 1, 4: 4, 16: 12}[cores])
        variables = {"NEURON_RT_VISIBLE_CORES": "0" if models * cores == 1 else f"0-{models * cores - 1}"}
        variables["NEURONCORE_GROUP_SIZES"] = ",".join([str(cores)] * models)
        measured = measure(output, variables, in_flight, self.options.seconds)
        published = float(row["throughput_per_s"])
        return {"published": row, "in_flight": in_flight, **measured, "ratio": measured["sequences_per_s"] / published}

    def odd_pipeline(self, cores: int) -> Dict[str, Any]:
        """Whether the demo compiles for ``cores`` cores, and loads on as many."""
        output = self.folder / f"demo-p{cores}"
        more = ["--neuroncore-pipeline-cores", cores, "--sequence-length", 128, "--skip-gate"]
        compiled = summary(self.compile("demo", output, "pipeline", *more))
        # If the compiler rounds, as many cores as were asked for are too few or too many.
        compiled["loads_on_as_many_cores"] = spoken(output, core_environment(output, worker=0).variables)
        return compiled

    def single_stream(self, checkpoint: object) -> Dict[str, Any]:
        """The latency of a pipeline that has one request at a time."""
        output = self.bert_base(checkpoint, min(16, self.instance.cores), 1, 128)
        return measure(output, core_environment(output, worker=0).variables, 1, self.options.seconds)

    def long_sequences(self, checkpoint: object) -> Dict[str, Any]:
        """384 tokens on all cores, two requests in flight for each."""
        output = self.bert_base(checkpoint, 1, 1, 384)
        return measure(output, core_environment(output).variables, 2 * self.instance.cores, self.options.seconds)

    def pipeline_rate(self, checkpoint: object, cores: int) -> Dict[str, Any]:
        """A pipeline with as many requests in flight as it has cores."""
        output = self.bert_base(checkpoint, cores, 1, 128)
        return measure(output, core_environment(output, worker=0).variables, cores, self.options.seconds)


STEPS: Dict[str, Callable[[Acceptance], None]] = {
    "doctor": Acceptance.doctor,
    "demo": Acceptance.demo,
    "rows": Acceptance.rows,
    "unknowns": Acceptance.unknowns,
}


def summary(compiled: Any) -> Dict[str, Any]:
    """What is worth keeping of a manifest."""
    keys = ("name", "compile_s", "compiler_args", "percent_compiled", "agreement", "accuracy", "versions", "recipe")
    return {"variants": [{key: variant[key] for key in keys} for variant in compiled["manifest"]["variants"]]}
