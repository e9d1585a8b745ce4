"""One comparison from environments to report: prepare, measure the models, the start and the accuracy, summarise."""

import hashlib
import json
import os
import platform
import subprocess
import time
from contextlib import ExitStack
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from neuronbert.hardware.untrusted import sha256_of
from neuronbert_tools.console import print_message
from neuronbert_tools.paths import DEMO, PACKAGE, SAMPLES
from neuronbert_tools.peers.children import Child, ChildFailed
from neuronbert_tools.peers.cold_start import measure_starts, start_commands
from neuronbert_tools.peers.contenders import CONTENDERS
from neuronbert_tools.peers.environments import child_environment, ensure_environment, installed_versions
from neuronbert_tools.peers.summary import operations, summarize_model, targets

SCHEMA = 1
SEED = 0
# As many as make neuronbert load its throughput session, which it does at the first call of several batches.
WARM_UP_QUESTIONS = 32
GEMM_SECONDS = 0.5
BUSY_LOAD = 0.5  # processes, before anything is measured

CALIBRATION = SAMPLES / "calibration.json"

NOTES = {
    "demo": "the shipped checkpoint; compiled through the gate",
    "bert-base": "random weights: our gate means nothing on them and was skipped; answers and F1 mean nothing either",
}


class Options(NamedTuple):
    """What to compare; the defaults are the command line's."""

    models: Tuple[str, ...]
    contenders: Tuple[str, ...]
    data: Path
    questions: int
    rounds: int
    threads: int
    work: Path
    parts: Tuple[str, ...]  # among speed, start, accuracy


def compare(options: Options) -> Dict[str, Any]:
    """Measure everything that ``options`` names; the report, which is JSON as it stands."""
    warnings = _busy_machine()
    comparison = _Comparison(options)
    report: Dict[str, Any] = {
        "schema": SCHEMA,
        "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": _machine(options.threads),
        "workload": _workload(options),
        "environments": {name: installed_versions(python) for name, python in comparison.pythons.items()},
        "models": {},
        "start": {},
        "accuracy": {},
    }
    if "speed" in options.parts:
        report["models"] = {name: comparison.measure_model(name) for name in options.models}
    if "start" in options.parts:
        report["start"] = comparison.measure_start()
    if "accuracy" in options.parts:
        report["accuracy"] = comparison.measure_accuracy()
    warnings += _failures(report)
    return {**report, "targets": [target._asdict() for target in targets(report)], "warnings": warnings}


