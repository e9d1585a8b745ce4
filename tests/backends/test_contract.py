"""What every backend promises, checked on every engine, precision and model family that this machine can run."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Dict, Iterator, NamedTuple, Tuple

import numpy as np
import pytest
from tiny_source import TinySource, difference, random_batch

from neuronbert.backends import BACKENDS, OFFERED, load_backend
from neuronbert.backends.base import Batch
from neuronbert.checkpoint.families import FAMILIES
from neuronbert.errors import BackendFailed, BackendUnavailable, UsageError
from neuronbert.hardware.requirements import unmet_requirements
from neuronbert.tasks.question_answering.task import OUTPUTS

ENGINES = [
    (name, precision)
    for name in ("openvino", "onnxruntime", "torchscript")
    for precision in load_backend(name).PRECISIONS
]
# FP32 engines order their sums differently; int8 rounds every product of a random (so: worst case) model.
TOLERANCE = {"fp32": 1e-4, "bf16": 0.1, "int8": 0.25}


class Exported(NamedTuple):
    source: TinySource
    folder: Path
    variant: Dict[str, Any]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Exports a tiny model once for each (engine, precision, family)."""
    made: Dict[Tuple[str, str, str], Exported] = {}

    def export(name: str, precision: str, model_type: str = "bert") -> Exported:
        key = (name, precision, model_type)
        if key not in made:
            backend = load_backend(name)
            try:
                backend.check_available(precision)
            except BackendUnavailable as error:
                pytest.skip(str(error))
            source, folder = TinySource(model_type), tmp_path_factory.mktemp("-".join(key))
            result = backend.export(source, precision, backend.recipes(precision)[0], folder)
            made[key] = Exported(
                source, folder, {"precision": precision, "requires": result.requires, "recipe": result.recipe}
            )
        return made[key]

    return export


@pytest.fixture
def loaded(exported: Any) -> Iterator[Any]:
    sessions = []

    def load(name: str, precision: str, model_type: str = "bert", threads: int = 2, streams: int = 1) -> Any:
        made = exported(name, precision, model_type)
        sessions.append(
            load_backend(name).load(made.folder, made.variant, outputs=OUTPUTS, threads=threads, streams=streams)
        )
        return sessions[-1], made

    yield load
    for session in sessions:
        session.close()


@pytest.mark.parametrize("model_type", FAMILIES)
@pytest.mark.parametrize("name, precision", ENGINES)
def test_agrees_with_torch_on_every_shape(loaded: Any, name: str, precision: str, model_type: str) -> None:
    session, made = loaded(name, precision, model_type)
    for rows, tokens, padding in ((1, 1, 0), (1, 33, 0), (3, 20, 6), (5, 64, 0), (2, 12, 3)):
        batch = random_batch(rows, tokens, seed=rows, padding=padding)
        logits = session.run(batch)
        assert logits["start_logits"].shape == logits["end_logits"].shape == (rows, tokens)
        assert logits["start_logits"].dtype == logits["end_logits"].dtype == np.float32
        if tokens > 1:
            assert difference(logits, made.source.logits(batch), batch.attention_mask) < TOLERANCE[precision]


@pytest.mark.parametrize("name, precision", ENGINES)
def test_runs_in_the_precision_it_was_asked_for(loaded: Any, name: str, precision: str) -> None:
    session, made = loaded(name, precision)
    assert session.precision == precision
    assert unmet_requirements(made.variant["requires"]) == []


@pytest.mark.parametrize("name, precision", ENGINES)
def test_a_row_depends_on_its_batch_only_where_that_is_said(loaded: Any, name: str, precision: str) -> None:
    session, _ = loaded(name, precision)
    batch = random_batch(4, 40, padding=8)
    together = session.run(batch)
    drift = 0.0
    for row in range(4):
        length = int(batch.attention_mask[row].sum())
        alone = session.run(Batch(*(field[row : row + 1, :length] for field in batch)))
        drift = max(drift, float(np.abs(alone["start_logits"][0] - together["start_logits"][row, :length]).max()))
    assert (drift < 1e-4 * float(np.ptp(together["start_logits"]))) == load_backend(name).batch_invariant(precision)


