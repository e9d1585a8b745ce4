"""One server with a model of each task, for all tests that only ask it."""

from pathlib import Path
from typing import Dict, Iterator

import pytest
from tiny_checkpoints import write_checkpoint
from tiny_classifiers import compiled, labels_of, write_classifier
from tiny_encoders import write_sentence_folder

from neuronbert.artifact.manifest import Artifact
from server.hostile import faulty_copy, slow_copy
from server.served import Served, serving

for library in ("starlette", "uvicorn", "msgspec", "prometheus_client"):
    pytest.importorskip(library)


TAGS = ("O", "B-PER", "I-PER")


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """A tiny checkpoint of each task but question answering, and one that ranks, by name."""
    folder = tmp_path_factory.mktemp("served")
    return {
        "labels": write_classifier(folder / "labels"),
        "ranks": write_classifier(folder / "ranks", labels=["LABEL_0"]),
        "tags": write_checkpoint(folder / "tags", "bert", "TokenClassification", **labels_of(TAGS)),
        "embeds": write_sentence_folder(folder / "embeds"),
    }


@pytest.fixture(scope="session")
def artifacts(
    echo_artifact: Artifact, checkpoints: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory
) -> Dict[str, Path]:
    """An artifact of each task, and one that ranks, by name; on the echo backend: numbers that mean nothing."""
    folder = tmp_path_factory.mktemp("artifacts")
    made = {name: compiled(path, folder / name, "echo").folder for name, path in checkpoints.items()}
    return {"answers": echo_artifact.folder, **made}


@pytest.fixture(scope="session")
def served(artifacts: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server of all of them, with the options that it has without being told any."""
    places = [f"{name}={folder}" for name, folder in artifacts.items()]
    with serving(tmp_path_factory.mktemp("server"), *places, "--threads", "1") as server:
        yield server


@pytest.fixture(scope="session")
def slow_artifact(echo_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The echo artifact with batches that take a quarter of a second."""
    return slow_copy(echo_artifact.folder, tmp_path_factory.mktemp("slow") / "artifact", 0.25)


@pytest.fixture(scope="session")
def faulty_artifact(echo_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The echo artifact with words that break its worker."""
    return faulty_copy(echo_artifact.folder, tmp_path_factory.mktemp("faulty") / "artifact")
