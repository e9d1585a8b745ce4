"""TVM as a backend: what is compiled answers as torch does, what is measured is kept, and nothing else is."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np
import psutil
import pytest
from compile_many import CASES, SHAPE, source_of
from tiny_source import TinySource, difference, random_batch

from neuronbert.artifact.manifest import Artifact
from neuronbert.backends.base import Batch
from neuronbert.backends.child import start_child
from neuronbert.backends.tvm import backend, compile_job
from neuronbert.backends.tvm.compile_job import EXPORTED, FILES, RECORDS, run_job
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.engine.engine import Engine
from neuronbert.errors import ArtifactError, BackendFailed, BackendUnavailable, UsageError, counted
from neuronbert.hardware.machine import library_version
from neuronbert.hardware.requirements import unmet_requirements

# By its distribution: where its folder is on the path, this one is a module of that name, too.
pytestmark = pytest.mark.skipif(library_version("apache-tvm") is None, reason="apache-tvm is not installed")

RECIPE = {**SHAPE, "threads": 2, "tuning_minutes": 0.05}
TOLERANCE = 1e-4  # as of the other engines in FP32 (test_contract.py)
NAMES = "json.py tvm.py tvm_ffi.py torch.py numpy.py cloudpickle.py psutil.py sitecustomize.py".split()


for place in (Path(__file__).parent, Path(__file__).parents[1]):  # for children
    sys.path.append(str(place))


class Told(TinySource):
    """A source that keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: List[Tuple[str, int, int]] = []
        self.lines: List[str] = []

    def progress(self, line: str) -> None:
        self.lines.append(line)

    def on_step(self, what: str, done: int, total: int) -> None:
        self.steps.append((what, done, total))


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dict[str, Any]]:
    """A tiny model tuned for three seconds, in a folder of modules that nobody shall import."""
    folder, trap = tmp_path_factory.mktemp("tuned"), tmp_path_factory.mktemp("trap")
    for name in NAMES:
        (trap / name).write_text(f"open({str(trap / 'ran')!r}, 'a').write({name!r}); raise SystemExit")
    before, source = Path.cwd(), Told()
    os.chdir(trap)
    try:
        result = backend.export(source, "fp32", RECIPE, Path(os.path.relpath(folder)))
    finally:
        os.chdir(before)
    yield {"folder": folder, "trap": trap, "source": source, "result": result}


def variant_of(recipe: Dict[str, Any]) -> Dict[str, Any]:
    return {"name": "tvm-b2-s24", "recipe": recipe, **SHAPE}


def loaded(tuned: Dict[str, Any], threads: int = 2, streams: int = 1) -> backend.TvmSession:
    variant, outputs = variant_of(tuned["result"].recipe), tuned["source"].outputs
    return backend.load(tuned["folder"], variant, outputs=outputs, threads=threads, streams=streams)


def records_in(folder: Path) -> int:
    return len((folder / RECORDS).read_text().splitlines())


