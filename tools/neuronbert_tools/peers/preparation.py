"""Makes what comparison.py measures with, once: environments, checkpoints in float32, peers' exports, our artifacts."""

import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, NamedTuple, Optional, Sequence, Tuple

from neuronbert_tools.console import print_message
from neuronbert_tools.paths import DEMO, PACKAGE
from neuronbert_tools.peers.base import OURS, US, Export, PeerTask
from neuronbert_tools.peers.children import Child, ChildFailed
from neuronbert_tools.peers.environments import child_environment, ensure_environment

SEED = 1


class Options(NamedTuple):
    """What to compare; the defaults are the command line's."""

    task: str
    models: Tuple[str, ...]
    contenders: Tuple[str, ...]
    model: Optional[Path]  # the task's main model, where it is the caller's
    data: Path
    calibration: Optional[Path]  # None: the text that neuronbert ships
    questions: int  # inputs of any task
    rounds: int
    threads: int
    work: Path
    parts: Tuple[str, ...]  # among the task's


class Preparation:
    """Folders and children by name; what is not there yet is made when it is asked for, and kept in ``work``."""

    def __init__(self, options: Options, task: PeerTask):
        self.options = options
        self.task = task
        self.rows = task.calibration(options.calibration)
        self.variables = child_environment(options.threads)
        self.logs = options.work / "logs"
        self.logs.mkdir(parents=True, exist_ok=True)
        self.package = _digest(sorted(PACKAGE.rglob("*.py")))
        self.absent: Dict[str, str] = {}  # environments that could not be made, and why
        self.pythons = self._environments()

    def _environments(self) -> Dict[str, Path]:
        """The Python of every environment; the transformers one also makes the models and measures the GEMM rates."""
        chosen = [self.task.CONTENDERS[name] for name in self.options.contenders]
        exports = {contender.export.environment for contender in chosen if contender.export}
        pythons = {}
        for name in sorted({contender.environment for contender in chosen} | exports | {US, "transformers"}):
            try:
                pythons[name] = ensure_environment(name, self.options.work / "environments")
            except subprocess.CalledProcessError as error:
                if name in (US, "transformers"):
                    raise
                self.absent[name] = f"the environment {name} could not be made: pip exited with {error.returncode}"
        return pythons

    def child(self, name: str, environment: str) -> Child:
        if environment in self.absent:
            raise ChildFailed(f"{name} cannot run: {self.absent[environment]}")
        return Child(name, self.pythons[environment], self.variables, self.logs / f"{name}.log")

    def given(self, name: str, contender: str) -> Dict[str, str]:
        """The folders that a contender loads from, made where they are not there."""
        known = self.task.CONTENDERS[contender]
        if contender in OURS:
            return {"model": str(self.artifact(name, *known.compile_options)), "prepared": ""}
        prepared = self.exported(name, contender, known.export) if known.export else ""
        return {"model": str(self.model_folder(name)), "prepared": str(prepared)}

    def _source(self, name: str) -> Path:
        """What a model is made of: the checkpoint itself, or of random weights where the tokenizer is from."""
        return self.options.model if self.options.model and self.task.MODELS[name].is_trained else DEMO

    def model_folder(self, name: str) -> Path:
        """The checkpoint in float32, made once."""
        source = self._source(name)
        trained = self.task.MODELS[name].is_trained
        made_from = _digest(sorted(path for path in source.rglob("*") if path.is_file())) if trained else f"seed{SEED}"
        folder = self.options.work / "models" / f"{self.task.NAME}-{name}-{made_from}"
        if not folder.exists():
            unfinished = folder.with_name(folder.name + ".unfinished")
            unfinished.mkdir(parents=True, exist_ok=True)
            with self.child("models", "transformers") as child:
                made = {"folder": str(unfinished), "source": str(source), "seed": SEED}
                child.request("make_model", task=self.task.NAME, name=name, **made)
            unfinished.rename(folder)
        return folder

    def exported(self, name: str, contender: str, export: Export) -> Path:
        """A peer's export, made once: by model, calibration and environment."""
        if export.environment in self.absent:
            raise ChildFailed(f"{contender} cannot be exported: {self.absent[export.environment]}")
        environment = self.pythons[export.environment].parents[1].name
        made_from = _digest([], json.dumps(self.rows)) if export.is_calibrated else "exact"
        model = self.model_folder(name)
        folder = self.options.work / "exports" / f"{model.name}-{export.name}-{made_from}-{environment}"
        if not folder.exists():
            print_progress(f"{name}: exporting {export.name}")
            with self.child(f"{contender}-export", export.environment) as child:
                made = {"model": str(model), "folder": str(folder), "rows": self.rows}
                child.request("export", task=self.task.NAME, contender=contender, **made)
        return folder

    def artifact(self, name: str, *compile_options: str) -> Path:
        """Our artifact of the model, compiled again whenever the package changed."""
        environment = self.pythons[US].parents[1].name
        options = ["--task", self.task.NAME, *compile_options]
        if self.options.calibration:
            options += ["--calibration-data", str(self.options.calibration)]
        if not self.task.MODELS[name].is_trained:
            options.append("--skip-gate")
        files = [self.options.calibration] if self.options.calibration else []
        made_from = _digest(files, self.package, repr(options), environment)
        folder = self.options.work / "artifacts" / f"{self.model_folder(name).name}-{made_from}"
        if not folder.exists():
            print_progress(" ".join([f"{name}: compiling with neuronbert", *compile_options]))
            folder.parent.mkdir(parents=True, exist_ok=True)
            self.neuronbert("compile", str(self.model_folder(name)), str(folder), *options, "--json")
        return folder

    def neuronbert(self, *arguments: str) -> Any:
        command = [str(self.pythons["neuronbert"].with_name("neuronbert")), *arguments]
        with (self.logs / "neuronbert.log").open("ab") as log:
            done = subprocess.run(command, env=self.variables, stdout=subprocess.PIPE, stderr=log)
        if done.returncode != 0:
            raise ChildFailed(f"neuronbert {' '.join(arguments)} exited with {done.returncode}: see {log.name}")
        return json.loads(done.stdout)


def print_progress(text: str) -> None:
    print_message(f"[{time.strftime('%H:%M:%S')}] {text}")


def _digest(files: Sequence[Path], *more: str) -> str:
    content = [path.read_bytes() for path in files] + [text.encode() for text in more]
    return hashlib.sha256(b"\0".join(content)).hexdigest()[:12]
