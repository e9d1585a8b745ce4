"""The models of a server while some are loaded, without a server: runners that are none."""

import sys
import threading
from typing import Any, Dict

import pytest

from neuronbert.errors import InputError
from neuronbert.server import models as models_module
from neuronbert.server.models import Models, _public, begin
from neuronbert.server.settings import Placed

PATIENCE_S = 60.0


class Told:
    """Stands for a model."""

    def __init__(self, place: Placed, runner: Any):
        self.name, self.runner = place.name, runner
        self.source, self.offers = "", frozenset(("answers",))

    def is_ready(self, stats: Any = None) -> bool:
        return True


class Runner:
    """Stands for a runner."""

    closed = False

    def close(self, drain_timeout_s: float) -> None:
        self.closed = True


@pytest.fixture()
def without_artifacts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "Model", Told)


def test_what_cannot_be_loaded_is_said_while_the_others_still_load(without_artifacts: None) -> None:
    go, late = threading.Event(), Runner()

    def launch(folder: str) -> Any:
        if folder == "broken":
            raise InputError("broken")
        assert go.wait(PATIENCE_S)
        return late

    models = Models([Placed("a", "slow"), Placed("b", "broken")], launch, 0)
    with pytest.raises(InputError, match="broken"):
        models.load_all()
    assert not go.is_set() and models.closing.done()
    go.set()
    end = threading.Event()
    for _ in range(1000):
        if late.closed:
            break
        end.wait(0.01)
    assert late.closed and not list(models)


def test_reading_never_meets_half_a_change(without_artifacts: None) -> None:
    places = [Placed(name, name) for name in "abc"]
    models = Models(places, lambda folder: Runner(), 0)  # type: ignore[arg-type, return-value]
    models.load_all()
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            models.unload("b")
            models.reload("b")

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    changing = begin(change)
    try:
        for _ in range(3000):
            assert [model.name for model in models] in (["a", "b", "c"], ["a", "c"])
            assert models.is_ready() in (True, False)
    finally:
        over.set()
        sys.setswitchinterval(before)
    changing.result(PATIENCE_S)


def test_a_function_whose_caller_gave_up_goes_on() -> None:
    go, over = threading.Event(), threading.Event()

    def work() -> int:
        assert go.wait(PATIENCE_S)
        over.set()
        return 7

    future = begin(work)
    assert not future.cancel()
    go.set()
    assert future.result(PATIENCE_S) == 7 and over.is_set()


SOURCES = {
    "demo": "demo",
    "deepset/minilm-uncased-squad2": "deepset/minilm-uncased-squad2",
    "/model": "model",
    "/model/": "model",
    "./model": "model",
    "../model": "model",
    "~/model": "model",
    "checkpoints/acme/secret": "secret",
    "a folder": "a folder",
    None: None,
}


def test_of_a_checkpoint_only_its_name_is_told() -> None:
    told: Dict[Any, Any] = {source: _public({"source": source})["source"] for source in SOURCES}
    assert told == SOURCES
