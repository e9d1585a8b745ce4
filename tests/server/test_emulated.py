"""A model that runs on the emulator of an inf1 instance: served like any other, and called EMULATED everywhere."""

from pathlib import Path
from typing import Iterator

import pytest
from backends.emulated import compile_emulated

from server.served import Served, serving

QUESTION = {"question": "who was jim henson?", "context": "jim henson was a nice puppet"}


@pytest.fixture(scope="module")
def emulated(tiny_checkpoint: Path, neuron_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("emulated")
    artifact = compile_emulated(tiny_checkpoint, folder / "artifact", batch_size=2, sequence_length=64)
    environment = {"NEURONBERT_EMULATE": "inf1.xlarge"}
    with serving(folder, f"twin={artifact.folder}", "--workers", "2", environment=environment) as server:
        yield server


def test_no_answer_passes_for_the_hardwares(emulated: Served) -> None:
    answer = emulated.ask("/", {"inputs": QUESTION})
    assert answer.status == 200 and answer.headers["x-emulated"] == "true"
    assert "EMULATED" in emulated.logged("serving ")
    (model,) = emulated.ask("/info").json["models"]
    assert model["emulated"] and all(variant["emulated"] for variant in model["variants"])
    assert 'emulated="true"' in emulated.ask("/metrics").body.decode()
    assert emulated.ask("/v2/models/twin").json["parameters"]["emulated"] is True
    assert emulated.ask("/v2/models/twin/stats").json["runner"]["emulated"] is True


def test_each_worker_has_its_own_core(emulated: Served) -> None:
    workers = emulated.ask("/v2/models/twin/stats").json["runner"]["workers"]
    assert [worker["cores"] for worker in workers] == ["NeuronCore 0", "NeuronCore 1"]
