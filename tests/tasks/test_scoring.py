"""The shared figures against the libraries that define them, and against figures worked out by hand."""

import math
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import InputError, UsageError
from neuronbert.tasks.scoring import (
    RetrievalFigures,
    accuracy,
    macro_f1,
    matthews,
    mean_interval,
    multilabel_f1,
    pearson,
    spearman,
    subset_accuracy,
)


def close(expected):
    return pytest.approx(expected, rel=0, abs=1e-12, nan_ok=True)


def unwarned(function, *arguments, **options):
    """What a library returns of input that it warns about."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **options)


# ---------------------------------------------------------------------- one label a text

# Predicted and gold, of few and of many labels, and of labels that only one side has.
labellings = st.sampled_from([2, 3, 12]).flatmap(
    lambda names: st.lists(st.tuples(st.integers(0, names), st.integers(1, names + 1)), min_size=1, max_size=80)
)


@given(labellings)
def test_label_figures_are_scikit_learns(pairs):
    metrics = pytest.importorskip("sklearn.metrics")
    predicted, gold = zip(*pairs)
    assert accuracy(predicted, gold) == metrics.accuracy_score(gold, predicted)
    assert macro_f1(predicted, gold) == close(metrics.f1_score(gold, predicted, average="macro", zero_division=0))
    assert matthews(predicted, gold) == close(unwarned(metrics.matthews_corrcoef, gold, predicted))


@given(labellings)
def test_label_figures_are_those_of_any_names_in_lists_or_arrays(pairs):
    predicted, gold = zip(*pairs)
    for figure in (accuracy, macro_f1, matthews):
        expected = figure(predicted, gold)
        assert type(expected) is float
        assert figure(np.array(predicted), np.array(gold)) == expected
        assert figure(np.array(predicted).astype(str), [str(label) for label in gold]) == expected
        others = [[None if label == 1 else (label,) for label in labels] for labels in (predicted, gold)]
        assert figure(*others) == expected


@given(labellings)
def test_label_figures_keep_to_their_range_and_reach_its_top(pairs):
    predicted, gold = zip(*pairs)
    assert 0 <= macro_f1(predicted, gold) <= 1 and 0 <= accuracy(predicted, gold) <= 1
    assert -1 - 1e-15 <= matthews(predicted, gold) <= 1 + 1e-15
    assert (accuracy(gold, gold), macro_f1(gold, gold)) == (1, 1)
    assert matthews(gold, gold) == (1 if len(set(gold)) > 1 else 0)


def test_label_figures_by_hand():
    predicted, gold = "aabbc", "aabcb"
    assert accuracy(predicted, gold) == 3 / 5
    # a: 2 right of 2 and 2; b: 1 of 2 and 2; c: 0 of 1 and 1.
    assert macro_f1(predicted, gold) == close((1 + 1 / 2 + 0) / 3)
    # (3 * 5 - (4 + 4 + 1)) / sqrt((25 - 9) * (25 - 9))
    assert matthews(predicted, gold) == close(6 / 16)


def test_a_label_of_one_side_alone_counts_as_nothing_right():
    assert macro_f1("aaa", "aab") == close((4 / 5 + 0) / 2)
    assert macro_f1("aab", "aaa") == close((4 / 5 + 0) / 2)
    assert macro_f1("a", "b") == 0


@pytest.mark.parametrize(("predicted", "gold"), [("aaa", "aab"), ("aab", "aaa"), ("aaa", "aaa"), ("aaa", "bbb"), "ab"])
def test_a_side_with_one_label_has_no_correlation(predicted, gold):
    assert matthews(predicted, gold) == 0.0


def test_matthews_is_exact_where_64_bits_are_too_few():
    # For two labels the formula is that of the four-fold table; texts**4 is far beyond 2**63.
    both, first, second, neither = 70_000, 20_000, 10_000, 100_000
    predicted = [1] * both + [1] * first + [0] * second + [0] * neither
    gold = [1] * both + [0] * first + [1] * second + [0] * neither
    table = (both + first) * (both + second) * (neither + first) * (neither + second)
    assert matthews(predicted, gold) == close((both * neither - first * second) / math.sqrt(table))


@pytest.mark.parametrize("figure", [accuracy, macro_f1, matthews])
def test_labels_that_cannot_be_compared_are_refused(figure):
    with pytest.raises(InputError, match="^2 predictions for 1 gold label\n  try: give one for each"):
        figure(["a", "b"], ["a"])
    with pytest.raises(InputError, match="nothing to score: 0 predictions"):
        figure([], [])
    with pytest.raises(InputError, match="nothing to score"):
        figure(np.array([]), np.array([]))


# ---------------------------------------------------------------------- any number of labels a text


@st.composite
def decisions(draw):
    texts, labels = draw(st.integers(1, 30)), draw(st.integers(2, 6))  # scikit-learn takes one column for one label
    rows = st.lists(st.lists(st.booleans(), min_size=labels, max_size=labels), min_size=texts, max_size=texts)
    return np.array(draw(rows)), np.array(draw(rows))


@given(decisions())
def test_multilabel_figures_are_scikit_learns(pair):
    metrics = pytest.importorskip("sklearn.metrics")
    predicted, gold = pair
    assert subset_accuracy(predicted, gold) == metrics.accuracy_score(gold, predicted)
    ours = multilabel_f1(predicted, gold)
    assert ours.macro == close(metrics.f1_score(gold, predicted, average="macro", zero_division=0))
    assert ours.micro == close(metrics.f1_score(gold, predicted, average="micro", zero_division=0))


@given(decisions())
def test_multilabel_figures_keep_to_their_range_and_reach_its_top(pair):
    predicted, gold = pair
    ours = multilabel_f1(predicted, gold)
    assert 0 <= ours.macro <= 1 and 0 <= ours.micro <= 1
    assert multilabel_f1(predicted.tolist(), gold.tolist()) == ours
    assert subset_accuracy(gold, gold) == 1
    assert multilabel_f1(gold, gold) == (close(gold.any(axis=0).mean()), float(gold.any()))


def test_multilabel_figures_by_hand():
    predicted = [[True, False, False], [True, True, False], [False, True, False]]
    gold = [[True, False, False], [False, True, False], [True, True, False]]
    assert subset_accuracy(predicted, gold) == 1 / 3
    # 1 right of 2 and 2; 2 of 2 and 2; the third occurs nowhere. Together: 3 right of 4 and 4.
    assert multilabel_f1(predicted, gold) == (close((1 / 2 + 1 + 0) / 3), close(3 / 4))


def test_one_right_decision_is_all_of_the_micro_figure():
    once = [[True, False], [False, False]]
    assert multilabel_f1(once, once) == (1 / 2, 1)
    assert multilabel_f1(once, [[False, False], [False, True]]) == (0, 0)


def test_where_no_text_has_a_label_f1_is_0_and_the_subsets_are_right():
    nothing = np.zeros((4, 2), dtype=bool)
    assert multilabel_f1(nothing, nothing) == (0, 0)
    assert subset_accuracy(nothing, nothing) == 1


@pytest.mark.parametrize("figure", [subset_accuracy, multilabel_f1])
@pytest.mark.parametrize(
    ("predicted", "gold", "message"),
    [
        (np.zeros((2, 3), bool), np.zeros((1, 3), bool), r"the shape \[2, 3\] and gold \[1, 3\]"),
        (np.zeros((2, 3), bool), np.zeros((2, 4), bool), r"the shape \[2, 3\] and gold \[2, 4\]"),
        (np.full((2, 3), 0.7), np.zeros((2, 3), bool), r"predicted must be booleans .* not float64 of shape \[2, 3\]"),
        (np.zeros((2, 3), bool), np.zeros((2, 3), int), r"gold must be booleans .* not int64"),
        ([True, False], [True, False], r"not bool of shape \[2\]\n  try: "),
        (np.zeros((0, 3), bool), np.zeros((0, 3), bool), r"nothing to score in the shape \[0, 3\]"),
        (np.zeros((3, 0), bool), np.zeros((3, 0), bool), r"nothing to score in the shape \[3, 0\]"),
    ],
)
def test_decisions_that_cannot_be_compared_are_refused(figure, predicted, gold, message):
    with pytest.raises(InputError, match=message):
        figure(predicted, gold)


# ---------------------------------------------------------------------- a number a text

# Quarters: equal numbers are common, and a float holds them exactly.
quarters = st.integers(-40, 40).map(lambda number: number / 4)
pairs_of_quarters = st.lists(st.tuples(quarters, quarters), min_size=2, max_size=60)
scores = st.lists(st.tuples(st.floats(-1, 1, width=32), st.floats(0, 5, width=32)), min_size=2, max_size=60)


@given(pairs_of_quarters)
def test_correlations_are_scipys(pairs):
    stats = pytest.importorskip("scipy.stats")
    x, y = zip(*pairs)
    assert pearson(x, y) == close(unwarned(stats.pearsonr, x, y)[0])
    assert spearman(x, y) == close(unwarned(stats.spearmanr, x, y)[0])


@given(scores)
def test_the_rank_correlation_of_similarities_is_scipys(pairs):
    stats = pytest.importorskip("scipy.stats")
    x, y = zip(*pairs)
    assert spearman(x, y) == close(unwarned(stats.spearmanr, x, y)[0])


@pytest.mark.parametrize("count", [2, 3, 100, 20_000])
def test_correlations_of_many_numbers_are_scipys(count):
    stats = pytest.importorskip("scipy.stats")
    random = np.random.default_rng(count)
    x = random.normal(size=count)
    y = np.round(x + random.normal(size=count), 1)
    assert pearson(x, y) == close(stats.pearsonr(x, y)[0])
    assert spearman(x, y) == close(stats.spearmanr(x, y)[0])
    assert pearson(1e6 * x + 7, -y) == close(-pearson(x, y))


@given(pairs_of_quarters)
def test_the_order_is_all_that_ranks_are_of(pairs):
    x, y = zip(*pairs)
    assert spearman(np.exp(x), y) == close(spearman(x, y))
    assert spearman(x, [-number for number in y]) == close(-spearman(x, y))


def test_correlations_by_hand():
    # Centred: -1.5, -0.5, 0.5, 1.5 and -1.5, -1.5, 0.5, 2.5.
    assert pearson([1, 2, 3, 4], [0, 0, 2, 4]) == close(7 / math.sqrt(5 * 11))
    # The equal pair shares rank 1.5; centred: -1.5, -0.5, 0.5, 1.5 and -1, -1, 0.5, 1.5.
    assert spearman([1, 2, 3, 4], [0, 0, 2, 4]) == close(4.5 / math.sqrt(5 * 4.5))
    assert pearson([0, 1], [5, 3]) == close(-1)


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_a_constant_side_has_no_correlation(correlation):
    # The mean of three times 0.1 is not 0.1.
    assert math.isnan(correlation([0.1, 0.1, 0.1], [1, 2, 3]))
    assert math.isnan(correlation([1, 2, 3], [0.1, 0.1, 0.1]))
    assert math.isnan(correlation([1], [2]))


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_what_is_no_number_has_no_correlation(correlation):
    assert math.isnan(correlation([1, math.nan, 3], [1, 2, 3]))
    assert math.isnan(correlation([1, 2, 3], [math.nan, math.nan, 3]))


def test_infinity_has_a_rank_and_no_distance():
    assert math.isnan(pearson([1, 2, math.inf], [1, 2, 3]))
    assert spearman([1, 2, math.inf], [1, 2, 3]) == close(1)


@pytest.mark.parametrize("size", [1e-300, 1e-160, 1e160, 1e300])
def test_the_size_of_numbers_does_not_matter(size):
    x, y = np.array([1.0, 2.0, 4.0, 3.0]), np.array([1.0, 3.0, 3.0, 2.0])
    assert pearson(size * x, y) == close(pearson(x, y))


def test_rounding_leads_to_no_correlation_above_1():
    random = np.random.default_rng(0)
    numbers = [random.normal(size=count) for count in range(2, 200)]
    assert [pearson(x, x) for x in numbers] == [close(1)] * len(numbers)
    assert max(pearson(x, x) for x in numbers) <= 1 and min(pearson(x, -x) for x in numbers) >= -1


def test_a_sum_that_no_float_holds_leaves_no_correlation():
    assert math.isnan(pearson([1.7e308, 1.6e308, 1], [1, 2, 3]))
    assert spearman([1.7e308, 1.6e308, 1], [1, 2, 3]) == close(-1)


@pytest.mark.parametrize("correlation", [pearson, spearman])
def test_numbers_that_cannot_be_compared_are_refused(correlation):
    with pytest.raises(InputError, match="^3 numbers for 1 other\n  try: give one for each"):
        correlation([1, 2, 3], [1])
    with pytest.raises(InputError, match="nothing to score: 0 numbers"):
        correlation([], [])
    with pytest.raises(InputError, match=r"numbers to correlate have the shape \[3, 1\]"):
        correlation([1, 2, 3], np.ones((3, 1)))


# ---------------------------------------------------------------------- ranked documents

DOCUMENTS = tuple(f"d{number}" for number in range(9))
AT = (1, 3, 5, 10)
NAMES = ("accuracy", "precision", "recall", "ndcg", "mrr", "map")


@st.composite
def searches(draw):
    """Rankings of one length, as a corpus gives them, and relevant ids; some are in no ranking."""
    count, length = draw(st.integers(1, 6)), draw(st.integers(0, len(DOCUMENTS)))
    ranked = [draw(st.permutations(DOCUMENTS))[:length] for _ in range(count)]
    relevant = [draw(st.sets(st.sampled_from((*DOCUMENTS, "elsewhere")))) for _ in range(count)]
    relevant[-1].add("d0")
    return ranked, relevant


def figures_of(found):
    return {name: {k: getattr(found, name)(k) for k in AT} for name in NAMES}


def evaluators_figures(ranked, relevant):
    """The evaluator's own, for its own form of the same rankings."""
    evaluator = pytest.importorskip("sentence_transformers.evaluation").InformationRetrievalEvaluator(
        queries={f"q{number}": "?" for number in range(len(ranked))},
        corpus=dict.fromkeys(DOCUMENTS, ""),
        relevant_docs={f"q{number}": ids for number, ids in enumerate(relevant)},
        **{name: list(AT) for name in ("mrr_at_k", "ndcg_at_k", "accuracy_at_k", "precision_recall_at_k", "map_at_k")},
    )
    hits = [
        [{"corpus_id": name, "score": -place} for place, name in enumerate(ids)]
        for ids, wanted in zip(ranked, relevant)
        if wanted
    ]
    figures = evaluator.compute_metrics(hits)
    return {name: figures[f"{name}@k"] for name in NAMES}


