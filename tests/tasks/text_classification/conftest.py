"""Checkpoints and artifacts of tiny classifiers, made once for all the tests of text classification in a process."""

from pathlib import Path
from typing import Iterator

import pytest
from tiny_classifiers import compiled, write_classifier

from neuronbert.artifact.manifest import Artifact
from neuronbert.engine.engine import Engine


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where they are."""
    pytest.importorskip("torch")
    return tmp_path_factory.mktemp("classifiers")


@pytest.fixture(scope="session")
def checkpoint(folder: Path) -> Path:
    """A BERT that tells three labels apart."""
    return write_classifier(folder / "checkpoint")


@pytest.fixture(scope="session")
def artifact(checkpoint: Path, folder: Path) -> Artifact:
    """Compiled by torch in FP32."""
    return compiled(checkpoint, folder / "artifact")


@pytest.fixture(scope="session")
def engine(artifact: Artifact) -> Iterator[Engine]:
    """It, loaded."""
    with Engine(artifact, variant="torchscript", threads=1) as engine:
        yield engine


@pytest.fixture(scope="session")
def cross_encoder_checkpoint(folder: Path) -> Path:
    """A BERT that gives pairs a score."""
    return write_classifier(folder / "cross-encoder-checkpoint", labels=["relevant"])


@pytest.fixture(scope="session")
def cross_encoder(cross_encoder_checkpoint: Path, folder: Path) -> Artifact:
    """Compiled by torch in FP32."""
    return compiled(cross_encoder_checkpoint, folder / "cross-encoder")


@pytest.fixture(scope="session")
def scorer(cross_encoder: Artifact) -> Iterator[Engine]:
    """It, loaded."""
    with Engine(cross_encoder, variant="torchscript", threads=1) as engine:
        yield engine