class _Comparison:
    def __init__(self, options: Options):
        self.options = options
        self.variables = child_environment(options.threads)
        self.logs = options.work / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        # The transformers environment also makes the models and measures the GEMM rates.
        needed = {CONTENDERS[name].environment for name in options.contenders} | {"neuronbert", "transformers"}
        self.pythons = {name: ensure_environment(name, options.work / "environments") for name in sorted(needed)}
        self.package = _digest(sorted(PACKAGE.rglob("*.py")))

    def child(self, name: str, environment: str) -> Child:
        return Child(name, self.pythons[environment], self.variables, self.logs / f"{name}.log")

    def measure_model(self, name: str) -> Dict[str, Any]:
        model = self.model_folder(name)
        artifact = self.artifact(name)
        result: Dict[str, Any] = {"note": NOTES[name], "contenders": {}, "failed": {}, "gemm": []}
        with ExitStack() as stack:
            ours = stack.enter_context(self.child("neuronbert-tools", "neuronbert"))
            torch = stack.enter_context(self.child("transformers-tools", "transformers"))
            tokens = ours.request("count_tokens", tokenizer_from=str(artifact), **self._questions())["tokens"]
            config = json.loads((model / "config.json").read_text(encoding="utf-8"))
            total = operations(tokens, config)
            result.update(tokens=tokens, operations_per_question=total / self.options.questions)
            children = self._load_contenders(name, model, artifact, stack, result)
            self._measure_rounds(children, torch, result)
            for contender in result["contenders"].values():
                score = ours.request("score", answers=contender.pop("answers"), **self._questions())
                # An F1 of random weights would only mislead.
                contender["f1"] = None if name == "bert-base" else score["f1"]
        result["summary"] = summarize_model(result, self.options.questions)
        return result

    def _load_contenders(
        self, name: str, model: Path, artifact: Path, stack: ExitStack, result: Dict[str, Any]
    ) -> Dict[str, Child]:
        children = {}
        for contender in self.options.contenders:
            _print_progress(f"{name}: loading {contender}")
            child = stack.enter_context(self.child(contender, CONTENDERS[contender].environment))
            source = artifact if contender == "neuronbert" else model
            try:
                loaded = child.request(
                    "load",
                    contender=contender,
                    model=str(source),
                    prepared=str(self.prepared_folder(name, contender)),
                    calibration=str(CALIBRATION),
                    threads=self.options.threads,
                )
                result["contenders"][contender] = {**loaded, "seconds": {}}
                for mode in CONTENDERS[contender].modes:
                    child.request("run", data=str(self.options.data), questions=WARM_UP_QUESTIONS, mode=mode)
            except ChildFailed as failure:
                result["contenders"].pop(contender, None)
                result["failed"][contender] = str(failure)
                _print_progress(f"FAILED {failure}")
                continue
            children[contender] = child
        return children

    def _measure_rounds(self, children: Mapping[str, Child], gemm: Child, result: Dict[str, Any]) -> None:
        """Contenders take turns, so that a slow minute of the machine falls on all of them."""
        for round_ in range(self.options.rounds):
            result["gemm"].append(gemm.request("gemm", threads=self.options.threads, seconds=GEMM_SECONDS))
            for contender, child in children.items():
                measured = result["contenders"][contender]
                for mode in CONTENDERS[contender].modes:
                    reply = child.request("run", mode=mode, **self._questions())
                    measured["seconds"].setdefault(mode, []).append(reply["seconds"])
                    measured.update(peak_mib=reply["peak_mib"], answers=reply["answers"])
                    speed = self.options.questions / reply["seconds"]
                    _print_progress(
                        f"round {round_ + 1}/{self.options.rounds}  {contender:18} {mode:10} {speed:7.2f} questions/s"
                    )

    def measure_start(self) -> Dict[str, Any]:
        _print_progress("start: process start to first answer")
        commands = start_commands(self.pythons, self.model_folder("demo"), self.artifact("demo"))
        with (self.logs / "start.log").open("ab") as log:
            runs = measure_starts(commands, self.variables, log)
        return {name: [start._asdict() for start in starts] for name, starts in runs.items()}

    def measure_accuracy(self) -> Dict[str, Any]:
        """F1 of all of the data: the variant that auto chose, and FP32."""
        artifacts = {"chosen": self.artifact("demo"), "fp32": self.artifact("demo", "--precision", "fp32")}
        accuracy = {}
        for name, artifact in artifacts.items():
            _print_progress(f"accuracy: {name}")
            report = self._neuronbert("evaluate", str(artifact), str(self.options.data), "--json")
            scores = {key: report["metrics"][key] for key in ("f1", "exact_match")}
            accuracy[name] = {**scores, "variant": report["variant"], "questions": report["questions"]}
        return accuracy

    def model_folder(self, name: str) -> Path:
        """The checkpoint in float32, made once."""
        made_from = _digest([DEMO / "model.safetensors"]) if name == "demo" else f"seed{SEED}"
        folder = self.options.work / "models" / f"{name}-{made_from}"
        if not folder.exists():
            unfinished = folder.with_name(folder.name + ".unfinished")
            unfinished.mkdir(parents=True, exist_ok=True)
            with self.child("models", "transformers") as child:
                if name == "demo":
                    child.request("copy_as_float32", folder=str(unfinished), source=str(DEMO))
                else:
                    child.request("make_random_bert", folder=str(unfinished), tokenizer_from=str(DEMO), seed=SEED)
            unfinished.rename(folder)
        return folder

    def prepared_folder(self, name: str, contender: str) -> Path:
        """Where a peer keeps its export: by model, calibration and environment."""
        environment = self.pythons[CONTENDERS[contender].environment].parents[1].name
        made_from = _digest([CALIBRATION]) if "int8" in contender else "exact"
        return self.options.work / "exports" / f"{self.model_folder(name).name}-{contender}-{made_from}-{environment}"

    def artifact(self, name: str, *compile_options: str) -> Path:
        """Our artifact of the model, compiled again whenever the package changed."""
        environment = self.pythons["neuronbert"].parents[1].name
        made_from = _digest([], self.package, repr(compile_options), environment)
        folder = self.options.work / "artifacts" / f"{name}-{made_from}"
        if not folder.exists():
            _print_progress(f"{name}: compiling with neuronbert {' '.join(compile_options)}")
            checkpoint = "demo" if name == "demo" else str(self.model_folder(name))
            gate = ["--skip-gate"] if name == "bert-base" else []
            folder.parent.mkdir(parents=True, exist_ok=True)
            self._neuronbert("compile", checkpoint, str(folder), *compile_options, *gate, "--json")
        return folder

    def _neuronbert(self, *arguments: str) -> Any:
        command = [str(self.pythons["neuronbert"].with_name("neuronbert")), *arguments]
        with (self.logs / "neuronbert.log").open("ab") as log:
            done = subprocess.run(command, env=self.variables, stdout=subprocess.PIPE, stderr=log)
        if done.returncode != 0:
            raise ChildFailed(f"neuronbert {' '.join(arguments)} exited with {done.returncode}: see {log.name}")
        return json.loads(done.stdout)

    def _questions(self) -> Dict[str, Any]:
        return {"data": str(self.options.data), "questions": self.options.questions}


def _print_progress(text: str) -> None:
    print_message(f"[{time.strftime('%H:%M:%S')}] {text}")


def _digest(files: Sequence[Path], *more: str) -> str:
    content = [path.read_bytes() for path in files] + [text.encode() for text in more]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:12]


def _workload(options: Options) -> Dict[str, Any]:
    return {
        "data": options.data.name,
        "sha256": sha256_of(options.data),
        "questions": options.questions,
        "rounds": options.rounds,
    }


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