def all_close(figures):
    return {name: close(figures[name]) for name in NAMES}


@pytest.mark.slow
@given(searches())
def test_retrieval_figures_are_the_evaluators(search):
    assert figures_of(RetrievalFigures.of(*search)) == all_close(evaluators_figures(*search))


# Each query's ranking is the one before turned by a place; d8 and "elsewhere" are in none.
TURNED = [(DOCUMENTS[:8] * 2)[turn : turn + 8] for turn in range(5)]
WANTED = [{"d0"}, {"d0", "d3", "d8"}, {"elsewhere"}, {"d1", "d2"}, {"d4", "d6", "d7", "d0", "d1", "d2", "d3"}]
# What the evaluator of sentence-transformers 6.2.0 says of them.
RECORDED = {
    "accuracy": {1: 0.4, 3: 0.6, 5: 0.6, 10: 0.8},
    "precision": {1: 0.4, 3: 0.26666666666666666, 5: 0.24000000000000005, 10: 0.24},
    "recall": {1: 0.22857142857142856, 3: 0.3238095238095238, 5: 0.38095238095238093, 10: 0.7333333333333333},
    "ndcg": {1: 0.4, 3: 0.3877114904091026, 5: 0.40413061965537017, 10: 0.5387550582411895},
    "mrr": {1: 0.4, 3: 0.4666666666666666, 5: 0.4666666666666666, 10: 0.49523809523809526},
    "map": {1: 0.4, 3: 0.3333333333333333, 5: 0.3508888888888889, 10: 0.4433786848072562},
}


