"""neuronbert.tasks.token_classification.evaluation: figures, reports and comparisons."""

import json

import numpy as np
import pytest
from neuronbert_demo import FOLDER as DEMO

from neuronbert.benchmark.evaluation import evaluate_artifact
from neuronbert.checkpoint.tokenizer import RowLimit, Tokenizer
from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.base import Table
from neuronbert.tasks.token_classification.evaluation import TaggingEvaluation
from neuronbert.tasks.token_classification.options import EntityOptions, StrideOptions
from neuronbert.tasks.token_classification.task import evaluation
from neuronbert.tasks.token_classification.windows import encode_texts
from token_classification.tiny_taggers import LABELS, Tagger, logits_of

TOKENS = ["Jim", "Henson", "was", "in", "Greenville"]
TAGS = ["B-PER", "I-PER", "O", "O", "B-LOC"]
TEXT = " ".join(TOKENS)
LINES = [
    {"tokens": TOKENS, "tags": TAGS},
    {"tokens": TOKENS[2:], "tags": ["O", "O", "B-LOC"]},
    {"tokens": TOKENS[:2], "tags": ["B-PER", "I-PER"]},
]
FACTS = {"artifact": "folder", "variant": "echo-fp32", "seconds": 2.0, "environment": {}}
OUT, B_PER, I_PER, B_LOC, I_LOC = range(5)


@pytest.fixture
def tokenizer():
    config = {"id2label": {str(number): label for number, label in enumerate(LABELS)}}
    return Tokenizer.from_bytes(
        (DEMO / "tokenizer.json").read_bytes(), (DEMO / "tokenizer_config.json").read_bytes(), config
    )


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, LINES)))
    return path


def readings(one, tokenizer, *numbers):
    """What is read of a model that says the labels of these numbers, text by text."""
    options = one.options_for(tokenizer)
    examples = encode_texts(tokenizer, one.inputs, options)
    return [one.read(example, logits_of(example, own)) for example, own in zip(examples, numbers)]


RIGHT = ([B_PER, I_PER, OUT, OUT, B_LOC], [OUT, OUT, B_LOC], [B_PER, I_PER])
WRONG = ([B_PER, I_PER, OUT, OUT, B_LOC], [OUT, B_LOC, I_LOC], [B_PER, B_PER])


def test_what_is_right_scores_100(data, tokenizer):
    one = evaluation(data, None, StrideOptions(), EntityOptions())
    report = one.report(readings(one, tokenizer, *RIGHT), **FACTS)
    assert report.metrics == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "macro_f1": 100.0, "accuracy": 100.0}
    assert report.by_type["PER"] == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "support": 2}
    assert (report.f1_interval, report.texts, report.texts_per_s) == ((100.0, 100.0), 3, 1.5)


def test_figures(data, tokenizer):
    one = evaluation(data, None, StrideOptions(), EntityOptions())
    report = one.report(readings(one, tokenizer, *WRONG), **FACTS)
    # 2 of 4 entities found, by 5 that were predicted; 7 of 10 words have the right tag.
    assert report.metrics == pytest.approx(
        {
            "precision": 40.0,
            "recall": 50.0,
            "f1": 400 / 9,
            "macro_f1": (200 * 1 / 5 + 200 * 1 / 4) / 2,
            "accuracy": 70.0,
        }
    )
    assert report.by_type["LOC"]["support"] == 2 and report.by_type["PER"]["precision"] == pytest.approx(100 / 3)
    low, high = report.f1_interval
    assert 0 <= low < report.metrics["f1"] < high <= 100
    assert [[tuple(entity) for entity in found] for found in report.predictions] == [
        [("PER", 0, 10, "Jim Henson"), ("LOC", 18, 28, "Greenville")],
        [("LOC", 4, 17, "in Greenville")],
        [("PER", 0, 3, "Jim"), ("PER", 4, 10, "Henson")],
    ]


