"""tools/measure_batches: the fitted cost, the batches that it finds, and a whole run."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any, List, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.artifact.manifest import Artifact
from neuronbert_tools.measure_batches import (
    AS_IT_IS,
    BY_COST,
    ROWS,
    TOKENS,
    Cost,
    best_batches,
    fitted,
    main,
    make_report,
)
from neuronbert_tools.paths import XQUAD

COSTS = st.builds(Cost, *(st.sampled_from([0.0, value]) for value in (1e-3, 1e-4, 1e-4, 1e-7)))


def total(batches: Sequence[Sequence[int]], lengths: Sequence[int], cost: Cost) -> float:
    return float(sum(cost.of(len(batch), max(lengths[index] for index in batch)) for batch in batches))


@given(lengths=st.lists(st.integers(1, 300), min_size=1, max_size=8), cost=COSTS)
def test_no_other_cut_costs_less(lengths: List[int], cost: Cost) -> None:
    found = best_batches(lengths, cost)
    assert sorted(index for batch in found for index in batch) == list(range(len(lengths)))
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    cuts = [places for count in range(len(order)) for places in combinations(range(1, len(order)), count)]
    others = [[order[a:b] for a, b in zip((0, *places), (*places, len(order)))] for places in cuts]
    assert total(found, lengths, cost) <= min(total(other, lengths, cost) for other in others) + 1e-12


@given(cost=COSTS.filter(lambda cost: cost.token > 0))
def test_a_cost_is_found_again(cost: Cost) -> None:
    found = fitted({(rows, tokens): cost.of(rows, tokens) for rows in ROWS for tokens in TOKENS})
    assert found == pytest.approx(cost, rel=1e-3, abs=1e-9)


def test_what_would_be_negative_is_nothing() -> None:
    found = fitted({(rows, tokens): 1e-4 * rows * tokens - 1e-6 * rows for rows in ROWS for tokens in TOKENS})
    assert min(found) >= 0 and found.token == pytest.approx(1e-4, rel=1e-2)


def test_batches_are_bounded() -> None:
    found = best_batches([100] * 50, Cost(1.0, 0.0, 0.0, 0.0), most_rows=9, most_tokens=800)
    assert max(map(len, found)) == 8
    assert best_batches([900], Cost(1.0, 0.0, 0.0, 0.0), most_tokens=800) == [[0]]


def test_figures_of_a_way() -> None:
    ways = {AS_IT_IS: [[0, 1]], BY_COST: [[0], [1]]}
    report: Any = make_report(Cost(1.0, 0.0, 0.1, 0.0), ways, [20, 10], {AS_IT_IS: [6.0, 4.0], BY_COST: [3.0, 4.0]})
    assert report["ways"][AS_IT_IS]["padding"] == pytest.approx(1 / 3) and report["ways"][BY_COST]["padding"] == 0
    assert report["ways"][BY_COST]["times"] == 1.5 and report["ways"][BY_COST]["predicted"] == pytest.approx(5 / 5)


def test_a_run(echo_artifact: Artifact, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    report = tmp_path / "report.json"
    options = ["--variant", "echo-fp32", "--questions", "20", "--rounds", "2", "--json", str(report)]
    assert main([str(echo_artifact.folder), str(XQUAD), *options]) == 0
    ways = json.loads(report.read_text(encoding="utf-8"))["ways"]
    assert {AS_IT_IS, BY_COST} < set(ways) and all(way["seconds"] > 0 for way in ways.values())
    assert "by cost" in capfd.readouterr().err