def test_retrieval_figures_are_the_evaluators_of_recorded_rankings():
    assert figures_of(RetrievalFigures.of(TURNED, WANTED)) == all_close(RECORDED)


@pytest.mark.slow
def test_the_evaluator_says_what_is_recorded():
    assert evaluators_figures(TURNED, WANTED) == all_close(RECORDED)


@given(searches())
def test_retrieval_figures_keep_to_their_range_and_to_each_other(search):
    found = RetrievalFigures.of(*search)
    figures = figures_of(found)
    assert all(0 <= value <= 1 + 1e-15 for values in figures.values() for value in values.values())
    for name in ("accuracy", "recall", "mrr"):
        rising = list(figures[name].values())
        assert rising == sorted(rising)
    first = figures["accuracy"][1]
    assert [figures[name][1] for name in ("precision", "mrr", "map", "ndcg")] == [close(first)] * 4
    assert figures["mrr"][10] <= figures["accuracy"][10] + 1e-15


@given(searches())
def test_a_ranking_that_begins_with_all_that_is_relevant_is_perfect(search):
    _, relevant = search
    best = [[*sorted(ids), *(name for name in DOCUMENTS if name not in ids)] for ids in relevant]
    found = RetrievalFigures.of(best, relevant)
    for k in AT:
        assert [found.accuracy(k), found.mrr(k), found.map(k), found.ndcg(k)] == [close(1)] * 4
    assert found.recall(10) == 1