def test_a_report_is_json_and_tables(data, tokenizer):
    one = evaluation(data, None, StrideOptions(), EntityOptions())
    right, wrong = readings(one, tokenizer, *RIGHT), readings(one, tokenizer, *WRONG)
    report = one.compared(one.report(wrong, **FACTS), wrong, "the other", right)
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert document["predictions"][0][0] == {"label": "PER", "start": 0, "end": 10, "text": "Jim Henson"}
    assert document["texts_per_s"] == 1.5 and document["comparison"]["entity_f1"] == pytest.approx(4 / 9)
    assert [changed["place"] for changed in document["comparison"]["changed"]] == ["line 2", "line 3"]
    assert document["comparison"]["changed"][0]["gold"][0]["text"] == "Greenville"
    facts, empty, types, blank, line, changes = report.tables()
    assert isinstance(facts, Table) and (empty, blank) == ("", "")
    assert types.header[0] == "type" and types.rows[0] == ["LOC", "50.00", "50.00", "50.00", "2"]
    assert line == (
        "against the other: 70.0% of the labels equal, entity F1 0.444, its own F1 100.0000; 2 texts changed"
    )
    assert changes.rows == [
        ["line 2", "LOC Greenville", "LOC in Greenville", "LOC Greenville"],
        ["line 3", "PER Jim Henson", "PER Jim, PER Henson", "PER Jim Henson"],
    ]


def test_nothing_changed(data, tokenizer):
    one = evaluation(data, None, StrideOptions(), EntityOptions())
    right = readings(one, tokenizer, *RIGHT)
    report = one.compared(one.report(right, **FACTS), right, "the other", right)
    assert (report.comparison.equal_labels, report.comparison.entity_f1) == (1.0, 1.0)
    assert report.tables()[-1].endswith("; 0 texts changed")


def test_entities_over_characters_have_no_accuracy(tmp_path, tokenizer):
    entities = [{"start": 0, "end": 10, "label": "PER"}, {"start": 18, "end": 28, "label": "LOC"}]
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"text": TEXT, "entities": entities}))
    one = evaluation(path, None, StrideOptions(), EntityOptions())
    report = one.report(readings(one, tokenizer, RIGHT[0]), **FACTS)
    assert report.metrics == {"precision": 100.0, "recall": 100.0, "f1": 100.0, "macro_f1": 100.0}


def test_the_first_texts_only(data):
    assert len(evaluation(data, 2, StrideOptions(), EntityOptions()).inputs) == 2
    with pytest.raises(UsageError, match="limit must be a whole number of at least 1"):
        evaluation(data, 0, StrideOptions(), EntityOptions())


def test_a_label_that_the_artifact_lacks_is_named_before_it_answers(tmp_path, tokenizer):
    path = tmp_path / "data.conll"
    path.write_text("a B-MISC\n")
    with pytest.raises(InputError, match="line 1: the checkpoint has no label 'B-MISC'; it has O, B-PER"):
        TaggingEvaluation.of(path, None, StrideOptions()).options_for(tokenizer)


def test_a_text_that_cannot_be_encoded_is_named(data, tokenizer):
    tokenizer.row_limit = RowLimit(1, "this test", "nothing")
    one = evaluation(data, None, StrideOptions(max_length=6, stride=0), EntityOptions())
    with pytest.raises(InputError, match="data.jsonl, line 1: this text needs 2 windows"):
        one.refuse(tokenizer, 0, 3, one.options_for(tokenizer))
    one.refuse(tokenizer, 1, 2, one.options_for(tokenizer))


def test_rows_are_those_of_the_artifact(data, tokenizer):
    tokenizer.limit_length(32)
    one = evaluation(data, None, StrideOptions(), EntityOptions())
    assert one.options_for(tokenizer) == StrideOptions(7, 32)


# ---- with an engine


def test_an_artifact_is_evaluated_and_compared(tagger_artifact, tagger_checkpoint, data, tmp_path):
    words = [{"tokens": ["jim", "henson", "was", "a", "nice", "puppet"] * 30, "ner_tags": [1, 2, 0, 0, 0, 3] * 30}]
    path = tmp_path / "long.jsonl"
    path.write_text("\n".join(map(json.dumps, [*LINES, *words])))
    report = evaluate_artifact(tagger_artifact, path, variant="torchscript", against=str(tagger_checkpoint), threads=1)
    assert report.comparison.equal_labels == 1.0 and report.comparison.changed == ()
    assert report.texts == 4 and len(report.predictions) == 4
    tagger = Tagger(tagger_checkpoint)
    one = TaggingEvaluation.of(path, None, StrideOptions())
    examples = encode_texts(tagger.tokenizer, one.inputs, one.options_for(tagger.tokenizer))
    assert len(examples[-1].windows) > 2
    expected = one.report([one.read(example, tagger.outputs(example)) for example in examples], **FACTS)
    assert report.metrics == pytest.approx(expected.metrics) and report.predictions == expected.predictions
    assert not np.isnan(report.metrics["f1"])
