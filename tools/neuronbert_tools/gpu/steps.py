"""The steps of tools/gpu_acceptance, in order, each recorded whether it works or fails."""

import json
import os
import signal
import statistics
import time
from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert import Runner, compile_checkpoint
from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.base import Session
from neuronbert.backends.cuda.graph import Graph, load_graph
from neuronbert.backends.outputs import max_difference
from neuronbert.benchmark.evaluation import evaluate_artifact
from neuronbert.engine.batches import collate
from neuronbert.engine.engine import Engine
from neuronbert.tasks.base import Row
from neuronbert_tools.acceptance.bert_base import LARGE, write_bert
from neuronbert_tools.acceptance.processes import verb
from neuronbert_tools.acceptance.recorder import Record, Recorder
from neuronbert_tools.gpu.contenders import ONNXRUNTIME, Contender, onnxruntime_ways, our_variant, transformers_ways
from neuronbert_tools.gpu.rates import rates
from neuronbert_tools.paths import XQUAD
from neuronbert_tools.processes import run_module
from neuronbert_tools.questions import squad_pairs

MODELS: Mapping[str, Mapping[str, int]] = {"bert-base": {}, "bert-large": LARGE}
TEXT_WAYS = (("engine", 1), ("engine", 4), ("engine", 16), ("runner", 1), ("runner", 16))  # tokenising threads
RUN_WORKERS = (1, 2, 4, 8)
LATENCY_ROWS = 200
PASSES = 3  # over XQuAD's rows in each measurement: the first and the last batch, for which the GPU waits, count little
CHAOS_QUESTIONS = 2000


class Options(NamedTuple):
    """The command line's options."""

    output: str
    only: List[str]
    models: List[str]
    precisions: List[str]
    rounds: int
    seconds: float  # of each measurement from text
    ways: List[str]  # of transformers, among contenders.WAYS


