"""Compiles one bucket in a child process whose log is kept, once for every process and user of the cache.

The parent writes a job (weights, config, recipe), starts this module on it and waits; the child asks neuron.py.
"""

import contextlib
import fcntl
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
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Optional

import numpy as np

from neuronbert.backends import load_backend
from neuronbert.backends.base import ExportSource
from neuronbert.backends.neuron.failures import COMPILER_FAILURES, explained
from neuronbert.backends.neuron.tracing import CompileReport, report_of, trace
from neuronbert.backends.tracing import example_inputs
from neuronbert.checkpoint.families import family_of, head_at, size_of
from neuronbert.errors import BackendFailed

CACHE_VARIABLE = "NEURONBERT_CACHE"
# 1: the first. Another number for whatever changes what a job compiles to.
CACHE_VERSION = 1
# Tracing, reading and writing around the compiler's own time.
AROUND_THE_COMPILER_S = 600
MODEL, LOG, REPORT = "model.neuron", "compile.log", "report.json"


class Compiled(NamedTuple):
    """A compiled bucket in the cache."""

    model: Path
    log: Path
    report: CompileReport


def compile_bucket(source: ExportSource, recipe: Mapping[str, Any], versions: Mapping[str, str]) -> Compiled:
    """The compiled model for ``recipe``: from the cache, or compiled now while other processes wait for it.

    Raises what the compiler's failure is to us (neuron_errors.py), the path of its log named.
    """
    weights = weights_of(source)
    key = job_key(source, weights, recipe, versions)
    cache = cache_folder()
    with locked(cache / f"{key}.lock"):
        found = read_entry(cache / key)
        if found is not None:
            return found
        with tempfile.TemporaryDirectory(prefix=f"{key[:12]}.", dir=str(cache)) as work:
            job = Path(work)
            write_job(job, source, weights, recipe)
            failure = run_job(job, recipe.get("compiler_timeout_s"))
            report = read_report(job)
            if report is not None and failure is None:
                failure = "\n".join(CompileReport(*report).fallback())
            if failure:
                kept = cache / "failed" / f"{key[:12]}.log"
                kept.parent.mkdir(exist_ok=True)
                shutil.copyfile(job / LOG, kept)
                raise refusal(failure, report is not None, recipe, kept)
            return store(job, cache / key)


def refusal(failure: str, compiled: bool, recipe: Mapping[str, Any], log: Path) -> Exception:
    """The error for a failed job; ``compiled`` when the compiler ended well and left work on the CPU."""
    shape = f"batch {recipe['batch_size']} × {recipe['sequence_length']} tokens, {' '.join(recipe['compiler_args'])}"
    if compiled:
        return BackendFailed(
            f"the model for {shape} fell back to the CPU: {failure}",
            hint=f"the compiler's reason is in {log}; other --auto-cast, --batch-size or --sequence-length may compile",
        )
    return explained(
        failure, COMPILER_FAILURES, f"cannot compile for {shape}; the log is {log}", otherwise=f"less {log}"
    )


# ---------------------------------------------------------------------------- the cache