def test_retrieval_figures_by_hand():
    # Relevant at places 2 and 4 of three relevant ones, and at place 1 of one.
    found = RetrievalFigures.of(["abcd", "abcd"], [{"b", "d", "x"}, {"a"}])
    assert (found.accuracy(1), found.accuracy(2)) == (1 / 2, 1)
    assert (found.recall(2), found.recall(4)) == (close((1 / 3 + 1) / 2), close((2 / 3 + 1) / 2))
    assert (found.precision(4), found.precision(10)) == (close((2 / 4 + 1 / 4) / 2), close((2 / 10 + 1 / 10) / 2))
    assert (found.mrr(1), found.mrr(4)) == (1 / 2, close((1 / 2 + 1) / 2))
    assert found.map(2) == close((1 / 2 / 2 + 1) / 2)
    assert found.map(4) == close(((1 / 2 + 2 / 4) / 3 + 1) / 2)
    gains = 1 / math.log2(3) + 1 / math.log2(5)
    assert found.ndcg(4) == close((gains / (1 + 1 / math.log2(3) + 1 / math.log2(4)) + 1) / 2)
    assert found.ndcg(2) == close((1 / math.log2(3) / (1 + 1 / math.log2(3)) + 1) / 2)


def test_rankings_may_differ_in_length_and_their_ids_in_kind():
    found = RetrievalFigures.of([np.array([4, 7, 1]), [], [(0, 1)]], [{7}, {4}, {(0, 1), "a"}])
    assert found.hits.tolist() == [[False, True, False], [False] * 3, [True, False, False]]
    assert found.recall(3) == close((1 + 0 + 1 / 2) / 3)
    assert found.mrr(3) == close((1 / 2 + 0 + 1) / 3)


