"""Embeddings as sentence-transformers and transformers give them, of 1,000 texts, and recorded ones without either."""

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from tiny_checkpoints import FAMILIES
from tiny_encoders import PROMPTS, compiled

import neuronbert
from neuronbert import SentenceEncoder
from neuronbert.artifact.manifest import Artifact
from neuronbert.tasks.samples import gate_path, shipped_texts

SHIPPED = shipped_texts(gate_path())
# Questions of which many fit 24 tokens of letters and many do not, and what fits a tiny model's 64 positions.
TEXTS = [pair.question for pair in SHIPPED] + [pair.paragraph[:60] for pair in SHIPPED[:400]]
SHORT = [text[:50] for text in TEXTS]
NAMES = (*FAMILIES, "every", "unprompted")


def reference_of(folder: Path) -> Any:
    library = pytest.importorskip("sentence_transformers")
    return library.SentenceTransformer(str(folder), device="cpu")


@pytest.mark.filterwarnings("ignore:.*did not fit a row")
@pytest.mark.parametrize("name", NAMES)
def test_sentence_transformers_says_the_same(
    folders: Dict[str, Path], artifacts: Dict[str, Artifact], name: str
) -> None:
    reference = reference_of(folders[name])
    with SentenceEncoder(artifacts[name], variant="torchscript", threads=1) as encoder:
        assert encoder.max_seq_length == reference.max_seq_length
        assert encoder.get_sentence_embedding_dimension() == len(reference.encode("the"))
        for keywords in (
            {},
            {"normalize_embeddings": True},
            {"truncate_dim": 7, "normalize_embeddings": True},
            {"prompt_name": "query"},
            {"prompt": "a nice "},
            {"prompt_name": "passage"},
        ):
            ours, theirs = encoder.encode(TEXTS, **keywords), reference.encode(TEXTS, **keywords)
            assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
            np.testing.assert_allclose(ours, theirs, atol=1e-5)
        expected = reference.similarity(ours[:9], theirs[9:30])
        np.testing.assert_allclose(encoder.similarity(ours[:9], theirs[9:30]), expected, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_plain_encoder_is_pooled_as_sentence_transformers_pools_it(tmp_path: Path, family: str) -> None:
    from tiny_checkpoints import write_checkpoint

    folder = write_checkpoint(tmp_path / "plain", family, head="MaskedLM")
    reference = reference_of(folder)
    with SentenceEncoder(compiled(folder, tmp_path / "out"), variant="torchscript", threads=1) as encoder:
        np.testing.assert_allclose(encoder.encode(SHORT[::10]), reference.encode(SHORT[::10]), atol=1e-4)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("family", FAMILIES)
def test_transformers_pipeline_says_the_same(tmp_path: Path, folders: Dict[str, Path], family: str) -> None:
    transformers = pytest.importorskip("transformers")
    folder = str(folders[family])
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModel.from_pretrained(folder).eval()
    theirs = transformers.pipeline("feature-extraction", model=model, tokenizer=tokenizer)
    made = compiled(folders[family], tmp_path / "out", pooling="none")
    ours = neuronbert.pipeline("feature-extraction", model=made, variant="torchscript", threads=1, max_length=64)
    for one, other in zip(ours(SHORT), theirs(SHORT)):
        np.testing.assert_allclose(one, other, atol=1e-4)
    np.testing.assert_allclose(ours(SHORT[0]), theirs(SHORT[0]), atol=1e-4)
    tensor = ours(SHORT[0], return_tensors=True)
    np.testing.assert_allclose(tensor, theirs(SHORT[0], return_tensors=True), atol=1e-4)
    assert list(map(np.shape, ours(iter_of(SHORT[:3])))) == list(map(np.shape, theirs(SHORT[:3])))


def iter_of(texts: List[str]) -> Any:
    yield from texts


# ---- without the libraries


GOLDEN = Path(__file__).resolve().parents[2] / "data" / "golden" / "sentence-embeddings.json"
RELEASED = Path(__file__).resolve().parents[2] / "data" / "artifacts" / "schema-2"


@pytest.mark.filterwarnings("ignore:.*did not fit a row")
@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_recorded_embeddings(backend: str) -> None:
    """What sentence-transformers made of the checkpoint that the artifact of schema 2 was compiled from."""
    pytest.importorskip(backend)
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    with SentenceEncoder(RELEASED, variant=backend, threads=1) as encoder:
        assert encoder.prompts == PROMPTS
        for case in golden["cases"]:
            found = encoder.encode(golden["texts"], **case["keywords"])
            np.testing.assert_allclose(found, case["embeddings"], atol=1e-5)
