"""What many tests share: checkpoints and artifacts, made once for the whole run."""

import os
import re
import shutil
from pathlib import Path
from typing import Iterator, List

import pytest
from filelock import FileLock
from hypothesis import HealthCheck, settings
from tiny_checkpoints import write_checkpoint

from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.tasks.samples import gate_path

# Tests run processes side by side: torch's threads must not spin while they wait for one another, or a model with two
# of them takes ten times as long beside a busy neighbour. Set before anything loads torch; children inherit it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# What a process that is started cannot write stays in its buffers, as it does on any machine.
os.environ.pop("PYTHONUNBUFFERED", None)
# Without a GPU, Triton's kernels are tested in its interpreter, which is chosen when anything first imports triton.
if not os.path.exists("/dev/nvidia0"):
    os.environ.setdefault("TRITON_INTERPRET", "1")
# Artifacts of the echo backend that fail on purpose are our own here.
os.environ["NEURONBERT_ECHO_FAULTS"] = "1"

# Deadlines and the health check of this name time a test, and a busy machine makes it fail for nothing.
settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
# What CI says depends on the change alone; other runs look for new examples.
settings.register_profile("repeatable", settings.get_profile("untimed"), derandomize=True)
settings.load_profile("repeatable" if os.environ.get("CI") else "untimed")


# What takes longest, in the order in which it should begin: the processes of one run (tools/test) take a file each, and
# while the last file runs, the others idle.
LONGEST_FIRST = (
    "tests/test_tutorials.py",
    "tests/compiler/test_compilation.py",
    "tests/backends/neuron/",
    "tests/planner/test_planning.py",
    "tests/tools/test_inf1_acceptance.py",
)


def pytest_collection_modifyitems(items: List[pytest.Item]) -> None:
    """Move the tests that take longest to the front."""

    def rank(item: pytest.Item) -> int:
        return next(
            (rank for rank, path in enumerate(LONGEST_FIRST) if item.nodeid.startswith(path)), len(LONGEST_FIRST)
        )

    items.sort(key=rank)


EMULATED = os.environ.get("NEURONBERT_EMULATE")


@pytest.hookimpl(trylast=True)  # after the fixtures' own
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A test that leaves the emulator on fails itself, instead of one that comes after it in the same process."""
    left = os.environ.get("NEURONBERT_EMULATE")
    if left != EMULATED:
        os.environ.pop("NEURONBERT_EMULATE")
        pytest.fail(f"{item.nodeid} leaves NEURONBERT_EMULATE={left}")


@pytest.fixture(scope="session")
def shared_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of one run share; what they make there needs a lock."""
    of_process = tmp_path_factory.getbasetemp()
    return of_process.parent if hasattr(request.config, "workerinput") else of_process


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT that the gate's 500 questions pass through in seconds: it knows their words, so they are short."""
    words = re.findall(r"\w+", gate_path().read_text(encoding="utf-8").lower())
    return write_checkpoint(
        tmp_path_factory.mktemp("tiny"), "bert", more_words=sorted(set(words)), max_position_embeddings=512
    )


@pytest.fixture(scope="session", autouse=True)
def neuron_cache(shared_folder: Path) -> Iterator[Path]:
    """A cache that no other run has filled: of compiled shapes, and of what references said to the gate."""
    before = os.environ.get("NEURONBERT_CACHE")
    os.environ["NEURONBERT_CACHE"] = str(shared_folder / "cache")
    yield Path(os.environ["NEURONBERT_CACHE"])
    os.environ.pop("NEURONBERT_CACHE")
    os.environ.update({} if before is None else {"NEURONBERT_CACHE": before})


@pytest.fixture(scope="session")
def echo_artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The demo checkpoint's tokenizer and the echo backend: quick to load, answers that mean nothing."""
    output = tmp_path_factory.mktemp("echo") / "artifact"
    return compile_checkpoint("demo", output, backend="echo", precision="fp32", skip_gate=True)


@pytest.fixture(scope="session")
def demo_artifact(shared_folder: Path) -> Artifact:
    """The demo checkpoint compiled with OpenVINO in FP32 and int8; its gate is asked by the first notebook."""
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    output = shared_folder / "demo"
    with FileLock(f"{output}.lock"):
        if not output.exists():
            compile_checkpoint("demo", output, backend="openvino", precision=["fp32", "int8"], skip_gate=True)
    return load_artifact(output)


@pytest.fixture()
def echo_copy(echo_artifact: Artifact, tmp_path: Path) -> Path:
    """A copy of the echo artifact to damage."""
    return Path(shutil.copytree(echo_artifact.folder, tmp_path / "artifact"))
