"""The evaluation of classifiers: its figures against scikit-learn and scipy, from an artifact to the command line."""

import csv
import json
import math
import random
from pathlib import Path
from typing import Any, List, Sequence

import pytest
from click.testing import CliRunner
from tiny_classifiers import LABELS, compiled, labels_of, write_classifier

from neuronbert.artifact.manifest import Artifact
from neuronbert.benchmark.evaluation import evaluate_artifact
from neuronbert.cli.main import cli
from neuronbert.engine.engine import Engine
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.text_classification.evaluation import metrics_of
from neuronbert.tasks.text_classification.options import LabelOptions
from neuronbert.tasks.text_classification.problem import problem_of

WORDS = "who was jim henson the puppet a nice é 中 ? xyz".split()
CHOSEN = random.Random(5)
TEXTS = [" ".join(CHOSEN.choices(WORDS, k=CHOSEN.randrange(1, 12))) for _ in range(120)]
MULTI = "multi_label_classification"


def write(path: Path, rows: Sequence[Sequence[Any]], header: Sequence[str] = ("text", "label")) -> Path:
    with open(path, "w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def evaluate(artifact: Artifact, data: Path, **options: Any) -> Any:
    return evaluate_artifact(artifact, data, variant="torchscript", threads=1, **options)


def without_nan(text: str) -> Any:
    """The value of a JSON text, which must be what every reader takes for JSON."""

    def refuse(name: str) -> None:
        pytest.fail(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture(scope="module")
def multi_artifact(folder: Path) -> Artifact:
    checkpoint = write_classifier(folder / "multi-checkpoint", problem_type=MULTI)
    return compiled(checkpoint, folder / "multi")


@pytest.fixture(scope="module")
def golds() -> List[str]:
    return [CHOSEN.choice(LABELS) for _ in TEXTS]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, golds: List[str]) -> Path:
    return write(tmp_path_factory.mktemp("data") / "data.csv", list(zip(TEXTS, golds)))


# ---- figures


def test_single_labels_are_measured_as_scikit_learn_does(artifact: Artifact, data: Path, golds: List[str]) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    report = evaluate(artifact, data)
    assert (report.kind, report.texts, report.truncated) == ("single_label_classification", 120, 0)
    assert len(set(report.predictions)) > 1 and set(report.predictions) <= set(LABELS)
    assert report.metrics == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(golds, report.predictions),
            "macro_f1": metrics.f1_score(golds, report.predictions, average="macro", zero_division=0),
            "matthews": metrics.matthews_corrcoef(golds, report.predictions),
        },
        abs=1e-12,
    )


def test_several_labels_are_measured_as_scikit_learn_does(multi_artifact: Artifact, tmp_path: Path) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    golds = [CHOSEN.sample(range(3), k=CHOSEN.randrange(4)) for _ in TEXTS]
    path = tmp_path / "data.jsonl"
    lines = ({"text": text, "labels": [LABELS[n] for n in gold]} for text, gold in zip(TEXTS, golds))
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    report = evaluate(multi_artifact, path)
    held = [[int(label in prediction.split("|")) for label in LABELS] for prediction in report.predictions]
    expected = [[int(number in gold) for number in range(3)] for gold in golds]
    assert report.kind == MULTI and len({tuple(row) for row in held}) > 2
    assert report.metrics == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(expected, held),
            "macro_f1": metrics.f1_score(expected, held, average="macro", zero_division=0),
            "micro_f1": metrics.f1_score(expected, held, average="micro", zero_division=0),
        },
        abs=1e-12,
    )


def test_scores_are_measured_as_scipy_does(cross_encoder: Artifact, tmp_path: Path) -> None:
    stats = pytest.importorskip("scipy.stats")
    golds = [CHOSEN.randrange(6) / 2 for _ in TEXTS]
    pairs = list(zip(TEXTS, reversed(TEXTS)))
    path = write(
        tmp_path / "data.csv", [(*pair, gold) for pair, gold in zip(pairs, golds)], ("sentence1", "sentence2", "score")
    )
    report = evaluate(cross_encoder, path)
    with Engine(cross_encoder, variant="torchscript", threads=1) as engine:
        results = engine.answer(pairs, answer_options=LabelOptions(function_to_apply="none"))
    scores = [result[0]["score"] for result in results]
    assert report.kind == "regression" and len(set(scores)) > 100
    assert [float(shown) for shown in report.predictions] == pytest.approx(scores, rel=1e-5, abs=1e-5)
    assert report.metrics == pytest.approx(
        {"pearson": stats.pearsonr(scores, golds).statistic, "spearman": stats.spearmanr(scores, golds).statistic},
        abs=1e-5,
    )


def test_predictions_are_those_of_the_engine(engine: Engine, artifact: Artifact, data: Path) -> None:
    best = [result[0]["label"] for result in engine.answer(TEXTS)]
    assert evaluate(artifact, data).predictions == best


def test_right_predictions_are_all_right(artifact: Artifact, data: Path, tmp_path: Path) -> None:
    predictions = evaluate(artifact, data).predictions
    report = evaluate(artifact, write(tmp_path / "right.csv", list(zip(TEXTS, predictions))))
    assert report.metrics == pytest.approx(dict.fromkeys(("accuracy", "macro_f1", "matthews"), 1.0))


def test_several_labels_of_none_are_right_too(multi_artifact: Artifact) -> None:
    problem = problem_of({**labels_of(LABELS), "problem_type": MULTI})
    assert metrics_of(problem, [(), (0,)], [(), (0,)]) == {
        "accuracy": 1.0, "macro_f1": pytest.approx(1 / 3), "micro_f1": 1.0,
    }  # fmt: skip


