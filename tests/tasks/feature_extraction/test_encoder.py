"""SentenceEncoder: forms of texts and results, similarities, and what it refuses."""

from pathlib import Path
from typing import Any, Dict, Iterator

import numpy as np
import pytest
from tiny_encoders import PROMPTS, WIDTH

import neuronbert
from neuronbert import Engine, SentenceEncoder
from neuronbert.artifact.manifest import Artifact
from neuronbert.errors import ArtifactError, BackendFailed, InputError, UsageError

TEXTS = ["the nice puppet", "who was jim henson?", "a"]
LONG = "the puppet was nice. " * 20


@pytest.fixture(scope="module")
def encoder(echo: Artifact) -> Iterator[Any]:
    with SentenceEncoder(echo, threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def real(artifacts: Dict[str, Artifact]) -> Iterator[Any]:
    with SentenceEncoder(artifacts["bert"], variant="torchscript", threads=1) as made:
        yield made


@pytest.fixture(scope="module")
def tokens(artifacts: Dict[str, Artifact]) -> Iterator[Any]:
    with SentenceEncoder(artifacts["tokens"], variant="torchscript", threads=1) as made:
        yield made


# ---- texts


def test_several_texts_and_one(encoder: Any) -> None:
    several, one = encoder.encode(TEXTS), encoder.encode(TEXTS[0])
    assert (several.shape, one.shape, several.dtype, one.dtype) == ((3, WIDTH), (WIDTH,), np.float32, np.float32)
    np.testing.assert_array_equal(several[0], one)
    np.testing.assert_array_equal(encoder.encode(np.array(TEXTS[0])), one)


@pytest.mark.parametrize("form", [tuple, np.array, iter, lambda texts: (text for text in texts)])
def test_forms_of_several_texts(encoder: Any, form: Any) -> None:
    np.testing.assert_array_equal(encoder.encode(form(TEXTS)), encoder.encode(TEXTS))


def test_no_texts(encoder: Any) -> None:
    assert encoder.encode([]).shape == (0,)
    assert encoder.encode([], convert_to_tensor=True).numel() == 0
    assert encoder.encode([], convert_to_numpy=False) == []


@pytest.mark.parametrize("texts", [None, 5, ["a", None], [["a"]], b"a"])
def test_what_is_no_text(encoder: Any, texts: Any) -> None:
    with pytest.raises(InputError, match="type"):
        encoder.encode(texts)


def test_more_texts_than_fit_one_batch_come_back_in_order(real: Any) -> None:
    texts = [("the " * (number % 7 + 1)) + "puppet" for number in range(600)]
    many = real.encode(texts)
    for number in (0, 5, 511, 512, 599):
        np.testing.assert_allclose(many[number], real.encode(texts[number]), atol=1e-5)


# ---- results


def test_torch_tensors(encoder: Any) -> None:
    torch = pytest.importorskip("torch")
    together = encoder.encode(TEXTS, convert_to_tensor=True)
    each = encoder.encode(TEXTS, convert_to_numpy=False)
    one = encoder.encode(TEXTS[0], convert_to_tensor=True)
    assert isinstance(together, torch.Tensor) and isinstance(each, list) and together.dtype == torch.float32
    assert torch.equal(together, torch.stack(each)) and torch.equal(together[0], one)
    np.testing.assert_array_equal(together.numpy(), encoder.encode(TEXTS))


def test_length_1_and_fewer_numbers(encoder: Any) -> None:
    whole = encoder.encode(TEXTS)
    cut = encoder.encode(TEXTS, truncate_dim=5)
    np.testing.assert_array_equal(cut, whole[:, :5])
    found = encoder.encode(TEXTS, truncate_dim=5, normalize_embeddings=True)
    np.testing.assert_allclose(found, cut / np.linalg.norm(cut, axis=1, keepdims=True), rtol=1e-5)


def test_an_encoder_of_fewer_numbers(echo: Artifact) -> None:
    with Engine(echo, threads=1) as engine:
        encoder = SentenceEncoder(engine, truncate_dim=6, similarity_fn_name="dot")
        assert encoder.get_sentence_embedding_dimension() == encoder.get_embedding_dimension() == 6
        assert encoder.encode(TEXTS).shape == (3, 6) and encoder.encode(TEXTS, truncate_dim=3).shape == (3, 3)
        encoder.close()  # an engine that somebody else made stays open
        assert encoder.encode("a").shape == (6,)


def test_prompts(encoder: Any) -> None:
    assert encoder.prompts == PROMPTS and encoder.default_prompt_name is None
    expected = encoder.encode([PROMPTS["query"] + text for text in TEXTS])
    for found in (
        encoder.encode(TEXTS, "query"),
        encoder.encode(TEXTS, prompt=PROMPTS["query"]),
        encoder.encode_query(TEXTS),
        encoder.encode(TEXTS, prompt_name="no such prompt", prompt=PROMPTS["query"]),
    ):
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(encoder.encode_query(TEXTS, None, "see: ", 8), encoder.encode(TEXTS, prompt="see: "))
    np.testing.assert_array_equal(encoder.encode_query(TEXTS, None, ""), encoder.encode(TEXTS))
    np.testing.assert_array_equal(encoder.encode_document(TEXTS), encoder.encode(TEXTS))
    np.testing.assert_array_equal(encoder.encode_query(TEXTS, prompt=""), encoder.encode(TEXTS))
    with pytest.raises(UsageError, match="no prompt 'title'"):
        encoder.encode(TEXTS, "title")


def test_what_the_artifact_says(encoder: Any) -> None:
    assert encoder.max_seq_length == 24 and encoder.tokenizer.cls_id == 2
    assert encoder.get_sentence_embedding_dimension() == WIDTH and encoder.similarity_fn_name == "cosine"
    assert SentenceEncoder.__name__ == "SentenceEncoder" and neuronbert.SentenceEncoder is SentenceEncoder


# ---- long texts


def test_a_long_text_is_cut_with_a_warning(real: Any) -> None:
    with pytest.warns(UserWarning, match="1 text of 2 did not fit a row") as caught:
        found = real.encode([LONG, "a"])
    assert caught[0].filename == __file__
    with pytest.warns(UserWarning):
        np.testing.assert_allclose(found[0], real.encode(LONG + "who was jim?"), atol=1e-6)


def test_a_long_text_in_parts(real: Any) -> None:
    """The mean of its parts' embeddings, each as heavy as it has tokens, of length 1 as those are."""
    ids = real.tokenizer.encode([LONG])[0].ids
    found = real.encode(LONG, long_texts="pooled")
    with Engine(real.engine.artifact, variant="torchscript", threads=1) as engine:
        (example,) = engine.encode([LONG], engine.task.ENCODE_OPTIONS(long_texts="pooled"))
        rows = [outputs["sentence_embedding"] for outputs in engine.outputs(example.windows)]
    assert len(rows) == -(-len(ids) // 22)
    mean = sum(len(window.input_ids) * row for window, row in zip(example.windows, rows))
    np.testing.assert_allclose(found, mean / np.linalg.norm(mean), atol=1e-6)
    assert np.linalg.norm(found) == pytest.approx(1, abs=1e-5)


# ---- tokens


def test_the_embeddings_of_tokens(tokens: Any) -> None:
    found = tokens.encode(TEXTS, output_value="token_embeddings")
    counts = [2 + len(encoding.ids) for encoding in tokens.tokenizer.encode(TEXTS)]
    assert [array.shape for array in found] == [(count, WIDTH) for count in counts]
    np.testing.assert_allclose(tokens.encode(TEXTS[0], output_value="token_embeddings"), found[0], atol=1e-5)
    tensors = tokens.encode(TEXTS, output_value="token_embeddings", convert_to_tensor=True)
    np.testing.assert_array_equal(tensors[1].numpy(), found[1])


def test_an_artifact_has_embeddings_of_one_kind(encoder: Any, tokens: Any) -> None:
    with pytest.raises(UsageError, match="none of its tokens") as caught:
        encoder.encode(TEXTS, output_value="token_embeddings")
    assert "--pooling none" in str(caught.value.hint)
    with pytest.raises(UsageError, match="none of a text") as caught:
        tokens.encode(TEXTS)
    assert "--pooling mean" in str(caught.value.hint)


# ---- similarities


@pytest.mark.parametrize("name", ["cosine", "dot", "euclidean", "manhattan"])
def test_similarities_by_every_measure(echo: Artifact, name: str) -> None:
    with SentenceEncoder(echo, threads=1, similarity_fn_name=name) as encoder:
        embeddings = encoder.encode(TEXTS)
        table = encoder.similarity(embeddings, embeddings[:2])
        assert table.shape == (3, 2) and table.dtype == np.float32
        np.testing.assert_allclose(
            encoder.similarity_pairwise(embeddings[:2], embeddings[:2]), np.diag(table), atol=1e-3
        )
        alone = encoder.similarity(embeddings[0], embeddings.tolist())
        np.testing.assert_allclose(alone, encoder.similarity(embeddings[:1], embeddings))


def test_similarities_of_tensors_are_tensors(encoder: Any) -> None:
    torch = pytest.importorskip("torch")
    tensors = encoder.encode(TEXTS, convert_to_tensor=True)
    listed = encoder.encode(TEXTS, convert_to_numpy=False)
    expected = encoder.similarity(encoder.encode(TEXTS), encoder.encode(TEXTS))
    for given in (tensors, listed):
        found = encoder.similarity(given, given)
        assert isinstance(found, torch.Tensor)
        np.testing.assert_allclose(found.numpy(), expected, rtol=1e-6)


def test_similarities_of_what_has_no_rows_or_one(encoder: Any) -> None:
    torch = pytest.importorskip("torch")
    embeddings = encoder.encode(TEXTS)
    for nothing in ([], encoder.encode([]), np.zeros((0, WIDTH), np.float32)):
        assert encoder.similarity(nothing, embeddings).shape == (0, 3)
        assert encoder.similarity(embeddings, nothing).shape == (3, 0)
    assert encoder.similarity_pairwise([], []).shape == (0,)
    one = torch.from_numpy(embeddings[0])
    expected = encoder.similarity_pairwise(embeddings[:1], embeddings[1:2])[0]
    np.testing.assert_allclose(encoder.similarity_pairwise(one, embeddings[1]), expected, rtol=1e-5)
    assert encoder.similarity(one.bfloat16(), embeddings).shape == (1, 3)


def test_embeddings_of_other_widths_and_numbers_are_refused(encoder: Any) -> None:
    embeddings = encoder.encode(TEXTS)
    with pytest.raises(UsageError, match=rf"\[{WIDTH}\] and \[3\] cannot be compared"):
        encoder.similarity(embeddings, embeddings[:, :3])
    with pytest.raises(UsageError, match="cannot be compared"):
        encoder.similarity_pairwise(embeddings, embeddings[:2])


# ---- what is refused


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 0}, "batch_size must be"),
        ({"output_value": None}, "there is no output None"),
        ({"precision": "binary"}, "embeddings are float32, not 'binary'"),
        ({"truncate_dim": -1}, "truncate_dim must be"),
        ({"truncate_dim": 0}, "truncate_dim must be"),
        ({"normalize_embeddings": "yes"}, "normalize must be"),
        ({"long_texts": "split"}, "long_texts is 'split'"),
    ],
)
def test_options_that_are_none(encoder: Any, options: Dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        encoder.encode(TEXTS, **options)


def test_what_changes_nothing_is_taken(encoder: Any) -> None:
    found = encoder.encode(TEXTS, batch_size=1, show_progress_bar=True, device="cpu", precision="float32")
    np.testing.assert_array_equal(found, encoder.encode(TEXTS))


def test_an_artifact_for_another_task(echo_artifact: Artifact, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="is for question-answering, not for feature-extraction") as caught:
        SentenceEncoder(echo_artifact.folder)
    assert str(caught.value.hint).startswith("neuronbert answer ")
    with pytest.raises(ArtifactError, match="there is no artifact at"):
        SentenceEncoder(tmp_path / "nothing")


@pytest.mark.parametrize(
    ("keywords", "said"),
    [
        ({"similarity_fn_name": "angle"}, "there is no similarity 'angle'"),
        ({"truncate_dim": -1}, "truncate_dim must be"),
    ],
)
def test_a_refused_encoder_leaves_nothing_loaded(
    echo: Artifact, monkeypatch: pytest.MonkeyPatch, keywords: Dict[str, Any], said: str
) -> None:
    closed, close = [], Engine.close
    monkeypatch.setattr(Engine, "close", lambda engine: closed.append(close(engine)))
    with pytest.raises(UsageError, match=said):
        SentenceEncoder(echo, threads=1, **keywords)
    assert closed == [None]


def test_a_closed_encoder(echo: Artifact) -> None:
    with SentenceEncoder(echo, threads=1) as encoder:
        pass
    with pytest.raises(BackendFailed, match="closed"):
        encoder.encode("a")


def test_an_engine_has_its_variant_already(echo: Artifact) -> None:
    with Engine(echo, threads=1) as engine, pytest.raises(UsageError, match="when an Engine is made"):
        SentenceEncoder(engine, threads=2)
