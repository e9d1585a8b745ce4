"""An emulated inf1 instance for each test, and artifacts compiled on one once for the whole run."""

import os

import pytest
from emulated import compile_emulated

from neuronbert.artifact.manifest import Artifact

DATA_PARALLEL = {"batch_size": 2, "sequence_length": "64,128"}
PIPELINE = {"mode": "pipeline", "neuroncore_pipeline_cores": 2, "batch_size": 1, "sequence_length": 64}


@pytest.fixture(scope="session")
def data_parallel_artifact(neuron_cache, tiny_checkpoint, tmp_path_factory) -> Artifact:
    """Two buckets of two rows, one core each."""
    return compile_emulated(tiny_checkpoint, tmp_path_factory.mktemp("dp"), **DATA_PARALLEL)


@pytest.fixture(scope="session")
def pipeline_artifact(neuron_cache, tiny_checkpoint, tmp_path_factory) -> Artifact:
    """One bucket of one row over two cores."""
    return compile_emulated(tiny_checkpoint, tmp_path_factory.mktemp("pipeline"), **PIPELINE)


@pytest.fixture
def start_emulator(tmp_path, monkeypatch):
    """Turns an emulator on; afterwards it is off and every variable as it was."""
    pytest.importorskip("torch")
    from neuronbert import emulator

    for name in list(os.environ):
        if name.startswith("NEURON") and name != "NEURONBERT_CACHE":
            monkeypatch.delenv(name)

    def start(instance="inf1.xlarge", **options):
        emulator.stop()
        emulator.use(instance, directory=str(options.pop("directory", tmp_path / "emulator")), **options)

    yield start
    emulator.stop()