# ---- what is read


def test_labels_may_be_numbers_and_texts_limited(
    artifact: Artifact, golds: List[str], data: Path, tmp_path: Path
) -> None:
    numbered = write(tmp_path / "numbered.csv", [(text, LABELS.index(gold)) for text, gold in zip(TEXTS, golds)])
    by_name, by_number = (evaluate(artifact, path, limit=50) for path in (data, numbered))
    assert by_name.metrics == by_number.metrics and by_name.texts == len(by_name.predictions) == 50
    for limit in (0, -1, 1.5):
        with pytest.raises(UsageError, match="^limit must be a whole number of at least 1"):
            evaluate(artifact, data, limit=limit)


def test_what_does_not_fit_a_row_is_counted(artifact: Artifact, tmp_path: Path) -> None:
    path = write(tmp_path / "long.csv", [("the " * 100, "calm"), ("the " * 10, "glad"), ("the", "glad")])
    assert evaluate(artifact, path).truncated == 1
    shorter = evaluate(artifact, path, max_length=8)
    assert shorter.truncated == 2
    assert "3 texts, 2 of them cut to the model's length" in shorter.tables()[0].rows[1][1]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("a", "calm"), ("b", "")], "line 3: the text has no label"),
        ([("a", "calm"), ("", "calm")], "line 3: text is missing or empty"),
        ([("a", "calm"), ("b", "happy")], "line 3: the checkpoint has no label 'happy'; it has calm, glad, cross"),
        ([], "holds no record"),
    ],
)
def test_a_text_that_cannot_be_scored_is_named(artifact: Artifact, rows: Any, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "data.csv", rows)
    with pytest.raises(InputError, match=message) as caught:
        evaluate(artifact, path)
    assert caught.value.message.startswith(str(path))


def test_a_keyword_of_another_task_is_none_here(artifact: Artifact, data: Path) -> None:
    with pytest.raises(UsageError, match="there is no keyword 'doc_stride'"):
        evaluate(artifact, data, doc_stride=8)


# ---- against another


def test_against_its_own_checkpoint_nothing_changes(artifact: Artifact, checkpoint: Path, data: Path) -> None:
    report = evaluate(artifact, data, against=str(checkpoint))
    assert report.comparison.equal == 1.0 and report.comparison.changed == ()
    assert report.comparison.metrics == report.metrics
    assert report.comparison.against == f"{checkpoint} in FP32"


def test_against_another_model_each_change_is_listed(
    artifact: Artifact, data: Path, golds: List[str], tmp_path: Path
) -> None:
    other = write_classifier(tmp_path / "other", initializer_range=0.5)
    report = evaluate(artifact, data, against=str(other), limit=40)
    changed = report.comparison.changed
    assert changed and report.comparison.equal == 1 - len(changed) / 40
    for each in changed:
        number = TEXTS.index(each.text)
        assert each.label == report.predictions[number] != each.against_label
        assert each.gold in golds and 0 < each.score <= 1 and 0 < each.against_score <= 1
    text = "\n".join(str(table) for table in report.tables())
    assert f"{report.comparison.equal:.2%} alike" in text
    assert without_nan(json.dumps(report.as_dict()))["comparison"]["changed"][0]["text"] == changed[0].text


@pytest.mark.parametrize(
    ("labels", "changes"),
    [
        (("calm", "cross", "glad"), {}),  # the same ones with other numbers
        (("calm", "glad"), {}),
        (LABELS, {"problem_type": MULTI}),
    ],
)
def test_models_that_decide_something_else_are_not_compared(
    artifact: Artifact, data: Path, tmp_path: Path, labels: Any, changes: Any
) -> None:
    other = write_classifier(tmp_path / "other", labels=labels, **changes)
    with pytest.raises(InputError, match="^the models cannot be compared: one decides single_label_classification of"):
        evaluate(artifact, data, against=str(other), limit=5)


def test_scores_are_compared_by_their_order(
    cross_encoder: Artifact, cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "data.csv", [(text, number) for number, text in enumerate(TEXTS[:30])])
    report = evaluate(cross_encoder, path, against=str(cross_encoder_checkpoint))
    assert report.comparison.equal == pytest.approx(1.0) and report.comparison.changed == ()


# ---- reports


def test_correlations_that_are_none_are_null_in_json(
    cross_encoder: Artifact, cross_encoder_checkpoint: Path, tmp_path: Path
) -> None:
    path = write(tmp_path / "one.csv", [("the puppet", 2.5)])
    report = evaluate(cross_encoder, path, against=str(cross_encoder_checkpoint))
    assert all(map(math.isnan, report.metrics.values()))
    document = without_nan(json.dumps(report.as_dict()))
    assert document["metrics"] == document["comparison"]["metrics"] == {"pearson": None, "spearman": None}
    assert document["comparison"]["equal"] is None and document["texts"] == 1
    assert report.tables()


def test_the_command_prints_what_was_measured(artifact: Artifact, data: Path) -> None:
    command = ["evaluate", str(artifact.folder), str(data), "--variant", "torchscript", "--threads", "1"]
    report = evaluate(artifact, data)
    shown = CliRunner().invoke(cli, command)
    assert shown.exit_code == 0, shown.output
    for name, value in report.metrics.items():
        assert f"{value:.4f}" in shown.output and name in shown.output
    document = without_nan(CliRunner().invoke(cli, [*command, "--json", "--limit", "9"]).stdout)
    assert document["texts"] == 9 and document["predictions"] == report.predictions[:9]
    assert document["texts_per_s"] > 0 and document["variant"] == "torchscript-fp32"