class GpuAcceptance(Recorder):
    """One run. Checkpoints and artifacts are made in ``scratch``; models have random weights, but for the demo."""

    def __init__(self, options: Options, scratch: Path, save: Callable[[Sequence[Record]], None]):
        super().__init__(save)
        self.options = options
        self.scratch = scratch
        self._artifacts: Dict[str, Artifact] = {}
        self.rates: Dict[str, float] = {}

    def machine(self) -> None:
        """What the machine says of itself, and its limits."""
        self.step("doctor", partial(verb, "doctor"))
        self.rates = self.step("rates", rates) or {}

    # ---- accuracy

    def accuracy(self) -> None:
        """The demo in every precision through the gate, and its F1 on XQuAD."""
        self.step("compile demo", lambda: self._summary(self.artifact("demo")))
        for precision in self.options.precisions:
            self.step(f"accuracy demo {precision}", partial(self._accuracy, precision))

    def _accuracy(self, precision: str) -> Record:
        report = evaluate_artifact(self.artifact("demo"), XQUAD, variant=f"cuda-{precision}").as_dict()
        return {key: report[key] for key in ("metrics", "variant", "seconds")}

    def artifact(self, model: str) -> Artifact:
        """The model compiled for the GPU, in each of the options' precisions; once."""
        if model not in self._artifacts:
            demo = model == "demo"
            checkpoint: Any = "demo" if demo else write_bert(self.scratch / f"{model}-checkpoint", **MODELS[model])
            self._artifacts[model] = compile_checkpoint(
                checkpoint,
                self.scratch / model,
                backend="cuda",
                precision=self.options.precisions,
                skip_gate=not demo or "accuracy" not in self.options.only,
            )
        return self._artifacts[model]

    def _summary(self, artifact: Artifact) -> List[Record]:
        keys = ("name", "precision", "agreement", "accuracy", "compile_s", "selftest_tolerance", "requires", "versions")
        return [{key: variant[key] for key in keys if key in variant} for variant in artifact.variants]

    # ---- speed

    def speed(self) -> None:
        """Rows tokenised beforehand: our precisions and transformers' ways in turns."""
        for model in self.options.models:
            self.step(f"compile {model}", lambda model=model: self._summary(self.artifact(model)))  # type: ignore[misc]
            self.step(f"speed {model}", partial(self._speed, model))

    def _speed(self, model: str) -> Record:
        artifact = self.artifact(model)
        engines = [Engine.for_many(artifact, variant=variant["name"]) for variant in artifact.variants]
        rows = xquad_rows(engines[0]) * PASSES
        graph = load_graph(artifact.variant_folder(artifact.variants[0]))
        ways = [our_variant(engine) for engine in engines]
        folder = self.scratch / f"{model}-checkpoint"
        ways += transformers_ways(str(folder), self.options.ways)
        if ONNXRUNTIME in self.options.ways:
            ways += onnxruntime_ways(folder, self.scratch / f"{model}-onnxruntime")
        samples = in_turns(ways, rows, self.options.rounds)
        found = {name: self._speed_of(seconds, rows, graph) for name, seconds in samples.items()}
        for engine in engines:
            engine.close()
        lengths = [len(row.input_ids) for row in rows]
        return {"rows": len(rows), "mean_tokens": statistics.mean(lengths), "ways": found}

    def _speed_of(self, seconds: Sequence[float], rows: Sequence[Row], graph: Graph) -> Record:
        """Of a pass over the rows: the median. Without padding's FLOPs: those are not the model's work."""
        lengths = np.array([len(row.input_ids) for row in rows])
        took = statistics.median(seconds)
        tflops = graph.flops(lengths) / took / 1e12
        share = tflops / self.rates["bf16_tflops"] if self.rates else None
        return {"rows_per_s": len(rows) / took, "tflops": tflops, "share_of_bf16_rate": share, "seconds": list(seconds)}

    # ---- latency

    def latency(self) -> None:
        """One row at a time: recorded graphs, the same without them, and transformers."""
        for model in self.options.models:
            self.step(f"latency {model}", partial(self._latency, model))

    def _latency(self, model: str) -> Record:
        artifact = self.artifact(model)
        found = {}
        with Engine(artifact, variant=f"cuda-{self._half()}", streams=1) as engine:
            rows = xquad_rows(engine)[:LATENCY_ROWS]
            found["neuronbert, CUDA graphs"] = latency_of(lambda row: engine.session.run(collate([row], 0)), rows)
            eager = without_graphs(engine)
            found["neuronbert, eager"] = latency_of(lambda row: eager.run(collate([row], 0)), rows)
        (way, *_) = transformers_ways(str(self.scratch / f"{model}-checkpoint"), ["fp16"])
        found["transformers fp16"] = latency_of(lambda row: way.run([row]), rows)
        return found

    def _half(self) -> str:
        return next(name for name in ("bf16", "fp16", *self.options.precisions) if name in self.options.precisions)

    # ---- text

    def text(self) -> None:
        """From text to answers, with several numbers of tokenising threads."""
        for model in ("demo", *self.options.models):
            for way, threads in TEXT_WAYS:
                variables = {"RAYON_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "true"}
                self.step(f"text {model} {way}, {threads} threads", partial(self._text, model, way, variables))
            for workers in RUN_WORKERS:
                self.step(f"text {model} run, {workers} workers", partial(self._text, model, "run", {}, workers))

    def _text(self, model: str, way: str, variables: Mapping[str, str], *workers: int) -> Record:
        artifact, variant, seconds = self.artifact(model).folder, f"cuda-{self._half()}", self.options.seconds
        rates = run_module("gpu.text_rate", artifact, variant, XQUAD, way, seconds, *workers, variables=variables)
        found: Record = json.loads(rates)
        return found

    # ---- what goes wrong

    def faults(self) -> None:
        """A batch that does not fit the memory is split; a killed worker loses nothing."""
        self.step("out of memory", self._out_of_memory)
        self.step("worker killed", self._worker_killed)

    def _out_of_memory(self) -> Record:
        """The same rows with and without room for the batch."""
        import torch

        with Engine.for_many(self.artifact("demo"), variant=f"cuda-{self._half()}") as engine:
            rows = xquad_rows(engine)
            batch = collate(rows[:512], engine.tokenizer.pad_id)
            expected = engine.session.run(batch)
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
            held = torch.cuda.memory_reserved()
            engine.session.run(batch)
            needed = torch.cuda.max_memory_allocated() - torch.cuda.memory_allocated()
            torch.cuda.empty_cache()
            total = torch.cuda.get_device_properties(0).total_memory
            try:
                torch.cuda.set_per_process_memory_fraction((held + needed / 3) / total)
                found = engine.session.run(batch)
            finally:
                torch.cuda.set_per_process_memory_fraction(1.0)
            ooms = torch.cuda.memory_stats()["num_ooms"]
            difference = max_difference(found, expected, engine.specs, batch.attention_mask)
        if not ooms:
            raise RuntimeError("the batch fitted the memory that was left to it")
        return {
            "out_of_memory_errors": ooms,
            "max_abs_diff": difference,
            "held_mb": held / 1e6,
            "needed_mb": needed / 1e6,
        }

    def _worker_killed(self) -> Record:
        pairs = (list(squad_pairs(XQUAD)) * 2)[:CHAOS_QUESTIONS]
        with Runner(self.artifact("demo"), variant=f"cuda-{self._half()}") as runner:
            calm = list(runner.map(pairs))
            futures = [runner.submit(*pair) for pair in pairs]
            os.kill(runner.stats()["workers"][0]["pid"], signal.SIGKILL)
            answers = [future.result(120) for future in futures]
            stats = runner.stats()
        equal = sum(mine["answer"] == theirs["answer"] for mine, theirs in zip(answers, calm))
        return {"questions": len(pairs), "equal_answers": equal, "stats": stats}


def without_graphs(engine: Engine) -> Session:
    """The engine's model on a lane that records nothing."""
    import torch

    from neuronbert.backends.cuda.lanes import GpuLane
    from neuronbert.backends.cuda.session import CudaSession, make_encoder
    from neuronbert.backends.cuda.weights import load_weights

    folder, precision, device = engine.artifact.variant_folder(engine.variant), engine.variant["precision"], "cuda:0"
    graph, gpu = load_graph(folder), torch.device(device)
    encoder = make_encoder(graph, load_weights(folder, graph, precision, gpu), gpu)
    return CudaSession(graph, [GpuLane(encoder, gpu, most_graphs=0)], engine.specs, precision)


def xquad_rows(engine: Engine) -> List[Row]:
    """The windows of XQuAD's questions, in the file's order."""
    return [row for example in engine.encode(list(squad_pairs(XQUAD))) for row in example.windows]


def in_turns(ways: Sequence[Contender], rows: Sequence[Row], rounds: int) -> Dict[str, List[float]]:
    """Seconds of each way's passes over the rows, in turns after one that counts for nothing."""
    samples: Dict[str, List[float]] = {way.name: [] for way in ways}
    for number in range(rounds + 1):
        for way in ways:
            started = time.perf_counter()
            way.run(rows)
            if number:
                samples[way.name].append(time.perf_counter() - started)
    return samples


def latency_of(run: Callable[[Row], Any], rows: Sequence[Row]) -> Dict[str, float]:
    """Milliseconds of one row after another, after a pass that counts for nothing."""
    took_ms = []
    for counts in (False, True):
        for row in rows:
            started = time.perf_counter()
            run(row)
            if counts:
                took_ms.append((time.perf_counter() - started) * 1e3)
    p50, p99 = np.percentile(took_ms, [50, 99])
    return {"p50_ms": float(p50), "p99_ms": float(p99), "rows": len(rows)}


STEPS: Dict[str, Callable[[GpuAcceptance], None]] = {
    "machine": GpuAcceptance.machine,
    "accuracy": GpuAcceptance.accuracy,
    "speed": GpuAcceptance.speed,
    "latency": GpuAcceptance.latency,
    "faults": GpuAcceptance.faults,
    "text": GpuAcceptance.text,
}


def fastest(steps: Sequence[Record]) -> Dict[str, Tuple[str, float]]:
    """Of each model whose speed was measured: our fastest way and its rows a second."""
    found = {}
    for step in steps:
        if step["ok"] and step["name"].startswith("speed "):
            ways = step["result"]["ways"]
            ours = {name: way["rows_per_s"] for name, way in ways.items() if name.startswith("neuronbert")}
            found[step["name"][len("speed ") :]] = max(ours.items(), key=lambda item: item[1])
    return found


def share_of_published(steps: Sequence[Record], published: Sequence[Tuple[str, float, str]]) -> List[Record]:
    """Our fastest BERT-large beside each published (name, sequences a second of one GPU, source)."""
    ours = fastest(steps).get("bert-large")
    if ours is None:
        return []
    name, best = ours
    return [
        {"published": what, "rows_per_s": rate, "ours": name, "share": best / rate, "source": source}
        for what, rate, source in published
    ]
