"""One comparison, to its report: the speed of models, the start, the accuracy, with what preparation.py made.

What is asked and answered is the task's (base.py); everything here is the same for all of them.
"""

import json
import os
import platform
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Mapping

from neuronbert.hardware.untrusted import sha256_of
from neuronbert_tools.peers import load_peer_task
from neuronbert_tools.peers.base import US, Contender
from neuronbert_tools.peers.children import Child, ChildFailed
from neuronbert_tools.peers.cold_start import measure_starts
from neuronbert_tools.peers.environments import installed_versions
from neuronbert_tools.peers.preparation import Options, Preparation, print_progress
from neuronbert_tools.peers.summary import operations, summarize_model, targets

SCHEMA = 1
# As many as make neuronbert load its throughput session, which it does at the first call of several batches.
WARM_UP_INPUTS = 32
GEMM_SECONDS = 0.5
BUSY_LOAD = 0.5  # processes, before anything is measured
PROBE_INPUTS = 256  # two of the largest batches
PROBES = 2  # of which the faster one counts: the first meets shapes that the engine has not seen


def compare(options: Options) -> Dict[str, Any]:
    """Measure everything that ``options`` names; the report, which is JSON as it stands."""
    warnings = _busy_machine()
    comparison = _Comparison(options)
    report: Dict[str, Any] = {
        "schema": SCHEMA,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(options.threads),
        "workload": comparison.workload(),
        "environments": {name: installed_versions(python) for name, python in comparison.made.pythons.items()},
        "models": {},
        "start": {},
        "accuracy": {},
    }
    if "speed" in options.parts:
        report["models"] = {name: comparison.measure_model(name) for name in options.models}
    if "start" in options.parts:
        report["start"] = comparison.measure_start()
    if "accuracy" in options.parts and comparison.is_labelled():
        report["accuracy"] = comparison.measure_accuracy()
    elif "accuracy" in options.parts:
        warnings.append(f"{options.data.name} holds inputs without labels: no accuracy was measured")
    warnings += _failures(report)
    return {**report, "targets": [target._asdict() for target in targets(report)], "warnings": warnings}