def cache_folder() -> Path:
    """$NEURONBERT_CACHE, or neuronbert in the user's cache folder; made if it is not there."""
    given = os.environ.get(CACHE_VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = (Path(given) if given else Path(home, "neuronbert")) / "neuron"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackendFailed(
            f"cannot write the compile cache {folder}: {error.strerror}",
            hint=f"export {CACHE_VARIABLE}=a folder that can be written to",
        ) from error
    return folder


def job_key(
    source: ExportSource, weights: Mapping[str, Any], recipe: Mapping[str, Any], versions: Mapping[str, str]
) -> str:
    """A digest of everything that the compiled file depends on: weights, config, shape, arguments, versions."""
    found = hashlib.sha256()
    facts = {
        "cache_version": CACHE_VERSION,
        "config": dict(source.config),
        "head": source.head.place,
        "input_names": list(source.input_names),
        "shape": [recipe["batch_size"], recipe["sequence_length"]],
        "compiler_args": recipe["compiler_args"],
        "versions": dict(versions),
    }
    found.update(json.dumps(facts, sort_keys=True, default=str).encode())
    for name in sorted(weights):
        array = weights[name]
        found.update(f"\n{name} {array.dtype} {array.shape}\n".encode())
        found.update(np.ascontiguousarray(array).data)
    return found.hexdigest()


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Inside, no other process that asks for the same file is; its end, however it comes, lets go of it."""
    descriptor = os.open(str(path), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def read_entry(entry: Path) -> Optional[Compiled]:
    """What the cache holds there, if it is whole."""
    report = read_report(entry)
    try:
        if report is None or (entry / "sha256").read_text() != _sha256(entry / MODEL) or not (entry / LOG).is_file():
            return None
    except OSError:
        return None
    return Compiled(entry / MODEL, entry / LOG, CompileReport(*report))


def store(job: Path, entry: Path) -> Compiled:
    """Put a finished job into the cache, under its name only when it is whole."""
    (job / "sha256").write_text(_sha256(job / MODEL))
    partial = entry.with_name(f"{entry.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    for name in (MODEL, LOG, REPORT, "sha256"):
        os.replace(job / name, partial / name)
    shutil.rmtree(entry, ignore_errors=True)  # one that read_entry found damaged
    os.rename(partial, entry)
    found = read_entry(entry)
    assert found is not None
    return found


def read_report(folder: Path) -> Optional[List[Any]]:
    """The fields of the CompileReport that a child wrote; None if there is none."""
    try:
        return list(json.loads((folder / REPORT).read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return None


def _sha256(path: Path) -> str:
    found = hashlib.sha256()
    with open(path, "rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


# ---------------------------------------------------------------------------- the parent's side of a job


def weights_of(source: ExportSource) -> Dict[str, np.ndarray]:
    """The model's parameters under transformers' names, float32."""
    model = source.torch_model().model
    return {name: parameter.detach().cpu().numpy() for name, parameter in model.named_parameters()}


def write_job(job: Path, source: ExportSource, weights: Mapping[str, Any], recipe: Mapping[str, Any]) -> None:
    """Everything the child needs, without a pickle."""
    facts = {"config": dict(source.config), "input_names": list(source.input_names), "recipe": dict(recipe)}
    facts["head"] = source.head.place
    (job / "job.json").write_text(json.dumps(facts, default=str), encoding="utf-8")
    np.savez(job / "weights.npz", **weights)


def run_job(job: Path, compiler_timeout_s: Optional[float]) -> Optional[str]:
    """Run the child to its end; what failed in its own words, or None. Its log is in the job's folder."""
    root = str(Path(__file__).resolve().parents[3])
    path = os.pathsep.join(part for part in (root, os.environ.get("PYTHONPATH")) if part)
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    limit = None if compiler_timeout_s is None else compiler_timeout_s + AROUND_THE_COMPILER_S
    with open(job / LOG, "wb") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "neuronbert.backends.neuron.compile_job", str(job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
            start_new_session=True,  # so that neuron-cc ends with it
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


def main(job: Path) -> int:
    """Compile a job; what fails goes to error.txt with the compiler's own log, and the whole story to stderr."""
    logging.basicConfig(level=logging.INFO)  # torch-neuron's reports of what it compiled
    try:
        _compile_job(job)
        return 0
    except Exception as error:
        traceback.print_exc()
        sys.stderr.flush()
        said = f"{type(error).__name__}: {error}"
        own_logs = [_last_lines(path) for path in _compiler_logs(job / "work")]
        reasons = [*_compiler_reasons(_tail(job / LOG, 100_000)), *own_logs]
        (job / "error.txt").write_text("\n".join([*reasons, said]), encoding="utf-8")
        return 1
    finally:
        _append_compiler_logs(job / "work")


def _compile_job(job: Path) -> None:
    from neuronbert.checkpoint.reference_model import build_reference_model

    load_backend("neuron")  # an emulator that is asked for stands in for torch_neuron from here on
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
    """Lines in which torch-neuron tells why a subgraph fell back: they name the cause that the exception does not."""
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


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