def test_it_is_tuned_within_its_minutes_and_keeps_the_records(tuned):
    recipe, folder = tuned["result"].recipe, tuned["folder"]
    # How many, the neighbours decide; a candidate that is being measured is finished.
    assert recipe["trials"] >= 1 and recipe["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert recipe["tuned_s"] >= 60 * RECIPE["tuning_minutes"]
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    assert records_in(folder) == recipe["trials"]
    assert all(json.loads(line) for line in (folder / RECORDS).read_text().splitlines())
    assert any(
        line.startswith(f"{counted(recipe['trials'], 'candidate')} measured in ") for line in tuned["source"].lines
    )
    steps = tuned["source"].steps
    assert len(steps) >= recipe["trials"] and {(what, total) for what, _, total in steps} == {("seconds of tuning", 3)}
    assert unmet_requirements(tuned["result"].requires) == [] and tuned["result"].requires["libraries"]


def test_nothing_of_the_working_directory_is_run_or_written(tuned):
    assert sorted(path.name for path in tuned["trap"].iterdir()) == sorted(NAMES)


def test_a_later_compile_begins_with_what_was_measured_and_needs_none_of_it(tuned, tmp_path):
    kept = list(compile_job._kept(RECIPE).glob("*.records"))
    damaged = kept[0].read_bytes()
    kept[0].write_bytes(damaged[:-9])
    source = Told()
    again = backend.export(source, "fp32", {**RECIPE, "tuning_minutes": 0.0}, tmp_path)
    kept[0].write_bytes(damaged)
    assert again.recipe["trials"] == 0
    assert records_in(tmp_path) <= records_in(tuned["folder"])  # the fastest ones of each function
    assert [line for line in source.lines if "not all kept for later compiles" in line and str(kept[0]) in line]


def test_kept_records_come_back_and_damaged_ones_do_not(tuned, tmp_path):
    with open(tmp_path / "log", "wb") as log:
        child = start_child("keep_records", tuned["folder"], tmp_path, stdout=log, stderr=log)
    assert child.wait(300) == 0, (tmp_path / "log").read_text()


def test_it_agrees_with_torch_whatever_calls_it(tuned):
    batches = [random_batch(*SHAPE.values(), seed=seed, padding=seed % 9) for seed in range(12)]
    expected = [tuned["source"].logits(batch) for batch in batches]
    for streams in (1, 2):
        session = loaded(tuned, streams=streams)
        assert (session.concurrency, session.precision, session.copies) == (streams, "fp32", 1)
        with ThreadPoolExecutor(4) as pool:
            for batch, found, wanted in zip(batches, pool.map(session.run, batches), expected):
                assert difference(found, wanted, batch.attention_mask) < TOLERANCE
        session.close()


@pytest.mark.parametrize("threads, streams, each", [(1, 1, 1), (3, 1, 3), (4, 2, 2), (1, 2, 1)])
def test_its_threads_are_as_many_as_were_asked_for(tuned, threads, streams, each):
    import tvm

    before = os.environ.get("TVM_NUM_THREADS")
    session = loaded(tuned, threads=threads, streams=streams)
    assert session._runners is not None
    assert session._runners.submit(tvm.get_global_func("runtime.NumThreads")).result() == each
    assert os.environ.get("TVM_NUM_THREADS") == before
    session.close()


def test_all_of_its_threads_work(tuned):
    before = set(processor_seconds())
    session = loaded(tuned, threads=2)
    batch = random_batch(*SHAPE.values())
    session.run(batch)
    time.sleep(1)  # a thread that waits for work polls for a while
    started, deadline = processor_seconds(), time.monotonic() + 60
    while time.monotonic() < deadline:  # on a busy machine, too, each gets its share
        for _ in range(100):
            session.run(batch)
        used = {thread: seconds - started.get(thread, 0.0) for thread, seconds in processor_seconds().items()}
        caller_and_worker = sorted(seconds for thread, seconds in used.items() if thread not in before)[-2:]
        if len(caller_and_worker) == 2 and min(caller_and_worker) > 0.1:
            break
    else:
        pytest.fail(f"seconds that its threads computed for: {caller_and_worker}")
    session.close()


def processor_seconds() -> Dict[int, float]:
    """Of each thread of this process."""
    return {thread.id: thread.user_time + thread.system_time for thread in psutil.Process().threads()}


def test_failures_are_our_errors(tuned, tmp_path):
    session = loaded(tuned)
    with pytest.raises(BackendFailed, match=r"batch of shape \(1, 90\)"):
        session.run(random_batch(1, 90))
    batch = random_batch(*SHAPE.values())
    session.run(batch)  # it lives on
    outside = Batch(batch.input_ids + 10_000_000, *batch[1:])
    assert all(np.isfinite(array).all() for array in session.run(outside).values())  # no memory beyond the table
    session.close()
    session.close()
    with pytest.raises(BackendFailed, match="closed"):
        session.run(batch)
    for name in FILES:
        (tmp_path / name).write_bytes((tuned["folder"] / name).read_bytes()[:100])
    with pytest.raises(BackendFailed, match="cannot load"):
        backend.load(tmp_path, variant_of(tuned["result"].recipe), outputs=(), threads=1, streams=1)


def test_a_fork_is_told_to_load_for_itself(tuned):
    session, batch = loaded(tuned), random_batch(*SHAPE.values())
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            session.run(batch)
        except BackendFailed as error:
            os.write(writing, error.message.encode())
        session.close()
        os._exit(0)
    os.close(writing)
    with open(reading) as said:
        assert said.read() == "this process was forked after tvm had loaded its model"
    assert os.waitpid(child, 0)[1] == 0
    session.run(batch)
    session.close()


LOADS_LIGHTLY = """
import os, sys
before = os.sched_getaffinity(0)
from pathlib import Path
from neuronbert.backends.tvm import backend, compile_job
from neuronbert.backends.outputs import PER_TOKEN, Output
outputs = [Output("start_logits", PER_TOKEN), Output("end_logits", PER_TOKEN)]
variant = {"name": "x", "batch_size": 2, "sequence_length": 24}
variant["recipe"] = {"inputs": ["input_ids", "attention_mask", "token_type_ids"]}
backend.load(Path(sys.argv[1]), variant, outputs=outputs, threads=1, streams=1).close()
assert "torch" not in sys.modules
assert os.sched_getaffinity(0) == before and "TVM_BIND_THREADS" not in os.environ
assert "tvm_compiler" not in Path("/proc/self/maps").read_text()
"""


def test_loading_needs_neither_torch_nor_the_compiler_and_writes_nothing(tuned, tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "PATH": ""}
    command = [sys.executable, "-c", LOADS_LIGHTLY, str(tuned["folder"])]
    done = subprocess.run(command, env=environment, cwd=str(tmp_path), capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    assert os.listdir(tmp_path) == []


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("many")
    with open(folder / "log", "wb") as log:
        child = start_child("compile_many", folder, stdout=log, stderr=log)
    assert child.wait(600) == 0, (folder / "log").read_text()
    return folder


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda number: "-".join(CASES[number]))
def test_families_and_tasks_agree_with_torch(many, number):
    source = source_of(*CASES[number])
    variant = variant_of({"inputs": list(source.input_names)})
    session = backend.load(many / str(number), variant, outputs=source.outputs, threads=2, streams=1)
    for padding in (0, 7):
        batch = random_batch(*SHAPE.values(), seed=padding, padding=padding)
        found, wanted = session.run(batch), source.logits(batch)
        for name in wanted:
            kept = batch.attention_mask.astype(bool) if found[name].shape[:2] == batch.input_ids.shape else slice(None)
            spread = float(np.ptp(wanted[name][kept])) or 1.0
            assert float(np.abs(found[name] - wanted[name])[kept].max()) < TOLERANCE * spread
    session.close()


# ---------------------------------------------------------------------------- as a person sees it


@pytest.fixture(scope="module")
def artifact(neuron_cache: Path, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Two shapes of a tiny reader."""
    output = tmp_path_factory.mktemp("artifact") / "out"
    options = {"sequence_length": "64,128", "tuning_minutes": 0.02, "skip_gate": True}
    return compile_checkpoint(tiny_checkpoint, output, backend="tvm", precision="fp32", **options)


def test_an_artifact_has_a_variant_for_each_shape(artifact):
    assert [variant["name"] for variant in artifact.variants] == ["tvm-b1-s64", "tvm-b1-s128"]
    for variant in artifact.variants:
        assert (variant["pipeline_cores"], variant["emulated"]) == (None, False)
        assert variant["recipe"]["tuning_minutes"] == 0.01
        assert {Path(name).name for name in variant["files"]} == set(FILES)
        assert variant["selftest_tolerance"] < 1


def test_it_is_loaded_only_by_name(artifact):
    with pytest.raises(ArtifactError, match="is a tvm program"):
        Engine(artifact.folder)
    with Engine(artifact.folder, variant="tvm") as engine:
        assert engine.plan.lengths == (64, 128)
        answers = engine.answer([{"question": "who", "context": "the king of france " * 9}] * 3)
        assert answers[0] == answers[1] == answers[2] and answers[0]


def test_a_compile_that_is_interrupted_leaves_nothing(tiny_checkpoint, tmp_path):
    command = [sys.executable, "-m", "neuronbert", "compile", str(tiny_checkpoint), str(tmp_path / "out")]
    command += ["--backend", "tvm", "--precision", "fp32", "--tuning-minutes", "5", "--sequence-length", "32"]
    environment = {**os.environ, "NEURONBERT_CACHE": str(tmp_path / "cache")}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stderr is not None
        next(line for line in process.stderr if "seconds of tuning" in line)
        assert len(jobs_in(tmp_path)) == 1
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
    assert jobs_in(tmp_path) == []
    assert os.listdir(tmp_path) == ["cache"]


def jobs_in(folder: Path) -> List[str]:
    """The processes that work for a compile into ``folder``."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:  # it has just ended
            continue
        if any(word.startswith(bytes(folder)) and b"partial" in word for word in words):
            found.append(path.parent.name)
    return found


@pytest.mark.parametrize("minutes", [-1, float("nan"), float("inf"), "10", True, None, 1e9])
def test_minutes_that_are_none_are_refused(tmp_path, minutes):
    with pytest.raises(UsageError, match="tuning_minutes must be a number from 0 to 10080, not"):
        compile_checkpoint("demo", tmp_path / "out", backend="tvm", precision="fp32", tuning_minutes=minutes)


def test_what_is_missing_is_said_before_anything_is_read(monkeypatch):
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BackendUnavailable, match="needs a C compiler") as caught:
        backend.check_available("fp32")
    assert "apt install gcc" in str(caught.value.hint)
    with pytest.raises(UsageError, match="--no-device is for what is compiled for Inferentia, not for tvm"):
        compile_checkpoint("demo", "never", backend="tvm", precision="fp32", no_device=True)


EXPORTS_WITHOUT_ROOM = """
import resource, sys
from pathlib import Path
sys.path.append(sys.argv[2])
from tiny_source import TinySource
from neuronbert.artifact.files import new_folder
from neuronbert.backends.tvm import backend, compile_job
from neuronbert.errors import OutputError
source = TinySource()
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    with new_folder(Path(sys.argv[1])) as folder:
        recipe = {"batch_size": 1, "sequence_length": 16, "threads": 1, "tuning_minutes": 0.0}
        backend.export(source, "fp32", recipe, folder)
except OutputError as error:
    print(error.message)
"""


def test_no_room_for_the_files_is_an_error_of_the_output(tuned, tmp_path):
    output = tmp_path / "out" / "variant"
    command = [sys.executable, "-c", EXPORTS_WITHOUT_ROOM, str(output), str(Path(__file__).parents[1])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.stdout == f"cannot write {output}: a file would be larger than this process may write\n", done.stderr
    assert not output.parent.exists()


def test_a_child_that_fails_is_told_of_in_its_own_words(neuron_cache, tmp_path):
    (tmp_path / EXPORTED).write_bytes(b"not a model")
    with pytest.raises(BackendFailed, match="tvm cannot compile this model for 2 × 24 tokens: .*zip") as caught:
        run_job(tmp_path, RECIPE, lambda trials: None)
    assert caught.value.hint == "--backend openvino or onnxruntime"


def test_a_linker_that_does_not_work_is_found_before_the_tuning(neuron_cache, tmp_path, monkeypatch):
    monkeypatch.setenv("CC", "/nowhere/cc")
    monkeypatch.setenv("TVM_USE_RUNTIME_LIB", "1")  # a user's own: the job needs the compiler all the same
    with pytest.raises(BackendUnavailable, match="needs a C compiler that links: .*/nowhere/cc") as caught:
        run_job(tmp_path, RECIPE, lambda trials: None)
    assert "CC=" in str(caught.value.hint)


def test_a_job_that_does_not_end_is_ended_and_told_so(neuron_cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compile_job, "AROUND_THE_TUNING_S", -2.9)
    with pytest.raises(BackendFailed, match="it did not end within 0 minutes"):
        run_job(tmp_path, RECIPE, lambda trials: None)
