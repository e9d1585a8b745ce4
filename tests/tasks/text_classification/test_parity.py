"""Labels and scores are those of transformers' pipeline: every family, every kind of problem, texts of any kind."""

import random
from pathlib import Path
from typing import Any, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import pytest
from tiny_checkpoints import FAMILIES
from tiny_classifiers import LABELS, POSITIONS, compiled, write_classifier

from neuronbert import pipeline
from neuronbert.engine.engine import Engine
from neuronbert.errors import InputError

TASK = "text-classification"
SCORE_TOLERANCE = 1e-4
TEXTS, PAIRS = 1000, 300  # of the first kind of problem, for each family; of the others a tenth
# Without <mask>: whether RoBERTa's takes the space before it differs between releases of transformers, where a
# checkpoint has no tokenizer.json.
WORDS = (
    "the who was puppet a nice jim henson The é 中 ? . , ' hensons naming café Ünïcode 北京 Straße İstanbul 👩‍👩‍👧 ½ ﬁ "
    "don't e-mail 3.14 #hashtag @name https://example.org \u200b \u00ad \u2028 [SEP] [CLS] </s> x͓̽ ... !!!"
).split(" ")
SINGLE, MULTI, SCORE = "single label", "several labels", "score"
CHANGES = {SINGLE: {}, MULTI: {"problem_type": "multi_label_classification"}, SCORE: {}}


def words(chosen: random.Random) -> str:
    """Mostly a few words, sometimes none, sometimes far more than fit a row."""
    count = chosen.choice([chosen.randrange(8), chosen.randrange(8), chosen.randrange(40), chosen.randrange(300)])
    return chosen.choice([" ", " ", "  ", "\n", ""]).join(chosen.choices(WORDS, k=count))


def texts_of(count: int, seed: str) -> List[str]:
    chosen = random.Random(seed)
    return ["", " ", "the " * 62, "the " * 63, *(words(chosen) for _ in range(count - 4))]


class Both(NamedTuple):
    """The same checkpoint here and there."""

    ours: Engine
    theirs: Any
    kind: str
    seed: str


@pytest.fixture(scope="module", params=[(family, kind) for kind in CHANGES for family in FAMILIES], ids=" ".join)
def both(request: pytest.FixtureRequest, folder: Path) -> Iterator[Both]:
    from neuronbert.checkpoint.reference_model import transformers

    family, kind = request.param
    name = f"{family} {kind}"
    labels = ["relevant"] if kind == SCORE else LABELS
    checkpoint = write_classifier(folder / name, family, labels, **CHANGES[kind])
    theirs = transformers.pipeline(TASK, model=str(checkpoint), device="cpu")
    artifact = compiled(checkpoint, folder / f"{name} artifact")
    with Engine(artifact, variant="torchscript", threads=1) as engine:
        yield Both(engine, theirs, kind, name)


def share(both: Both, count: int) -> int:
    return count if both.kind == SINGLE else count // 10


def compare(both: Both, asked: Sequence[Any], **keywords: Any) -> List[List[Any]]:
    """Our results, after they were found to be those of transformers."""
    options = {"top_k": None, "truncation": True, "max_length": POSITIONS, "batch_size": 32, **keywords}
    ours = pipeline(TASK, model=both.ours)(list(asked), **options)
    theirs = both.theirs(list(asked), **options)
    assert len(ours) == len(theirs) == len(asked)
    for text, one, other in zip(asked, ours, theirs):
        scores = {entry["label"]: entry["score"] for entry in one}
        expected = {entry["label"]: entry["score"] for entry in other}
        assert scores == pytest.approx(expected, abs=SCORE_TOLERANCE), text
        assert one[0]["label"] == other[0]["label"], text
    return ours


def test_texts_have_the_labels_of_transformers(both: Both) -> None:
    texts = texts_of(share(both, TEXTS), both.seed)
    results = compare(both, texts)
    cut = [text for text, result in zip(texts, results) if "truncated" in result[0]]
    rows = both.theirs.tokenizer(texts)["input_ids"]
    assert cut == [text for text, row in zip(texts, rows) if len(row) > POSITIONS] and cut
    if both.kind != SCORE:  # else there would be nothing to be wrong about
        assert len({result[0]["label"] for result in results}) > 1
    assert len({round(result[0]["score"], 3) for result in results}) > len(texts) / 10


