"""Compiles one bucket in a child process whose log is kept, once for every process and user of the cache.

The parent writes a job (weights, config, recipe), starts this module on it (backends/child.py) and waits; the child
traces the model (tracing.py beside this file).
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from neuronbert.backends import load_backend
from neuronbert.backends.base import ExportSource, Recipe
from neuronbert.backends.cache import cache_folder
from neuronbert.backends.child import start_child
from neuronbert.backends.neuron.failures import explained, known_failure
from neuronbert.backends.neuron.known_failures import COMPILER_FAILURES, IMPORT_FAILURES
from neuronbert.backends.neuron.tracing import CompileReport, import_tensorflow, report_of, trace
from neuronbert.backends.tracing import example_inputs
from neuronbert.checkpoint.families import family_of, head_at, size_of
from neuronbert.errors import in_words, quoted
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.own_places import locked
from neuronbert.hardware.untrusted import sha256_of

# 1: the first. Another number for whatever changes what a job compiles to.
CACHE_VERSION = 1
# Tracing, reading and writing around the compiler's own time.
AROUND_THE_COMPILER_S = 600
MODEL, LOG, REPORT = "model.neuron", "compile.log", "report.json"
# A compile imports TensorFlow too, for neuron-cc.
FAILURES = IMPORT_FAILURES + COMPILER_FAILURES
# What of a log is read for reasons, of its end: neuron-cc 1.24 has written 5,928 lines about one model that it refused.
LOG_CHARACTERS = 1_000_000


Weights = Mapping[str, np.ndarray]  # the model's parameters by transformers' names, float32


class Compiled(NamedTuple):
    """A compiled bucket in the cache."""

    model: Path
    log: Path
    report: CompileReport


def compile_bucket(source: ExportSource, recipe: Recipe, versions: Mapping[str, str]) -> Compiled:
    """The compiled model for ``recipe``: from the cache, or compiled now while other processes wait for it.

    Raises the error that the compiler's failure stands for (failures.py), with the path of its log.
    """
    weights = weights_of(source)
    key = job_key(source, weights, recipe, versions)
    cache = cache_folder("neuron")
    with locked(cache / f"{key}.lock"):
        cached = read_entry(cache / key)
        if cached is not None:
            return cached
        with tempfile.TemporaryDirectory(prefix=f"{key[:12]}.", dir=str(cache)) as work:
            job = Path(work)
            write_job(job, source, weights, recipe)
            failure = run_job(job, recipe.get("compiler_timeout_s"))
            report = read_report(job)
            left = [] if report is None or failure is not None else report.fallback()
            if failure is not None or left:
                log = cache / "failed" / f"{key[:12]}.log"
                log.parent.mkdir(exist_ok=True)
                shutil.copyfile(job / LOG, log)
                raise refusal(failure, recipe, log) if failure is not None else fell_back(left, recipe, log)
            return store(job, cache / key)


def refusal(failure: str, recipe: Recipe, log: Path) -> Exception:
    """The error for a job that failed, in whose words is ``failure``."""
    doing = f"cannot compile for {_words(recipe)}; the log is {log}"
    return explained(failure, FAILURES, doing, otherwise=f"less {quoted(log)}")


def fell_back(left: Sequence[str], recipe: Recipe, log: Path) -> Exception:
    """The error for a job that ended well and left work on the CPU: torch-neuron goes on where neuron-cc fails."""
    doing = f"the model for {_words(recipe)} fell back to the CPU: {'; '.join(left)}; the log is {log}"
    reasons = "\n".join(compiler_reasons(_tail(log, LOG_CHARACTERS)))
    otherwise = f"less {quoted(log)}; another --auto-cast, --batch-size or --sequence-length may compile"
    return explained(reasons, FAILURES, doing, otherwise=otherwise)


def _words(recipe: Recipe) -> str:
    return f"batch {recipe['batch_size']} × {recipe['sequence_length']} tokens, {' '.join(recipe['compiler_args'])}"


# ---------------------------------------------------------------------------- the cache


def job_key(source: ExportSource, weights: Weights, recipe: Recipe, versions: Mapping[str, str]) -> str:
    """A digest of everything that the compiled file depends on: weights, config, shape, arguments, versions."""
    digest = hashlib.sha256()
    facts = {
        "cache_version": CACHE_VERSION,
        "config": dict(source.config),
        "head": source.head.task,
        "input_names": list(source.input_names),
        "shape": [recipe["batch_size"], recipe["sequence_length"]],
        "compiler_args": recipe["compiler_args"],
        "versions": dict(versions),
    }
    digest.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for name in sorted(weights):
        array = weights[name]
        digest.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def read_entry(entry: Path) -> Optional[Compiled]:
    """What the cache holds under ``entry``, if it is complete and undamaged."""
    report = read_report(entry)
    try:
        if report is None or (entry / "sha256").read_text() != sha256_of(entry / MODEL) or not (entry / LOG).is_file():
            return None
    except OSError:
        return None
    return Compiled(entry / MODEL, entry / LOG, report)


def store(job: Path, entry: Path) -> Compiled:
    """Move a finished job into the cache; it gets its name there only when it is complete."""
    (job / "sha256").write_text(sha256_of(job / MODEL))
    partial = entry.with_name(f"{entry.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in (MODEL, LOG, REPORT, "sha256"):
        os.replace(job / name, partial / name)
    shutil.rmtree(entry, ignore_errors=True)  # one that read_entry found damaged
    os.rename(partial, entry)
    stored = read_entry(entry)
    assert stored is not None
    return stored


def read_report(folder: Path) -> Optional[CompileReport]:
    """The report that a child wrote; None if there is none."""
    try:
        return CompileReport(*json.loads((folder / REPORT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


# ---------------------------------------------------------------------------- the parent's side of a job


def weights_of(source: ExportSource) -> Weights:
    """The parameters of the model to compile."""
    model = source.torch_model().model
    return {name: parameter.detach().cpu().numpy() for name, parameter in model.named_parameters()}


def write_job(job: Path, source: ExportSource, weights: Weights, recipe: Recipe) -> None:
    """Everything the child needs, without a pickle."""
    facts = {"config": dict(source.config), "input_names": list(source.input_names), "recipe": dict(recipe)}
    facts["head"] = source.head.place
    (job / "job.json").write_text(json.dumps(facts, default=str), encoding="utf-8")
    np.savez(job / "weights.npz", **weights)  # type: ignore[arg-type]  # for numpy 2, one could be allow_pickle


def run_job(job: Path, compiler_timeout_s: Optional[float]) -> Optional[str]:
    """Run the child to its end; None, or what failed in the child's own words. Its log is in the job's folder."""
    limit = None if compiler_timeout_s is None else compiler_timeout_s + AROUND_THE_COMPILER_S
    with open(job / LOG, "wb") as log:
        child = start_child(
            "neuronbert.backends.neuron.compile_job",
            job,
            stdout=log,
            stderr=log,
            environment={**os.environ, "PYTHONUNBUFFERED": "1"},
            new_session=True,  # so that neuron-cc ends with it
        )
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            return f"the compiling process timed out after {limit} seconds"
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
    if code == 0:
        return None
    if code < 0:
        return f"the compiling process was ended by signal {-code}\n{_tail(job / LOG)}"
    try:
        return (job / "error.txt").read_text(encoding="utf-8")
    except OSError:
        return _tail(job / LOG)


def _tail(path: Path, characters: int = 3000) -> str:
    return path.read_text(encoding="utf-8", errors="replace")[-characters:]


# ---------------------------------------------------------------------------- the child


def main(arguments: Sequence[str]) -> int:
    """Compile the job in the folder ``arguments[0]``; the exit code.

    A failure goes to error.txt with the compiler's own reasons, and with its traceback to stderr.
    """
    job = Path(arguments[0])
    logging.basicConfig(level=logging.INFO)  # torch-neuron's reports of what it compiled
    try:
        _compile_job(job)
        return 0
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        message = in_words(error)
        own_logs = _compiler_logs(job / "work")
        logs = [_tail(path, LOG_CHARACTERS) for path in (job / LOG, *own_logs)]
        ends = [_last_lines(path) for path in own_logs]
        failure = "\n".join([*compiler_reasons("\n".join(logs)), *ends, message])
        (job / "error.txt").write_text(failure, encoding="utf-8")
        return 1
    finally:
        _append_compiler_logs(job / "work")


@optional_imports()
def _compile_job(job: Path) -> None:
    import_tensorflow()
    from neuronbert.checkpoint.reference_model import build_reference_model

    load_backend("neuron")  # from here on the emulator, if it was asked for, stands in for torch_neuron
    import torch

    facts = json.loads((job / "job.json").read_text(encoding="utf-8"))
    config, names, recipe = facts["config"], facts["input_names"], facts["recipe"]
    family = family_of(config, "config.json")
    with np.load(job / "weights.npz", allow_pickle=False) as stored:
        weights = {name: stored[name] for name in stored.files}
    model = build_reference_model(family, head_at(facts["head"]), config, weights, "token_type_ids" in names)
    model.config.return_dict = False
    arrays = example_inputs(size_of(config, family, "vocab_size"), recipe["batch_size"], recipe["sequence_length"])
    inputs = tuple(torch.from_numpy(arrays[name]) for name in names)
    (job / "work").mkdir()
    with torch.no_grad():
        traced = trace(model, inputs, recipe, job / "work")
    sys.stderr.flush()
    report = report_of(traced, _tail(job / LOG, LOG_CHARACTERS))
    torch.jit.save(traced, str(job / MODEL))
    (job / REPORT).write_text(json.dumps(list(report)), encoding="utf-8")


def compiler_reasons(log: str, most: int = 20) -> List[str]:
    """The lines of a log in which torch-neuron and neuron-cc say what failed and why: the first of each kind.

    The exception does not say it. A model has many subgraphs, whose lines differ in numbers and temporary names only.
    """
    reasons: Dict[str, str] = {}
    for line in log.splitlines():
        said = line.lstrip(". ").rstrip()  # neuron-cc prints a dot every 20 s
        if any(mark in said for mark in _MARKS) or known_failure(said, FAILURES):
            reasons.setdefault(re.sub(r"\d+|/tmp/\w+", "#", said), said)
    return list(reasons.values())[:most]


# Beside the texts of known failures: the lines with neuron-cc's own reason, and torch-neuron's after a subgraph failed.
_MARKS = ("[neuron-cc]: Error message:", "[neuron-cc]: Error class:", "ERROR:Neuron:")


def _compiler_logs(work: Path) -> List[Path]:
    return sorted(work.rglob("graph_def.neuron-cc.log"))


def _last_lines(path: Path, lines: int = 10) -> str:
    """The end of neuron-cc's own log, where it says what it could not do."""
    return "\n".join(_tail(path).splitlines()[-lines:])


def _append_compiler_logs(work: Path) -> None:
    for path in _compiler_logs(work):
        print(f"---- {path.parent.name}/{path.name}", file=sys.stderr)
        print(_tail(path, 100_000), file=sys.stderr)
