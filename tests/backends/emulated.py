"""Compiles on an emulated inf1 instance that is there only meanwhile."""

from pathlib import Path

import pytest

from neuronbert.artifact.manifest import Artifact


def compile_emulated(
    checkpoint: Path, folder: Path, instance: str = "inf1.xlarge", faults: str = "", **options
) -> Artifact:
    """Weights that mean nothing, so no gate; the emulator is off again afterwards."""
    pytest.importorskip("torch")
    from neuronbert import emulator
    from neuronbert.compiler.compilation import compile_checkpoint

    emulator.stop()
    emulator.use(instance, directory=str(folder / "emulator"), faults=faults)
    try:
        return compile_checkpoint(checkpoint, folder / "artifact", backend="neuron", skip_gate=True, **options)
    finally:
        emulator.stop()
