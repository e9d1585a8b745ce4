"""What several tests of token classification share: a tiny tagger, and artifacts of it."""

from pathlib import Path
from typing import List

import pytest

from neuronbert.artifact.manifest import Artifact
from neuronbert.compiler.compilation import compile_checkpoint
from token_classification.tiny_taggers import write_tagger


@pytest.fixture(scope="session")
def tagger_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT with five labels, that takes 64 tokens at a time."""
    pytest.importorskip("torch")
    return write_tagger(tmp_path_factory.mktemp("tagger") / "checkpoint", "bert")


@pytest.fixture(scope="session")
def tagger_artifact(tagger_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Compiled by torch in FP32; its gate is tested by itself."""
    output = tmp_path_factory.mktemp("tagger") / "artifact"
    return compile_checkpoint(
        tagger_checkpoint, output, backend="torchscript", precision="fp32", skip_gate=True, threads=1
    )


@pytest.fixture(scope="session")
def conll_lines() -> List[str]:
    """60 sentences with 120 entities, in words that the tiny tagger knows."""
    sentence = ["jim B-PER", "henson I-PER", "was O", "a O", "nice O", "puppet B-LOC", ". O", ""]
    return sentence * 60
