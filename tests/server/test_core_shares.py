"""The NeuronCores of a machine among the models of one server."""

from types import SimpleNamespace
from typing import Any, List, Optional

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.errors import UsageError
from neuronbert.hardware.cores import CoreLayout, layout_for
from neuronbert.runner.supervision import READY, STOPPED
from neuronbert.server import core_shares
from neuronbert.server.core_shares import CoreShares, _longest_free

ARTIFACT: Any = None


class FakeRunner:
    """Has a layout, until it is closed."""

    def __init__(self, layout: Optional[CoreLayout]):
        assert layout is not None
        self.cores = [core for group in layout.groups for core in group]
        self.state = READY

    def stats(self) -> Any:
        return {"workers": [{"state": self.state}]}


@pytest.fixture
def compiled_for(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Has all artifacts compiled for this layout."""

    def compile_for(layout: CoreLayout, is_neuron: bool = True) -> None:
        monkeypatch.setattr(core_shares, "whole_layout", lambda *_: layout if is_neuron else None)

    return compile_for


def launched(shares: CoreShares, make: Any = FakeRunner) -> Any:
    return shares.launch(ARTIFACT, None, make)


def test_one_model_has_the_whole_machine(compiled_for: Any) -> None:
    compiled_for(layout_for("inf1.6xlarge", "pipeline", 4))
    shares = CoreShares(1)
    runner = launched(shares)
    assert runner.cores == list(range(16))
    with pytest.raises(UsageError, match="16 NeuronCores in a row are needed.*leave 0 of inf1.6xlarge's 16") as refused:
        launched(shares)
    assert refused.value.hint is not None and "--workers" in refused.value.hint
    runner.state = STOPPED
    assert launched(shares).cores == runner.cores


def test_several_share_it_and_a_new_one_is_loaded_beside_the_old(compiled_for: Any) -> None:
    compiled_for(layout_for("inf1.xlarge"))
    shares = CoreShares(2, workers=1)
    first, second = launched(shares), launched(shares)
    newer = launched(shares)
    assert [first.cores, second.cores, newer.cores] == [[0], [1], [2]]
    first.state = STOPPED
    assert launched(shares).cores == [0]
    del newer  # nobody has it any more
    assert launched(shares).cores == [2]


def test_without_a_number_each_has_the_same_share(compiled_for: Any) -> None:
    compiled_for(layout_for("inf1.xlarge"))
    shares = CoreShares(2)
    runners = [launched(shares) for _ in range(2)]
    assert [runner.cores for runner in runners] == [[0, 1], [2, 3]]
    with pytest.raises(UsageError, match="2 NeuronCores in a row are needed.*leave 0"):
        launched(shares)  # and not with fewer
    with pytest.raises(UsageError, match="workers"):
        CoreShares(1, workers=0)


def test_what_could_not_start_leaves_its_cores(compiled_for: Any) -> None:
    compiled_for(layout_for("inf1.xlarge"))
    shares = CoreShares(1)

    def fail(layout: Optional[CoreLayout]) -> Any:
        raise OSError

    with pytest.raises(OSError):
        launched(shares, fail)
    runner = launched(shares)
    assert runner.cores == [0, 1, 2, 3]


def test_more_workers_than_cores_are_refused(compiled_for: Any) -> None:
    compiled_for(layout_for("inf1.xlarge"))
    with pytest.raises(UsageError, match="5 models over 1 cores each need 5 cores; inf1.xlarge has 4"):
        launched(CoreShares(1, workers=5))
    shares = CoreShares(2, workers=3)
    first = launched(shares)
    with pytest.raises(UsageError, match="3 NeuronCores in a row are needed.*leave 1 of"):
        launched(shares)
    assert first.cores == [0, 1, 2]


def test_what_runs_on_no_core_has_none(compiled_for: Any) -> None:
    compiled_for(layout_for("inf1.xlarge"), is_neuron=False)
    given: List[Optional[CoreLayout]] = []
    launched(CoreShares(9), given.append)
    assert given == [None]


@given(st.integers(1, 16), st.lists(st.integers(0, 15)))
def test_the_longest_row_is_free(total: int, borders: List[int]) -> None:
    edges = sorted({min(border, total) for border in borders})
    pairs = list(zip(edges[::2], edges[1::2]))
    taken: Any = [SimpleNamespace(first_core=begin, used_cores=end - begin) for begin, end in pairs]
    free = _longest_free(total, taken)
    used = {core for begin, end in pairs for core in range(begin, end)}
    assert not used & set(free) and set(free) <= set(range(total))
    rows = "".join("x" if core in used else "." for core in range(total)).split("x")
    assert len(free) == max(map(len, rows))