@pytest.mark.parametrize("streams", (1, 2))
@pytest.mark.parametrize("name, precision", ENGINES)
def test_runs_from_several_threads_at_once(loaded: Any, name: str, precision: str, streams: int) -> None:
    session, _ = loaded(name, precision, streams=streams)
    assert session.concurrency == streams
    batches = [random_batch(1 + seed % 3, 10 + seed, seed=seed) for seed in range(24)]
    expected = [session.run(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:  # more callers than the session promised: they wait
        for actual, one in zip(pool.map(session.run, batches), expected):
            np.testing.assert_allclose(actual["start_logits"], one["start_logits"], rtol=0, atol=1e-5)
            np.testing.assert_allclose(actual["end_logits"], one["end_logits"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name, precision", [(name, precision) for name, precision in ENGINES if precision == "fp32"])
def test_failures_are_our_errors(loaded: Any, exported: Any, tmp_path: Path, name: str, precision: str) -> None:
    session, made = loaded(name, precision)
    with pytest.raises(BackendFailed, match=r"batch of shape \(1, 90\)"):
        session.run(random_batch(1, 90))  # longer than the position embeddings
    session.run(random_batch(1, 9))  # and it lives on
    session.close()
    session.close()
    with pytest.raises(BackendFailed, match="closed"):
        session.run(random_batch(1, 9))
    for file in made.folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[:100])
    with pytest.raises(BackendFailed, match="cannot load"):
        load_backend(name).load(tmp_path, made.variant, outputs=OUTPUTS, threads=1, streams=1)


@pytest.mark.parametrize("name", BACKENDS)
def test_an_unknown_precision_names_those_there_are(name: str) -> None:
    with pytest.raises(BackendUnavailable, match="'int3'") as caught:
        load_backend(name).check_available("int3")
    assert "fp32" in str(caught.value.hint)


@pytest.mark.parametrize("name", [name for name in BACKENDS if not load_backend(name).STATIC_SHAPES])
def test_plans_keep_every_thread_busy(name: str) -> None:
    for threads in (1, 2, 7, 64):
        plan = load_backend(name).throughput_plan(threads)
        # The batches that an accelerator has at once are no threads of the CPU.
        most = threads if load_backend(name).DEVICE == "cpu" else 8
        assert 1 <= plan.streams <= most and plan.rows >= 1 and plan.tokens >= 512


def test_an_unknown_backend_names_those_there_are() -> None:
    with pytest.raises(UsageError, match="'tensorrt'") as caught:
        load_backend("tensorrt")
    assert all(name in str(caught.value.hint) for name in OFFERED) and "echo" not in str(caught.value.hint)


LOADS_LIGHTLY = """
import sys
from pathlib import Path
import numpy as np
from neuronbert.backends import load_backend
from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import PER_TOKEN, Output
outputs = [Output("start_logits", PER_TOKEN), Output("end_logits", PER_TOKEN)]
variant = {"precision": sys.argv[3], "recipe": {}}
session = load_backend(sys.argv[1]).load(Path(sys.argv[2]), variant, outputs=outputs, threads=1, streams=1)
ones = np.ones((1, 9), dtype=np.int64)
assert session.run(Batch(ones, ones, ones))["start_logits"].shape == (1, 9)
heavy = {"torch", "transformers", "nncf", "onnx", "openvino_telemetry"} & set(sys.modules)
assert not heavy, heavy
"""


@pytest.mark.parametrize("name, precision", [engine for engine in ENGINES if engine[0] != "torchscript"])
def test_loading_imports_nothing_heavy_and_writes_nothing(
    exported: Any, tmp_path: Path, name: str, precision: str
) -> None:
    made = exported(name, precision)
    before = sorted(made.folder.rglob("*"))
    run_in_empty_home(tmp_path, LOADS_LIGHTLY, name, str(made.folder), precision)
    assert sorted(made.folder.rglob("*")) == before


EXPORTS_HERE = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tiny_source import TinySource
from neuronbert.backends import load_backend
backend = load_backend(sys.argv[1])
backend.export(TinySource(), sys.argv[2], backend.recipes(sys.argv[2])[0], Path(sys.argv[3]))
"""


@pytest.mark.parametrize("name, precision", [("openvino", "int8"), ("onnxruntime", "int8"), ("torchscript", "fp32")])
def test_exporting_writes_into_its_folder_and_prints_nothing(
    exported: Any, tmp_path: Path, name: str, precision: str
) -> None:
    exported(name, precision)  # skips where it cannot run
    folder = tmp_path / "variant"
    folder.mkdir()
    stdout = run_in_empty_home(
        tmp_path / "home", EXPORTS_HERE, name, precision, str(folder), str(Path(__file__).parent)
    )
    assert stdout == ""
    expected = {file.name for file in exported(name, precision).folder.iterdir()}
    assert {file.name for file in folder.iterdir()} == expected


EXPORTS_WITHOUT_ROOM = """
import errno, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[4])
from tiny_source import TinySource
from neuronbert.artifact.files import new_folder
from neuronbert.backends import load_backend
from neuronbert.errors import OutputError
backend, source = load_backend(sys.argv[1]), TinySource()
resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192))
try:
    with new_folder(Path(sys.argv[3])) as folder:
        backend.export(source, sys.argv[2], backend.recipes(sys.argv[2])[0], folder)
except OutputError as error:
    assert error.__cause__.errno == errno.EFBIG, error.__cause__
    print(error.message)
"""


@pytest.mark.parametrize("name", ["openvino", "onnxruntime", "torchscript"])
def test_no_room_for_the_files_is_an_error_of_the_output(exported: Any, tmp_path: Path, name: str) -> None:
    exported(name, "fp32")  # skips where it cannot run
    output = tmp_path / "out" / "variant"
    stdout = run_in_empty_home(
        tmp_path / "home", EXPORTS_WITHOUT_ROOM, name, "fp32", str(output), str(Path(__file__).parent)
    )
    assert stdout == f"cannot write {output}: a file would be larger than this process may write\n"
    assert not output.parent.exists()


def run_in_empty_home(home: Path, script: str, *arguments: str) -> str:
    """Run ``script`` with its home, temporary and working folder in ``home``, which must stay empty; its stdout."""
    home.mkdir(exist_ok=True)
    root = str(Path(__file__).parents[2])
    environment = {
        **os.environ,
        "HOME": str(home),
        "TMPDIR": str(home),
        "PYTHONPATH": root,
        "PYTHONDONTWRITEBYTECODE": "1",
        # transformers 4.30 writes its cache's version down when it is imported.
        "HF_HOME": str(home.with_name("hf")),
    }
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments],
        cwd=str(home),
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert [str(path) for path in home.rglob("*")] == []
    return done.stdout
