"""Models that run on the emulator of an inf1 instance: served like any other, and called EMULATED everywhere."""

import sys
from pathlib import Path
from typing import Dict, Iterator

import pytest
from backends.emulated import compile_emulated

from server.hostile import QUESTION
from server.served import Served, serving

NAMES = ["answers", "labels"]
if sys.version_info < (3, 11):  # the inf1 stack: what is asked of every server is asked of this module's too
    from server.test_protocols import (  # noqa: F401
        test_an_error_names_the_place_in_the_body,
        test_bodies_may_be_packed,
        test_cohere,
        test_errors_have_the_form_of_their_protocol,
        test_openai,
        test_text_embeddings_inference,
        test_the_other_tasks_answer_as_hugging_face_does,
        test_what_a_model_does_not_offer_is_not_found,
        test_what_openai_cannot_have,
        test_what_was_cut_says_so,
    )

    NAMES += ["ranks", "tags", "embeds"]


@pytest.fixture(scope="module")
def served(
    tiny_checkpoint: Path, checkpoints: Dict[str, Path], neuron_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Served]:
    """A model of each task, compiled for an inf1.xlarge, on an inf1.6xlarge: each on a core of its own."""
    folder = tmp_path_factory.mktemp("emulated")
    all_checkpoints = {"answers": tiny_checkpoint, **checkpoints}
    artifacts = {
        name: compile_emulated(all_checkpoints[name], folder / name, batch_size=2, sequence_length=64).folder
        for name in NAMES
    }
    places = [f"{name}={artifact}" for name, artifact in artifacts.items()]
    arguments = ("--instance-type", "inf1.6xlarge", "--workers", "1", "--allow-reload")
    with serving(folder, *places, *arguments, environment={"NEURONBERT_EMULATE": "inf1.6xlarge"}) as server:
        yield server


def test_no_answer_passes_for_the_hardwares(served: Served) -> None:
    answer = served.ask("/", {"inputs": QUESTION})
    assert answer.status == 200 and answer.headers["x-emulated"] == "true"
    assert "EMULATED" in served.logged("serving ")
    for model in served.ask("/info").json["models"]:
        assert model["emulated"] and all(variant["emulated"] for variant in model["variants"])
    assert 'emulated="true"' in served.ask("/metrics").body.decode()
    assert served.ask("/v2/models/answers").json["parameters"]["emulated"] is True
    assert served.ask("/v2/models/answers/stats").json["runner"]["emulated"] is True


def cores_of(served: Served, name: str) -> str:
    (worker,) = served.ask(f"/v2/models/{name}/stats").json["runner"]["workers"]
    return str(worker["cores"])


def test_no_two_models_want_the_same_core_and_a_new_one_is_loaded_beside_the_old(served: Served) -> None:
    assert sorted(cores_of(served, name) for name in NAMES) == [f"NeuronCore {core}" for core in range(len(NAMES))]
    assert served.ask("/v2/repository/models/answers/load", {}).status == 200
    assert cores_of(served, "answers") == f"NeuronCore {len(NAMES)}"
    assert served.ask("/", {"inputs": QUESTION}).status == 200
