"""Figures of scored pairs and of searches, against scipy's and sentence-transformers' own."""

import json
import shutil
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from tiny_encoders import compiled, write_sentence_folder

from neuronbert import evaluate_artifact
from neuronbert.artifact.manifest import Artifact
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.feature_extraction.data import Search
from neuronbert.tasks.feature_extraction.evaluation import EmbeddingEvaluation, pair_metrics, search_metrics
from neuronbert.tasks.feature_extraction.modules import SIMILARITIES
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions, TextOptions
from neuronbert.tasks.samples import gate_path, shipped_texts

EVALUATORS = "sentence_transformers.sentence_transformer.evaluation"
QUESTIONS = [pair.question[:40] for pair in shipped_texts(gate_path())[:80]]
PAIRS = [(QUESTIONS[number], QUESTIONS[number + 1], float(number * 7 % 11)) for number in range(60)]


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.tsv"
    path.write_text("text\ttext_pair\tscore\n" + "".join(f"{a}\t{b}\t{score}\n" for a, b, score in PAIRS))
    return path


@pytest.fixture(scope="module")
def search_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "search.jsonl"
    records = [{"query": QUESTIONS[number], "positive": QUESTIONS[number + 40 : number + 42]} for number in range(30)]
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def evaluated(artifact: Artifact, data: Path, **options: Any) -> Any:
    return evaluate_artifact(artifact, data, variant=artifact.variants[0]["name"], threads=1, **options)


# ---- the figures


def test_correlations_are_scipys() -> None:
    stats = pytest.importorskip("scipy.stats")
    distance = pytest.importorskip("scipy.spatial.distance")
    random = np.random.default_rng(0)
    a, b = (random.normal(size=(50, 9)).astype(np.float32) for _ in range(2))
    scores = random.integers(0, 6, 50).astype(float).tolist()
    measured = {
        "cosine": [1 - distance.cosine(x, y) for x, y in zip(a, b)],
        "dot": [float(np.dot(x.astype(float), y)) for x, y in zip(a, b)],
        "euclidean": [-distance.euclidean(x, y) for x, y in zip(a, b)],
        "manhattan": [-distance.cityblock(x, y) for x, y in zip(a, b)],
    }
    found = pair_metrics(a, b, scores)
    assert set(found) == {f"{kind}_{name}" for kind in ("spearman", "pearson") for name in SIMILARITIES}
    for name, values in measured.items():
        assert found[f"spearman_{name}"] == pytest.approx(stats.spearmanr(scores, values).correlation, abs=1e-9)
        assert found[f"pearson_{name}"] == pytest.approx(stats.pearsonr(scores, values)[0], abs=1e-6)


def test_a_search_that_finds_everything_and_one_that_finds_nothing_first() -> None:
    documents = np.eye(12, dtype=np.float32)
    search = Search(["q"] * 12, ["d"] * 12, [{number} for number in range(12)])
    best = search_metrics(documents, documents, search, "cosine")
    assert best == pytest.approx(
        {**dict.fromkeys(best, 1.0), "precision@3": 1 / 3, "precision@5": 0.2, "precision@10": 0.1}
    )
    worst = search_metrics(documents, -documents, search, "cosine")
    assert worst["recall@10"] == worst["mrr@10"] == 0 and worst["map@100"] == pytest.approx(1 / 12)


@pytest.mark.parametrize("name", SIMILARITIES)
def test_more_queries_than_are_compared_at_once(name: str) -> None:
    random = np.random.default_rng(0)
    queries, documents = (random.normal(size=(count, 5)).astype(np.float32) for count in (300, 20))
    search = Search(["q"] * 300, ["d"] * 20, [{number % 20} for number in range(300)])
    found = search_metrics(queries, documents, search, name)
    ranks = []
    for number, query in enumerate(queries):
        values = {
            "cosine": documents @ query / np.linalg.norm(documents, axis=1),
            "dot": documents @ query,
            "euclidean": -np.linalg.norm(documents - query, axis=1),
            "manhattan": -np.abs(documents - query).sum(axis=1),
        }[name]
        ranks.append(1 + int((values > values[number % 20]).sum()))
    assert found["recall@5"] == pytest.approx(np.mean([rank <= 5 for rank in ranks]))
    assert found["mrr@10"] == pytest.approx(np.mean([1 / rank if rank <= 10 else 0 for rank in ranks]))


