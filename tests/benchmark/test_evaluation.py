import json
from pathlib import Path

import pytest

from neuronbert import Engine
from neuronbert.benchmark.evaluation import evaluate_artifact
from neuronbert.errors import ArtifactError, CheckpointError, InputError, UsageError
from neuronbert.tasks.question_answering.evaluation import Reading as Answered
from neuronbert.tasks.question_answering.evaluation import compare_answers
from neuronbert.tasks.question_answering.long_documents import long_documents
from neuronbert.tasks.question_answering.metrics import evaluate_answers
from neuronbert.tasks.question_answering.squad import SquadData, SquadQuestion, load_squad, squad_document
from neuronbert.tasks.samples import gate_path

DATA = Path(__file__).parents[1] / "data" / "squad"


def answered(text, score=0.5, forced=None, null_difference=-1.0):
    return Answered(text, score, text if forced is None else forced, null_difference)


def test_compare_answers_lists_what_changed():
    data = SquadData(
        "1.1",
        [
            SquadQuestion("a", "Who?", "c", ("red car",), False),
            SquadQuestion("b", "Why?", "c", ("x",), False),
            SquadQuestion("c", "When?", "d", ("then",), False),
        ],
    )
    ours = [answered("car", 0.4), answered("x"), answered("now", 0.2)]
    theirs = [answered("red car", 0.9), answered("x"), answered("then", 0.3)]
    comparison = compare_answers(data, ours, "reference", theirs)
    assert [change.id for change in comparison.changed] == ["a", "c"]
    first = comparison.changed[0]
    assert (first.question, first.golds, first.answer, first.against_answer) == ("Who?", ("red car",), "car", "red car")
    assert (first.score, first.against_score, first.against_f1) == (0.4, 0.9, 1.0)
    assert first.f1 == pytest.approx(2 / 3)
    assert comparison.equal_answers == pytest.approx(1 / 3)
    assert comparison.answer_f1 == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert comparison.metrics == {"exact_match": 100.0, "f1": 100.0}


def test_a_report_on_v1_data(echo_artifact):
    steps = []
    report = evaluate_artifact(
        echo_artifact, DATA / "v1.json", limit=140, progress=lambda done, total: steps.append((done, total))
    )
    questions = load_squad(DATA / "v1.json")[:140]
    assert (report.version, report.questions, report.variant) == ("1.1", 140, "echo-fp32")
    assert list(report.predictions) == [item.id for item in questions]
    assert report.metrics == evaluate_answers(questions, report.predictions)
    assert report.f1_interval[0] <= report.metrics["f1"] <= report.f1_interval[1]
    assert steps[-1] == (140, 140) and steps[0][0] < 140
    assert report.comparison is None
    assert report.questions_per_s == 140 / report.seconds
    assert json.loads(json.dumps(report.as_dict()))["questions_per_s"] == report.questions_per_s


def test_a_report_on_v2_data_allows_no_answer_and_sweeps_the_threshold(echo_artifact):
    report = evaluate_artifact(echo_artifact, DATA / "v2.json", limit=60)
    questions = load_squad(DATA / "v2.json")[:60]
    assert report.version == "2.0"
    decided = evaluate_answers(questions, report.predictions, version="2.0")
    assert {name: report.metrics[name] for name in decided} == decided
    assert report.metrics["best_f1"] >= 100 * sum(item.is_impossible for item in questions) / 60
    assert {"best_exact", "best_exact_thresh", "best_f1_thresh"} <= set(report.metrics)


def test_an_artifact_against_itself_changes_nothing(echo_artifact):
    steps = []
    report = evaluate_artifact(
        echo_artifact.folder,
        DATA / "v1.json",
        against=str(echo_artifact.folder),
        limit=10,
        progress=lambda done, total: steps.append((done, total)),
    )
    assert report.comparison is not None
    assert report.comparison.changed == () and report.comparison.equal_answers == 1.0
    assert report.comparison.answer_f1 == 1.0
    assert report.comparison.metrics == report.metrics
    assert steps[0] == (0, 20) and steps[-1] == (20, 20) and (10, 20) in steps
    assert steps == sorted(steps) and len(set(steps)) > 4  # it moves with the batches


