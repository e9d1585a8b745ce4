"""neuronbert.tasks.token_classification.entity_f1 against seqeval, and by hand where they differ on purpose."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import InputError
from neuronbert.tasks.token_classification.entity_f1 import (
    Counts,
    Span,
    count_entities,
    entities_of,
    f1_interval,
    macro_f1,
    overall,
    shared_f1,
    tag_accuracy,
    tag_parts,
)

PLACES = ("B", "I", "E", "S")
TAGS = ("O", *PLACES, *(f"{place}-{type_}" for place in PLACES for type_ in ("PER", "LOC", "WORK-OF-ART", "")))
SENTENCE = st.lists(st.sampled_from(TAGS), max_size=12)
PAIRS = st.lists(st.sampled_from(TAGS), min_size=1, max_size=12).flatmap(
    lambda gold: st.tuples(st.just(gold), st.lists(st.sampled_from(TAGS), min_size=len(gold), max_size=len(gold)))
)


# What record_seqeval.py recorded, for where seqeval is not installed.
CASES = json.loads((Path(__file__).parents[2] / "data" / "golden" / "seqeval-1.2.2.json").read_text())["cases"]


def test_figures_are_those_that_seqeval_gave():
    assert len(CASES) == 300 and sum(bool(case["by_type"]) for case in CASES) > 250
    for case in CASES:
        golds, guesses = case["golds"], case["guesses"]
        assert [[[span.type, span.start, span.stop - 1] for span in entities_of(tags)] for tags in golds] == case[
            "entities"
        ]
        by_type = count_entities(*[[set(entities_of(tags)) for tags in side] for side in (golds, guesses)])
        counts = overall(by_type)
        ours = (counts.precision, counts.recall, counts.f1, tag_accuracy(golds, guesses))
        theirs = [case[name] for name in ("precision", "recall", "f1", "accuracy")]
        assert ours == pytest.approx(tuple(theirs), abs=1e-12)
        if case["macro_f1"] is None:  # no entity to find
            continue
        assert macro_f1(by_type) == pytest.approx(case["macro_f1"], abs=1e-12)
        found = {name: [own.precision, own.recall, own.f1, own.gold] for name, own in by_type.items()}
        assert list(found) == list(case["by_type"])
        for name, figures in found.items():
            assert figures == pytest.approx(case["by_type"][name], abs=1e-12)


@given(SENTENCE)
def test_entities_are_those_of_seqeval(tags):
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    assert [(span.type, span.start, span.stop - 1) for span in entities_of(tags)] == seqeval.get_entities(tags)


@given(st.lists(PAIRS, min_size=1, max_size=8))
@pytest.mark.filterwarnings("ignore:.*ill-defined")
@pytest.mark.filterwarnings("ignore:Mean of empty slice")
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_figures_are_those_of_seqeval(pairs):
    metrics = pytest.importorskip("seqeval.metrics")
    golds, guesses = [list(sentences) for sentences in zip(*pairs)]
    by_type = count_entities(*[[set(entities_of(tags)) for tags in side] for side in (golds, guesses)])
    counts = overall(by_type)
    assert counts.precision == pytest.approx(metrics.precision_score(golds, guesses), abs=1e-12)
    assert counts.recall == pytest.approx(metrics.recall_score(golds, guesses), abs=1e-12)
    assert counts.f1 == pytest.approx(metrics.f1_score(golds, guesses), abs=1e-12)
    assert tag_accuracy(golds, guesses) == pytest.approx(metrics.accuracy_score(golds, guesses), abs=1e-12)
    if not by_type:  # seqeval's mean of nothing is no number
        assert macro_f1(by_type) == 0
        return
    assert macro_f1(by_type) == pytest.approx(metrics.f1_score(golds, guesses, average="macro"), abs=1e-12)
    report = metrics.classification_report(golds, guesses, output_dict=True, zero_division=0)
    assert list(by_type) == [name for name in report if not name.endswith(" avg")]
    for name, own in by_type.items():
        assert (own.precision, own.recall, own.f1, own.gold) == pytest.approx(
            tuple(report[name][key] for key in ("precision", "recall", "f1-score", "support")), abs=1e-12
        )


@pytest.mark.parametrize(
    ("tags", "spans"),
    [
        ("B-PER I-PER O B-LOC", [("PER", 0, 2), ("LOC", 3, 4)]),
        ("I-PER I-PER B-PER I-PER", [("PER", 0, 2), ("PER", 2, 4)]),  # IOB1
        ("I-PER E-PER E-PER", [("PER", 0, 2), ("PER", 2, 3)]),  # IOE
        ("S-PER S-PER B-LOC E-LOC", [("PER", 0, 1), ("PER", 1, 2), ("LOC", 2, 4)]),  # IOBES
        ("I-PER I-LOC", [("PER", 0, 1), ("LOC", 1, 2)]),
        ("NN NN IN O VB", [("NN", 0, 2), ("IN", 2, 3), ("VB", 4, 5)]),  # each tag is a type
        ("B_PER BIRD", [("B_PER", 0, 1), ("BIRD", 1, 2)]),
    ],
)
def test_entities_of_every_scheme(tags, spans):
    assert entities_of(tags.split()) == [Span(*span) for span in spans]


@pytest.mark.parametrize(
    ("tag", "parts"),
    [("O", ("O", "_")), ("B", ("B", "_")), ("E-", ("E", "_")), ("I-A-B", ("I", "A-B")), ("OX", ("I", "OX"))],
)
def test_the_parts_of_a_tag(tag, parts):
    assert tag_parts(tag) == parts


def test_what_two_readers_share():
    ours, theirs = [{Span("PER", 0, 3)}, set()], [{Span("PER", 0, 3), Span("LOC", 5, 7)}, set()]
    assert shared_f1(ours, theirs) == pytest.approx(2 / 3)
    assert shared_f1([set()], [set()]) == 1.0 and shared_f1([set()], theirs[:1]) == 0.0


def test_no_tag_has_no_accuracy():
    with pytest.raises(InputError, match="no tag to compare"):
        tag_accuracy([[]], [[]])


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=30))
def test_an_interval_of_f1_holds_what_texts_may_show(texts):
    counts = [Counts(gold, predicted, min(gold, predicted)) for gold, predicted in texts]
    low, high = f1_interval(counts, resamples=50)
    assert min(each.f1 for each in counts) - 1e-12 <= low <= high <= 1
    assert f1_interval(counts, resamples=50) == (low, high)


def test_an_interval_narrows_with_the_number_of_texts():
    texts = [Counts(2, 2, 2), Counts(2, 2, 1), Counts(2, 2, 0)]
    few, many = f1_interval(texts * 3), f1_interval(texts * 300)
    assert few[0] < many[0] < 0.5 < many[1] < few[1] and many[1] - many[0] < 0.06
    assert f1_interval([Counts(3, 3, 3)] * 5) == (1.0, 1.0)
