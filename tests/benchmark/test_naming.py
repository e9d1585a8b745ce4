"""What points are called, and which of them is the best."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_reports import point

from neuronbert.benchmark import report
from neuronbert.benchmark.columns import figure
from neuronbert.benchmark.naming import Names, best_points, full_name, load_of, sentences


def marked(points, limit=None):
    report.mark_knees(points)
    report.mark_target(points, limit)
    return points


def test_what_all_points_share_is_said_once():
    points = [point(batch, 1, threads=threads, precision="int8") for batch in (1, 4) for threads in (1, 2)]
    names = Names(points)
    assert names.shared == ["inf1.xlarge", "neuron-int8", "data-parallel", "4 workers", "rows of 128 tokens"]
    assert [names.configuration(one) for one in points] == [
        "1 thread each, batch 1", "2 threads each, batch 1", "1 thread each, batch 4", "2 threads each, batch 4"
    ]  # fmt: skip
    assert names.point(points[0]) == "1 thread each, batch 1, 1 client"
    assert Names([]).shared == []


def test_a_single_point_has_its_batch_size_for_a_name():
    assert Names([point(4, 2)]).point(point(4, 2)) == "batch 4, 2 clients"


@pytest.mark.parametrize(
    ("concurrency", "rate", "said"),
    [(1, None, "1 client"), (2, None, "2 clients"), (1000, None, "1,000 clients"), (None, 40, "40 requests/s"),
     (None, 1, "1 request/s"), (None, 62.5, "62.5 requests/s")],
)  # fmt: skip
def test_a_load_in_words(concurrency, rate, said):
    assert load_of({"concurrency": concurrency, "offered_qps": rate}) == said


@pytest.mark.parametrize(
    ("number", "said"),
    [(0, "0.00"), (0.00512, "0.00512"), (2.671, "2.67"), (60, "60.0"), (99.96, "100"), (304.4, "304"), (3216, "3,216")],
)
def test_figures_have_three_digits(number, said):
    assert figure(number) == said


def test_the_best_is_the_knee_with_the_most_throughput_for_its_latency():
    points = marked([point(batch, clients) for batch in (1, 8) for clients in (1, 2, 4, 8, 16)])
    ((best, why),) = best_points(points)
    assert best["knee"] and why.startswith("the knee")
    power = [one["throughput_avg"] / one["latency_ms_p95"] for one in points]
    assert points[power.index(max(power))] is best
    assert sentences(points) == [
        f"batch {best['batch_size']}, 2 clients: {figure(best['throughput_avg'])}/s at p95 "
        f"{figure(best['latency_ms_p95'])} ms, {figure(best['cost_per_1m_inf'])} USD for a million "
        "(the knee: beyond it, latency takes off)"
    ]


def test_within_a_target_the_best_has_the_most_throughput():
    points = [point(6, clients) for clients in (1, 2, 4, 8, 16)]
    limit = sorted(one["latency_ms_p95"] for one in points)[3]
    ((best, why),) = best_points(marked(points, limit), limit)
    assert best["at_target"] and why == f"the most throughput within a p95 of {limit:g} ms"
    ((nearest, why),) = best_points(marked(points, 0.5), 0.5)
    assert nearest is min(points, key=lambda one: one["latency_ms_p95"])
    assert why == "the lowest p95, for nothing stayed within a p95 of 0.5 ms"


def test_without_a_knee_it_is_the_most_throughput_of_what_was_answered_without_errors():
    points = [point(batch, 32) for batch in (1, 4, 6)]
    points[2]["errors"] = 3
    ((best, why),) = best_points(marked(points))
    assert best is points[1] and why == "the most throughput"


def test_rows_of_different_lengths_answer_different_questions():
    points = [point(4, 2, sequence_length=length, input="tokens") for length in (64, 384)]
    assert [best["sequence_length"] for best, _ in best_points(marked(points))] == [64, 384]
    texts = [point(4, 2, sequence_length=length, input="text") for length in (64, 384)]
    assert len(best_points(marked(texts))) == 1


def test_a_sweep_without_an_answer_says_so():
    assert sentences([{**point(1, 1), "throughput_avg": 0.0}]) == ["nothing was answered"]


@given(st.lists(st.tuples(st.integers(1, 64), st.sampled_from(["a", "b"]), st.integers(1, 3)), min_size=1, max_size=6))
def test_two_configurations_never_have_one_name(drawn):
    points = [
        {"batch_size": size, "engine": engine, "threads": threads, "concurrency": 1} for size, engine, threads in drawn
    ]
    names = Names(points)
    assert len({names.point(one) for one in points}) == len(set(drawn)) == len({full_name(one) for one in points})