def test_what_is_compared_with_must_be_the_same_when_its_turn_comes(echo_artifact, echo_copy):
    def damage(done, total):
        if done:
            (echo_copy / "config.json").write_text("{}")

    with pytest.raises(ArtifactError, match="config.json was changed"):
        evaluate_artifact(echo_artifact, DATA / "v1.json", limit=5, against=echo_copy, progress=damage)


def test_a_question_that_does_not_fit_is_named(echo_artifact, tmp_path):
    good = SquadQuestion("good", "Who?", "Ann did.", ("Ann",), False, (0,))
    endless = good._replace(id="endless", question="why " * 600)
    path = tmp_path / "data.json"
    path.write_text(json.dumps(squad_document([good, endless], "1.1")))
    with pytest.raises(InputError, match="question 'endless': ") as caught:
        evaluate_artifact(echo_artifact, path)
    assert caught.value.hint


def test_bad_arguments_are_refused(echo_artifact, tmp_path):
    with pytest.raises(UsageError, match="limit must be a whole number of at least 1, not 0"):
        evaluate_artifact(echo_artifact, DATA / "v1.json", limit=0)
    with pytest.raises(InputError, match="there is no file"):
        evaluate_artifact(echo_artifact, tmp_path / "absent.json")
    for wrong, error in (
        ({"against": str(tmp_path)}, CheckpointError),
        ({"against": echo_artifact, "against_variant": "absent"}, ArtifactError),
        ({"against": "demo", "against_variant": "echo-fp32"}, UsageError),
    ):
        with pytest.raises(error):  # before any question is answered
            evaluate_artifact(echo_artifact, DATA / "v1.json", progress=pytest.fail, **wrong)


@pytest.mark.slow
def test_a_compiled_artifact_against_its_checkpoint(demo_artifact):
    report = evaluate_artifact(demo_artifact, gate_path(), variant="openvino-fp32", against="demo", limit=60)
    assert report.comparison is not None and report.comparison.against == "demo in FP32"
    assert report.comparison.equal_answers >= 0.98
    assert report.metrics["f1"] == pytest.approx(report.comparison.metrics["f1"], abs=2.0)
    assert report.metrics["f1"] > 70


@pytest.mark.slow
def test_one_variant_against_another(demo_artifact):
    report = evaluate_artifact(
        demo_artifact,
        gate_path(),
        variant="openvino-int8",
        against=demo_artifact,
        against_variant="openvino-fp32",
        limit=60,
    )
    comparison = report.comparison
    assert comparison is not None and "openvino-fp32" in comparison.against
    assert len(comparison.changed) == round((1 - comparison.equal_answers) * 60)
    assert all(change.answer != change.against_answer for change in comparison.changed)
    assert comparison.answer_f1 > 0.8


def test_selected_windows_are_read_where_they_are_asked_for(echo_artifact, tmp_path):
    questions = long_documents(load_squad(gate_path())[:40], 1500)
    (tmp_path / "long.json").write_text(json.dumps(squad_document(questions, "1.1")))
    told, readings = [], {}
    for select in (0, 1):
        report = evaluate_artifact(
            echo_artifact,
            tmp_path / "long.json",
            select_windows=select,
            against=echo_artifact,
            progress=lambda done, total: told.append((done, total)),
        )
        readings[select] = report.predictions
        assert report.comparison.changed == ()
        assert told[-1] == (80, 80)
    with Engine(echo_artifact) as engine:
        pairs = [(question.question, question.context) for question in questions]
        found = engine.answer(pairs, engine.task.ENCODE_OPTIONS(select_windows=1))
    assert list(readings[1].values()) == [ranked[0]["answer"] for ranked in found] != list(readings[0].values())


def test_an_interval_without_width_is_none(echo_artifact):
    report = evaluate_artifact(echo_artifact, DATA / "v1.json", limit=1)
    (facts, *_) = report.tables()
    assert dict(facts.rows)["f1, 95 % interval"] == "unknown: all are about one context, or score alike"
