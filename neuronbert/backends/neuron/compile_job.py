"""Compiles one bucket in a child process whose log is kept, once for every process and user of the cache.

The parent writes a job (weights, config, recipe), starts this module on it (backends/child.py) and waits; the child
traces the model (tracing.py beside this file).
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import List, Mapping, NamedTuple, Optional, Sequence

import numpy as np

from neuronbert.backends import load_backend
from neuronbert.backends.base import ExportSource, Recipe
from neuronbert.backends.child import start_child
from neuronbert.backends.neuron.failures import COMPILER_FAILURES, explained
from neuronbert.backends.neuron.tracing import CompileReport, import_tensorflow, report_of, trace
from neuronbert.backends.tracing import example_inputs
from neuronbert.checkpoint.families import family_of, head_at, size_of
from neuronbert.errors import BackendFailed, in_words, quoted
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.own_places import locked, own_folder
from neuronbert.hardware.untrusted import sha256_of

CACHE_VARIABLE = "NEURONBERT_CACHE"
# 1: the first. Another number for whatever changes what a job compiles to.
CACHE_VERSION = 1
# Tracing, reading and writing around the compiler's own time.
AROUND_THE_COMPILER_S = 600
MODEL, LOG, REPORT = "model.neuron", "compile.log", "report.json"


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
    cache = cache_folder()
    with locked(cache / f"{key}.lock"):
        cached = read_entry(cache / key)
        if cached is not None:
            return cached
        with tempfile.TemporaryDirectory(prefix=f"{key[:12]}.", dir=str(cache)) as work:
            job = Path(work)
            write_job(job, source, weights, recipe)
            failure = run_job(job, recipe.get("compiler_timeout_s"))
            report = read_report(job)
            if report is not None and failure is None:
                failure = "\n".join(report.fallback())
            if failure:
                log = cache / "failed" / f"{key[:12]}.log"
                log.parent.mkdir(exist_ok=True)
                shutil.copyfile(job / LOG, log)
                raise refusal(failure, report is not None, recipe, log)
            return store(job, cache / key)


def refusal(failure: str, compiled: bool, recipe: Recipe, log: Path) -> Exception:
    """The error for a failed job; ``compiled`` when the compiler ended well and left work on the CPU."""
    shape = f"batch {recipe['batch_size']} × {recipe['sequence_length']} tokens, {' '.join(recipe['compiler_args'])}"
    if compiled:
        return BackendFailed(
            f"the model for {shape} fell back to the CPU: {failure}",
            hint=f"the compiler's reason is in {quoted(log)}; "
            "other --auto-cast, --batch-size or --sequence-length may compile",
        )
    return explained(
        failure, COMPILER_FAILURES, f"cannot compile for {shape}; the log is {log}", otherwise=f"less {quoted(log)}"
    )


# ---------------------------------------------------------------------------- the cache


def cache_folder() -> Path:
    """The folder $NEURONBERT_CACHE, or ``neuronbert`` in the user's cache folder; created if it is missing."""
    chosen = os.environ.get(CACHE_VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = (Path(chosen) if chosen else Path(home, "neuronbert")) / "neuron"
    try:
        return own_folder(folder)
    except OSError as error:
        raise BackendFailed(
            f"cannot write the compile cache {folder}: {getattr(error, 'message', error.strerror)}",
            hint=f"export {CACHE_VARIABLE}=a folder of your own",
        ) from error


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
        own_logs = [_last_lines(path) for path in _compiler_logs(job / "work")]
        reasons = [*_compiler_reasons(_tail(job / LOG, 100_000)), *own_logs]
        (job / "error.txt").write_text("\n".join([*reasons, message]), encoding="utf-8")
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
    report = report_of(traced, _tail(job / LOG, 1_000_000))
    torch.jit.save(traced, str(job / MODEL))
    (job / REPORT).write_text(json.dumps(list(report)), encoding="utf-8")


def _compiler_reasons(log: str) -> List[str]:
    """Lines in which torch-neuron says why a subgraph fell back: they name the cause, which the exception does not."""
    words = ("failed on", "may not be suitable", "check that neuron-cc is installed", "returned: -", "trace error")
    return [line.strip() for line in log.splitlines() if any(word in line for word in words)][-10:]


def _compiler_logs(work: Path) -> List[Path]:
    return sorted(work.rglob("graph_def.neuron-cc.log"))


def _last_lines(path: Path, lines: int = 10) -> str:
    """The end of neuron-cc's own log, where it says what it could not do."""
    return "\n".join(_tail(path).splitlines()[-lines:])


def _append_compiler_logs(work: Path) -> None:
    for path in _compiler_logs(work):
        print(f"---- {path.parent.name}/{path.name}", file=sys.stderr)
        print(_tail(path, 100_000), file=sys.stderr)