# ---- sentence-transformers' evaluators


def test_pairs_score_as_the_embedding_similarity_evaluator_says(
    folders: Dict[str, Path], artifacts: Dict[str, Artifact], pairs_file: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    evaluators = pytest.importorskip(EVALUATORS)
    model = library.SentenceTransformer(str(folders["every"]), device="cpu")
    first, second, scores = map(list, zip(*PAIRS))
    evaluator = evaluators.EmbeddingSimilarityEvaluator(first, second, scores, similarity_fn_names=list(SIMILARITIES))
    expected = evaluator(model)
    found = evaluated(artifacts["every"], pairs_file).metrics
    assert {name: found[name] for name in found if name in expected} == pytest.approx(
        {name: expected[name] for name in found}, abs=2e-4
    )


def test_a_search_scores_as_the_information_retrieval_evaluator_says(
    folders: Dict[str, Path], artifacts: Dict[str, Artifact], search_file: Path
) -> None:
    """With the checkpoint's prompts: its queries have one, its passages an empty one."""
    library = pytest.importorskip("sentence_transformers")
    evaluators = pytest.importorskip(EVALUATORS)
    model = library.SentenceTransformer(str(folders["bert"]), device="cpu")
    records = [json.loads(line) for line in search_file.read_text().splitlines()]
    corpus = {text: text for record in records for text in record["positive"]}
    queries = {str(number): record["query"] for number, record in enumerate(records)}
    relevant = {str(number): set(record["positive"]) for number, record in enumerate(records)}
    expected = evaluators.InformationRetrievalEvaluator(queries, corpus, relevant)(model)
    found = evaluated(artifacts["bert"], search_file).metrics
    assert found == pytest.approx({name: expected[f"cosine_{name}"] for name in found}, abs=1e-6)


# ---- reports


def test_the_report_of_pairs(artifacts: Dict[str, Artifact], folders: Dict[str, Path], pairs_file: Path) -> None:
    report = evaluated(artifacts["bert"], pairs_file, against=str(folders["bert"]))
    texts = {text for pair in PAIRS for text in pair[:2]}
    assert (report.kind, report.pairs, report.texts, report.similarity) == ("pairs", 60, len(texts), "cosine")
    assert report.comparison.least_cosine == pytest.approx(1, abs=1e-5)
    assert report.comparison.metrics == pytest.approx(report.metrics, abs=1e-3)
    shown = "\n".join(map(str, report.tables()))
    assert "60 pairs" in shown and "spearman_cosine" in shown and "in the mean" in shown
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["comparison"]["mean_cosine"] > 0.99


def test_an_artifact_is_compared_with_its_own_pooling(
    folders: Dict[str, Path], pairs_file: Path, tmp_path: Path
) -> None:
    made = compiled(folders["bert"], tmp_path / "cls", pooling="cls")
    assert made.manifest["pooling"] == "cls"
    report = evaluated(made, pairs_file, against=str(folders["bert"]), limit=20)
    assert report.pairs == 20 and report.comparison.least_cosine == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("plain", [False, True])
def test_a_checkpoint_pools_as_its_own_files_say_and_a_plain_one_as_the_artifact(
    folders: Dict[str, Path], pairs_file: Path, tmp_path: Path, plain: bool
) -> None:
    """The weights are the same, so that equal embeddings are those of an equal pooling."""
    made = compiled(folders["bert"], tmp_path / "cls", pooling="cls")
    other = Path(shutil.copytree(folders["bert"], tmp_path / "mean"))
    if plain:
        (other / "modules.json").unlink()
    # The files say how long a text may be, too.
    comparison = evaluated(made, pairs_file, against=str(other), limit=20, max_length=16).comparison
    assert (comparison.least_cosine == pytest.approx(1, abs=1e-5)) == plain
    if not plain:
        own = evaluated(compiled(other, tmp_path / "own"), pairs_file, limit=20, max_length=16)
        assert comparison.metrics == pytest.approx(own.metrics, abs=1e-3)


@pytest.fixture(scope="module")
def other_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another pooling, other prompts and another measure than the folder ``bert``."""
    return write_sentence_folder(
        tmp_path_factory.mktemp("other") / "roberta",
        "roberta",
        pooling={"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False},
        kinds=("Pooling",),
        prompts={"query": "who asks: ", "passage": "it says: "},
        similarity_fn_name="dot",
    )


@pytest.mark.parametrize("data", ["pairs_file", "search_file"])
def test_each_of_two_encoders_has_its_own_prompts_and_measure(
    artifacts: Dict[str, Artifact],
    other_folder: Path,
    data: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    path, other = request.getfixturevalue(data), compiled(other_folder, tmp_path / "other")
    alone = evaluated(other, path)
    assert alone.similarity == "dot"
    report = evaluated(artifacts["bert"], path, against=other, against_variant="torchscript-fp32")
    assert report.similarity == "cosine" and report.metrics == evaluated(artifacts["bert"], path).metrics
    assert report.comparison.metrics == alone.metrics and report.comparison.similarity == "dot"
    shown = "\n".join(map(str, report.tables()))
    assert ("was dot, is cosine" in shown) == (report.kind == "search")
    turned = evaluated(other, path, against=artifacts["bert"], against_variant="torchscript-fp32")
    assert turned.comparison.metrics == report.metrics


def test_embeddings_of_another_width_have_no_cosine(artifacts: Dict[str, Artifact], pairs_file: Path) -> None:
    report = evaluated(artifacts["bert"], pairs_file, against=artifacts["every"], against_variant="torchscript-fp32")
    assert report.comparison.mean_cosine is report.comparison.least_cosine is None
    assert "another width" in "\n".join(map(str, report.tables()))


def test_the_report_of_a_search(artifacts: Dict[str, Artifact], search_file: Path) -> None:
    report = evaluated(artifacts["bert"], search_file, limit=5)
    assert (report.kind, report.pairs) == ("search", 5)
    assert report.texts == 5 + 31  # every document, however few queries are asked
    assert 0 <= report.metrics["recall@10"] <= 1 and "5 queries" in "\n".join(map(str, report.tables()))


@pytest.mark.filterwarnings("ignore")
def test_texts_that_are_cut_are_counted(artifacts: Dict[str, Artifact], tmp_path: Path) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\ttext_pair\tscore\n" + "".join(f"{'the ' * count}\ta\t{count}\n" for count in (2, 30, 40)))
    assert evaluated(artifacts["bert"], path).truncated == 2
    assert evaluated(artifacts["bert"], path, long_texts="pooled").truncated == 0


def test_equal_scores_correlate_with_nothing_and_are_null_in_json(
    artifacts: Dict[str, Artifact], tmp_path: Path
) -> None:
    path = tmp_path / "a.tsv"
    path.write_text("text\ttext_pair\tscore\na\tb\t1\nc\td\t1\n")
    report = evaluated(artifacts["bert"], path)
    assert np.isnan(report.metrics["spearman_cosine"]) and report.as_dict()["metrics"]["spearman_cosine"] is None


# ---- prompts of a search


def evaluation_of(path: Path, **options: Any) -> EmbeddingEvaluation:
    return EmbeddingEvaluation.of(path, None, TextOptions(**options), EmbeddingOptions())


def texts_of(artifact: Artifact, path: Path, **options: Any) -> List[str]:
    evaluation = evaluation_of(path, **options)
    tokenizer = Tokenizer.from_files(artifact.folder)
    chosen = evaluation.options_for(tokenizer)
    return [(chosen.prompt or "") + text for text in evaluation.inputs]


def test_queries_and_documents_have_the_prompts_of_their_kind(
    artifacts: Dict[str, Artifact], search_file: Path, pairs_file: Path
) -> None:
    prompted = texts_of(artifacts["bert"], search_file)
    assert prompted[0] == "the puppet: " + QUESTIONS[0] and prompted[30] == QUESTIONS[40]
    asked = texts_of(artifacts["bert"], search_file, prompt="a ")
    assert asked[0] == "a " + QUESTIONS[0] and asked[30] == "a " + QUESTIONS[40]
    assert texts_of(artifacts["bert"], pairs_file)[0] == QUESTIONS[0]


def test_prompts_that_do_not_count_are_not_mixed(artifacts: Dict[str, Artifact], search_file: Path) -> None:
    with pytest.raises(UsageError, match="pools without its prompts"):
        texts_of(artifacts["unprompted"], search_file)
    assert texts_of(artifacts["unprompted"], search_file, prompt="")[0] == QUESTIONS[0]


def test_an_equal_prompt_that_does_not_count_is_one_of_the_options(tmp_path: Path, search_file: Path) -> None:
    """Its tokens are known to be a prompt's only there."""
    folder = write_sentence_folder(
        tmp_path / "own",
        pooling={"pooling_mode_mean_tokens": True, "include_prompt": False},
        prompts={"query": "the puppet: ", "document": "the puppet: "},
    )
    artifact = compiled(folder, tmp_path / "out")
    evaluation = evaluation_of(search_file)
    assert evaluation.options_for(Tokenizer.from_files(artifact.folder)).prompt == "the puppet: "
    assert evaluation.inputs[0] == QUESTIONS[0]
    assert evaluated(artifact, search_file).metrics == evaluated(artifact, search_file, prompt="the puppet: ").metrics


def test_the_default_prompt_stands_in_for_one_that_is_not_there(tmp_path: Path, search_file: Path) -> None:
    prompts = {"query": "who ", "other": "a "}
    folder = write_sentence_folder(tmp_path / "own", prompts=prompts, default_prompt_name="other")
    prompted = texts_of(compiled(folder, tmp_path / "out", "echo"), search_file)
    assert prompted[0] == "who " + QUESTIONS[0] and prompted[30] == "a " + QUESTIONS[40]


# ---- what is refused


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"text": "a", "text_pair": "b", "score": 1}', '{"text": "a", "text_pair": "b"}'], "record 2 has no score"),
        (['{"text": "a", "score": 1}'], "record 1 has no text_pair"),
        (['{"text": "a", "text_pair": "b", "score": 1}'], "has one pair"),
    ],
)
def test_files_that_score_nothing(tmp_path: Path, lines: List[str], said: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("\n".join(lines))
    with pytest.raises(InputError, match=said):
        evaluation_of(path)


def test_a_limit_of_one_pair_is_not_said_to_be_the_files(pairs_file: Path) -> None:
    with pytest.raises(UsageError, match="a limit of 1 leaves one pair"):
        EmbeddingEvaluation.of(pairs_file, 1, TextOptions(), EmbeddingOptions())


def test_embeddings_of_tokens_are_not_compared(artifacts: Dict[str, Artifact], pairs_file: Path) -> None:
    with pytest.raises(UsageError, match="this artifact gives an embedding of each token") as caught:
        evaluated(artifacts["tokens"], pairs_file)
    assert "--pooling" in str(caught.value.hint)


def test_what_cannot_be_compared_is_refused_before_a_text_is_embedded(
    artifacts: Dict[str, Artifact], pairs_file: Path, search_file: Path
) -> None:
    for data, against, options, said in (
        (pairs_file, "tokens", {}, "what it is compared with gives an embedding of each token"),
        (search_file, "unprompted", {}, "what it is compared with pools without its prompts"),
        (pairs_file, "bert", {"prompt_name": "poem"}, "has no prompt 'poem'"),
    ):
        with pytest.raises(UsageError, match=said):
            evaluated(
                artifacts["bert"],
                data,
                against=artifacts[against],
                against_variant="torchscript-fp32",
                progress=pytest.fail,
                **options,
            )
