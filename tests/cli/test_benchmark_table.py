"""What ``neuronbert benchmark`` prints: narrow enough for any terminal, and the best point last."""

from hypothesis import given
from hypothesis import strategies as st

from neuronbert.benchmark.report import document_of
from neuronbert.cli.benchmark_table import benchmark_text


def point(size, clients, rate, p95_ms, **more):
    return {
        "engine": "openvino", "precision": "int8", "variant": "openvino-int8", "n_models": 1, "batch_size": size,
        "concurrency": clients, "offered_qps": None, "throughput_avg": rate, "latency_ms_p50": p95_ms / 2,
        "latency_ms_p95": p95_ms, "errors": 0, "cost_per_1m_inf": None, "instance_type": "this machine", **more,
    }  # fmt: skip


def text_of(points, **options):
    return benchmark_text(document_of(points, command="", artifact={}, environment={}, **options))


def test_a_table_of_six_columns_then_the_best_in_one_sentence():
    curve = [(1, 30, 47), (2, 60, 92), (4, 62, 105), (8, 62, 170), (16, 62, 304)]
    assert text_of([point(1, *one) for one in curve]).splitlines() == [
        "this machine, openvino-int8, 1 worker",
        "",
        "configuration  load        answers/s  p50 ms  p95 ms",
        "batch 1        1 client         30.0    23.5    47.0",
        "batch 1        2 clients        60.0    46.0    92.0  best",
        "batch 1        4 clients        62.0    52.5     105",
        "batch 1        8 clients        62.0    85.0     170",
        "batch 1        16 clients       62.0     152     304",
        "",
        "batch 1, 2 clients: 60.0/s at p95 92.0 ms (the knee: beyond it, latency takes",
        "off)",
    ]


def test_every_curve_has_its_knee_and_only_one_is_the_best():
    curves = [point(size, n, min(30 * n, 60) + size, 33.0 * max(1, n / 2)) for size in (1, 4) for n in (1, 2, 4, 8)]
    marks = [line.split("  ")[-1] for line in text_of(curves).splitlines() if line.startswith("batch")]
    assert [mark for mark in marks if mark in ("best", "knee")] == ["knee", "best"]


def test_errors_are_said():
    marks = [line.split()[-1] for line in text_of([point(1, 1, 30, 40, errors=12)]).splitlines()[3:6]]
    assert marks == ["best,", "12", "errors"]


words = st.text(st.characters(codec="ascii", categories=["L", "N", "P"]), min_size=1, max_size=120)
points = st.lists(
    st.builds(
        point,
        st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 1e7), st.floats(0.001, 1e8),
        engine=words, mode=words, instance_type=words, errors=st.integers(0, 10**6), threads=st.integers(1, 999),
        sequence_length=st.integers(1, 4096), emulated=st.booleans(), pipeline_size=st.integers(1, 16),
    ),
    min_size=1, max_size=5,
)  # fmt: skip


@given(points, st.sampled_from([None, 50.0]))
def test_nothing_is_wider_than_80_characters(points, limit):
    lines = text_of(points, latency_p95_ms=limit).splitlines()
    assert max(map(len, lines)) <= 80