def test_where_nothing_is_ranked_every_figure_is_0():
    assert figures_of(RetrievalFigures.of([[], []], [{"a"}, {"b"}])) == {name: dict.fromkeys(AT, 0.0) for name in NAMES}


def test_a_query_to_which_nothing_is_relevant_does_not_count():
    found = RetrievalFigures.of(["ab", "ba"], [set(), {"a"}])
    assert len(found.relevant) == 1
    assert found.mrr(2) == 1 / 2
    with pytest.raises(InputError, match="no query has a relevant document"):
        RetrievalFigures.of(["ab"], [set()])


def test_rankings_that_cannot_be_scored_are_refused():
    with pytest.raises(InputError, match="^2 rankings for 1 relevant set\n  try: give one for each"):
        RetrievalFigures.of(["ab", "ba"], [{"a"}])
    with pytest.raises(InputError, match="nothing to score: 0 rankings"):
        RetrievalFigures.of([], [])
    with pytest.raises(InputError, match=r"^ranked\[1\] has a document twice"):
        RetrievalFigures.of(["ab", "aba"], [{"a"}, {"b"}])
    found = RetrievalFigures.of(["ab"], [{"a"}])
    for name in NAMES:
        with pytest.raises(UsageError, match="k must be a whole number of at least 1, not 0"):
            getattr(found, name)(0)