def test_pairs_have_the_labels_of_transformers(both: Both) -> None:
    count = share(both, PAIRS)
    pairs = list(zip(texts_of(count, both.seed + "1"), reversed(texts_of(count, both.seed + "2"))))
    results = compare(both, [{"text": text, "text_pair": other} for text, other in pairs])
    rows = [both.theirs.tokenizer(text, other or None)["input_ids"] for text, other in pairs]
    cut = ["truncated" in result[0] for result in results]
    assert cut == [len(row) > POSITIONS for row in rows] and any(cut) and not all(cut)


FUNCTIONS = {
    "softmax": lambda logits: np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
    "sigmoid": lambda logits: 1 / (1 + np.exp(-logits)),
    "none": lambda logits: logits,
}


@pytest.mark.parametrize("function", FUNCTIONS)
def test_so_they_do_with_any_function(both: Both, function: str) -> None:
    texts = texts_of(20, both.seed + function)
    scores, logits = (
        np.array([[entry["score"] for entry in result] for result in compare(both, texts, function_to_apply=applied)])
        for applied in (function, "none")
    )
    assert scores == pytest.approx(FUNCTIONS[function](logits), abs=1e-5)


def test_a_ranking_is_the_order_of_the_scores_of_transformers(both: Both) -> None:
    if both.kind != SCORE:
        with pytest.raises(InputError, match="this model tells 3 labels apart"):
            pipeline(TASK, model=both.ours).rank("who?", ["jim"])
        return
    chosen = random.Random(both.seed)
    for number in range(5):
        query, texts = words(chosen) or "who?", texts_of(20, f"{both.seed} {number}")
        expected = sorted(scored(both, query, texts), reverse=True)
        ranked = pipeline(TASK, model=both.ours, function_to_apply="none").rank(query, texts)
        assert [entry["score"] for entry in ranked] == pytest.approx([score for score, _ in expected], abs=1e-4)
        places = {index: score for score, index in expected}
        for entry, (score, index) in zip(ranked, expected):  # those of equal scores may change places
            assert entry["index"] == index or places[entry["index"]] == pytest.approx(score, abs=1e-5)


def scored(both: Both, query: str, texts: Sequence[str]) -> List[Tuple[float, int]]:
    """The logit of each text and its number; of a batch, in which an empty text makes a pair too."""
    import torch

    rows = both.theirs.tokenizer([(query, text) for text in texts], truncation=True, max_length=POSITIONS, padding=True,
                                 return_tensors="pt")  # fmt: skip
    with torch.no_grad():
        logits = both.theirs.model(**rows).logits[:, 0].tolist()
    return list(zip(logits, range(len(texts))))


@pytest.mark.parametrize("activation", [None, "torch.nn.modules.linear.Identity"])
def test_a_ranking_is_that_of_a_cross_encoder(
    cross_encoder_checkpoint: Path, folder: Path, activation: Optional[str]
) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    import json
    import shutil

    checkpoint = Path(shutil.copytree(cross_encoder_checkpoint, folder / f"cross-encoder-{activation}"))
    if activation is not None:
        config = json.loads((checkpoint / "config.json").read_text())
        config["sentence_transformers"] = {"activation_fn": activation}
        (checkpoint / "config.json").write_text(json.dumps(config))
    theirs = sentence_transformers.CrossEncoder(str(checkpoint), max_length=POSITIONS, device="cpu")
    query, texts = "who was jim?", texts_of(40, "cross-encoder")
    artifact = compiled(checkpoint, folder / f"cross-encoder-{activation} artifact")
    with Engine(artifact, variant="torchscript", threads=1) as engine:
        ours = pipeline(TASK, model=engine).rank(query, texts)
    expected = theirs.rank(query, texts)
    assert [entry["score"] for entry in ours] == pytest.approx([each["score"] for each in expected], abs=1e-4)
    places = {each["corpus_id"]: each["score"] for each in expected}
    assert [places[entry["index"]] for entry in ours] == pytest.approx([entry["score"] for entry in ours], abs=1e-4)