class _Comparison:
    def __init__(self, options: Options):
        self.options = options
        self.task = load_peer_task(options.task)
        # Before minutes go into environments: what cannot be measured is refused here.
        if options.model is not None:
            self.task.refuse_model(options.model)
        self.inputs = self.task.read(options.data, options.questions)
        self.made = Preparation(options, self.task)

    def workload(self) -> Dict[str, Any]:
        return {
            "task": self.task.NAME,
            "data": self.options.data.name,
            "sha256": sha256_of(self.options.data),
            f"{self.task.UNIT}s": len(self.inputs),
            "rounds": self.options.rounds,
        }

    def measure_model(self, name: str) -> Dict[str, Any]:
        model, known = self.made.model_folder(name), self.task.MODELS[name]
        result: Dict[str, Any] = {"note": known.note, "contenders": {}, "failed": {}, "gemm": []}
        with ExitStack() as stack:
            ours = stack.enter_context(self.made.child("neuronbert-tools", US))
            torch = stack.enter_context(self.made.child("transformers-tools", "transformers"))
            golds = self._golds(ours, model) if known.is_trained else None
            tokens = ours.request("count_tokens", task=self.task.NAME, model=str(model), inputs=self.inputs)["tokens"]
            config = json.loads((model / "config.json").read_text(encoding="utf-8"))
            each = operations(tokens, config, self.task.HEAD_SIZES) / len(self.inputs)
            result.update({"tokens": tokens, f"operations_per_{self.task.UNIT}": each})
            children = self._load_contenders(name, stack, result)
            self._measure_rounds(children, torch, result)
            answers = {
                contender: child.request("last_answers", task=self.task.NAME)["answers"]
                for contender, child in children.items()
            }
            # A figure of random weights would only mislead.
            scored = {"task": self.task.NAME, "golds": golds, "answers": answers}
            scores = ours.request("scores", **scored)["scores"] if known.is_trained else {}
            for contender, measured in result["contenders"].items():
                measured[self.task.FIGURES[0].key] = scores.get(contender)
        result["summary"] = summarize_model(result, len(self.inputs), self.task.UNIT)
        return result

    def _golds(self, ours: Child, model: Path) -> Any:
        asked = {"data": str(self.options.data), "count": self.options.questions, "model": str(model)}
        return ours.request("golds", task=self.task.NAME, **asked)["golds"]

    def _load_contenders(self, name: str, stack: ExitStack, result: Dict[str, Any]) -> Dict[str, Child]:
        children = {}
        for contender in self.options.contenders:
            print_progress(f"{name}: loading {contender}")
            try:
                given = self.made.given(name, contender)
                child = stack.enter_context(self.made.child(contender, self.task.CONTENDERS[contender].environment))
                loaded = child.request(
                    "load", task=self.task.NAME, contender=contender, threads=self.options.threads, **given
                )
                chosen = self._choose_modes(child, self.task.CONTENDERS[contender])
            except ChildFailed as failure:
                result["failed"][contender] = str(failure)
                print_progress(f"FAILED {failure}")
                continue
            result["contenders"][contender] = {**loaded, **chosen}
            children[contender] = child
        return children

    def _choose_modes(self, child: Child, contender: Contender) -> Dict[str, Any]:
        """The modes to measure, warmed up, each with a place for its seconds; and what was probed to find them."""
        probe = {mode: self._probe(child, mode) for group in contender.probed for mode in group}
        fastest = [max(group, key=lambda mode: probe[mode]) for group in contender.probed]
        modes = [*contender.modes, *fastest]
        warm_up = self.task.read(self.options.data, WARM_UP_INPUTS)
        for mode in modes:
            child.request("run", inputs=warm_up, mode=mode)
        probed = {f"probed_{self.task.UNIT}s_per_s": probe} if probe else {}
        return {"seconds": {mode: [] for mode in modes}, **probed}

    def _probe(self, child: Child, mode: str) -> float:
        """Inputs a second in a mode, roughly."""
        inputs = self.task.read(self.options.data, min(PROBE_INPUTS, self.options.questions))
        seconds: List[float] = [child.request("run", inputs=inputs, mode=mode)["seconds"] for _ in range(PROBES)]
        return len(inputs) / min(seconds)

    def _measure_rounds(self, children: Mapping[str, Child], gemm: Child, result: Dict[str, Any]) -> None:
        """Contenders take turns, so that a slow minute of the machine falls on all of them."""
        for round_ in range(self.options.rounds):
            result["gemm"].append(gemm.request("gemm", threads=self.options.threads, seconds=GEMM_SECONDS))
            for contender, child in children.items():
                measured = result["contenders"][contender]
                for mode, seconds in measured["seconds"].items():
                    reply = child.request("run", mode=mode, inputs=self.inputs)
                    seconds.append(reply["seconds"])
                    measured["peak_mib"] = reply["peak_mib"]
                    speed = f"{len(self.inputs) / reply['seconds']:7.2f} {self.task.UNIT}s/s"
                    print_progress(f"round {round_ + 1}/{self.options.rounds}  {contender:18} {mode:10} {speed}")

    def measure_start(self) -> Dict[str, Any]:
        print_progress("start: process start to first answer")
        main = self.task.MAIN_MODEL
        commands = self.task.start_commands(self.made.pythons, self.made.model_folder(main), self.made.artifact(main))
        with (self.made.logs / "start.log").open("ab") as log:
            runs = measure_starts(commands, self.made.variables, log)
        return {name: [start._asdict() for start in starts] for name, starts in runs.items()}

    def is_labelled(self) -> bool:
        with self.made.child("neuronbert-tools", US) as ours:
            return self._golds(ours, self.made.model_folder(self.task.MAIN_MODEL)) is not None

    def measure_accuracy(self) -> Dict[str, Any]:
        """The figures on all of the data: of the variant that auto chose, and of FP32."""
        main = self.task.MAIN_MODEL
        artifacts = {"chosen": self.made.artifact(main), "fp32": self.made.artifact(main, "--precision", "fp32")}
        accuracy = {}
        for name, artifact in artifacts.items():
            print_progress(f"accuracy: {name}")
            report = self.made.neuronbert("evaluate", str(artifact), str(self.options.data), "--json")
            figures = {figure.key: report["metrics"][figure.key] * figure.scale for figure in self.task.FIGURES}
            counted = f"{self.task.UNIT}s"
            accuracy[name] = {**figures, "variant": report["variant"], counted: report[counted]}
        return accuracy


def _machine(threads: int) -> Dict[str, Any]:
    cpu = platform.processor() or platform.machine()
    flags: List[str] = []
    facts = Path("/proc/cpuinfo")
    if facts.exists():
        described = dict(line.split(":", 1) for line in facts.read_text().split("\n\n")[0].splitlines() if ":" in line)
        fields = {name.strip(): value.strip() for name, value in described.items()}
        cpu = fields.get("model name", cpu)
        flags = [flag for flag in fields.get("flags", "").split() if flag.startswith(("avx", "amx", "fma"))]
    return {
        "cpu": cpu,
        "flags": flags,
        "cpus": os.cpu_count(),
        "threads": threads,
        "system": platform.platform(),
        "load_before": list(os.getloadavg()),
    }


def _busy_machine() -> List[str]:
    load = os.getloadavg()[0]
    if load <= BUSY_LOAD:
        return []
    return [f"the machine was busy before anything was measured (load {load:.1f}): trust the ratios, not the speeds"]


def _failures(report: Mapping[str, Any]) -> List[str]:
    return [f"{name}: {why}" for name, model in report["models"].items() for why in model["failed"].values()]
