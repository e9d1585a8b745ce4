"""tools/compare_engines: turns, ratios and the table, without a model that takes minutes."""

import json
from typing import Any, List

import pytest

from neuronbert_tools import compare_engines
from neuronbert_tools.compare_engines import TORCH, TVM, in_rounds, parser, report, table


def test_engines_take_turns_and_a_round_has_its_fastest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    called: List[str] = []
    clock = iter(range(10_000))
    monkeypatch.setattr(compare_engines, "PAUSE_S", 0.0)
    monkeypatch.setattr(compare_engines.time, "perf_counter", lambda: float(next(clock) ** 2))
    seconds = in_rounds({"a": lambda: called.append("a"), "b": lambda: called.append("b")}, 2, 3)
    assert "".join(called) == "aaaaabbbbb" * 2
    # The k-th run takes 4k + 1 on this clock: the first of a turn is its fastest.
    assert seconds == {"a": [1, 25], "b": [13, 37]}


def test_ratios_are_of_the_same_round() -> None:
    options = parser().parse_args(["--questions", "3", "--threads", "2"])
    seconds = {TORCH: [0.1, 0.2, 0.4], "openvino": [0.1, 0.1, 0.1], TVM: [0.05, 0.1, 0.1]}
    answers = {TORCH: ["a", "b", "c"], "openvino": ["a", "b", "c"], TVM: ["a", "x", "c"]}
    document = json.loads(json.dumps(report(options, seconds, answers)))
    found: Any = document["engines"]
    assert (found[TVM]["times_torch"], found[TVM]["times_openvino"]) == (2.0, 1.0)
    assert (found[TVM]["median_ms"], found[TVM]["fastest_ms"]) == (100.0, 50.0)
    assert [found[name]["equal_answers"] for name in seconds] == [3, 3, 2]
    lines = table(document).splitlines()
    assert len(lines) == 4 and lines[-1].split() == ["tvm", "100.00", "50.00", "2.00", "1.00", "2", "of", "3"]


@pytest.mark.parametrize("words", [["--tokens", "0"], ["--rounds", "-1"], ["--tuning-minutes", "x"]])
def test_options_that_are_no_numbers_end_the_command(words: List[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        parser().parse_args(words)
    assert caught.value.code == 2