# ---------------------------------------------------------------------- how certain a mean is


def test_the_interval_holds_the_mean_and_narrows_with_more_scores():
    few = [0, 100] * 20
    low, high = mean_interval(few, range(40))
    assert 0 < low < 50 < high < 100
    lower, higher = mean_interval(few * 25, range(1000))
    assert higher - lower < (high - low) / 3
    # Binomial: 1.96 * 50 / sqrt(40) on each side.
    assert high - low == pytest.approx(2 * 1.96 * 50 / math.sqrt(40), rel=0.15)


def test_the_interval_widens_when_scores_share_a_group():
    scores = [0] * 100 + [100] * 100
    low, high = mean_interval(scores, range(200))
    together_low, together_high = mean_interval(scores, [index // 10 for index in range(200)])
    assert together_high - together_low > 2 * (high - low)


def test_the_interval_is_the_same_every_time():
    assert mean_interval([1, 2, 5, 9], "abcd") == mean_interval([1, 2, 5, 9], "wxyz") == mean_interval([1, 2, 5, 9])
    assert mean_interval([7.0, 7.0], ["p", "p"]) == (7.0, 7.0)
    assert mean_interval(range(50), seed=1) != mean_interval(range(50), seed=2)


def test_the_interval_does_not_depend_on_how_many_are_drawn_at_a_time():
    random = np.random.default_rng(0)
    scores, groups = random.random(3000), random.permutation(np.arange(3000) % 700)
    sums = np.array([scores[groups == group].sum() for group in dict.fromkeys(groups)])
    counts = np.array([(groups == group).sum() for group in dict.fromkeys(groups)])
    drawn = np.random.default_rng(5).integers(700, size=(2000, 700))  # more than one block
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = mean_interval(scores, groups, confidence=0.9, seed=5)
    assert (low, high) == (close(np.percentile(means, 5)), close(np.percentile(means, 95)))


def test_scores_without_an_interval_are_refused():
    with pytest.raises(InputError, match="^2 scores for 1 group\n"):
        mean_interval([1, 2], ["a"])
    for groups in (None, []):
        with pytest.raises(InputError, match="nothing to score: 0 scores"):
            mean_interval([], groups)
