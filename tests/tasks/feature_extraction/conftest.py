"""Encoders that several test files ask: sentence-transformers folders of the four families, and what compile makes."""

from pathlib import Path
from typing import Dict

import pytest
from tiny_checkpoints import FAMILIES
from tiny_encoders import WIDTH, compiled, write_dense, write_sentence_folder

from neuronbert.artifact.manifest import Artifact

# Beside mean pooling with length 1: every pooling, with layers behind them; and a prompt that does not count.
EVERY_POOLING = {
    f"pooling_mode_{name}": True
    for name in ("cls_token", "max_tokens", "mean_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens", "lasttoken")
}


@pytest.fixture(scope="package")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Path]:
    """Name → folder: the families with mean pooling, then ``every`` pooling with dense layers, and ``unprompted``."""
    pytest.importorskip("torch")
    base = tmp_path_factory.mktemp("encoders")
    made = {family: write_sentence_folder(base / family, family) for family in FAMILIES}
    made["every"] = write_sentence_folder(
        base / "every", pooling=EVERY_POOLING, kinds=("Pooling", "Dense", "Normalize", "Dense")
    )
    write_dense(made["every"] / "2_Dense", 6 * WIDTH, 20)
    gelu = "torch.nn.modules.activation.GELU"
    write_dense(made["every"] / "4_Dense", 20, 20, use_residual=True, activation_function=gelu)
    modes = {"pooling_mode_mean_tokens": True, "include_prompt": False}
    made["unprompted"] = write_sentence_folder(base / "unprompted", pooling=modes)
    return made


@pytest.fixture(scope="package")
def artifacts(folders: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Dict[str, Artifact]:
    """Each folder compiled by torch in FP32; and ``tokens``, a BERT without a pooling."""
    base = tmp_path_factory.mktemp("artifacts")
    made = {name: compiled(folder, base / name) for name, folder in folders.items()}
    made["tokens"] = compiled(folders["bert"], base / "tokens", pooling="none")
    return made


@pytest.fixture(scope="package")
def echo(folders: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Numbers that mean nothing, quick to load."""
    return compiled(folders["bert"], tmp_path_factory.mktemp("echo") / "artifact", "echo")
