"""The models of a server: a Runner for each artifact, found by name, by what it offers, and replaced while it works."""

import asyncio
import functools
import gc
import re
import threading
import time
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from contextlib import contextmanager
from typing import Any, Callable, Dict, FrozenSet, Iterator, List, Mapping, Optional, Sequence, Set, Tuple, TypeVar

from neuronbert.errors import RunnerClosed
from neuronbert.runner.documents import RunnerStatistics
from neuronbert.runner.runner import Runner
from neuronbert.runner.supervision import READY
from neuronbert.server.failures import UNKNOWN_WAIT_S, HttpError, retry_headers
from neuronbert.server.settings import Placed
from neuronbert.tasks import load_figures, load_http
from neuronbert.tasks.base import TaskHttp

Result = TypeVar("Result")
Launch = Callable[[str], Runner]  # a runner of the artifact in a folder, ready to be asked


class Model:
    """One artifact in place: its runner, and what does not change while it is there."""

    def __init__(self, place: Placed, runner: Runner):
        self.name = place.name
        self.runner = runner
        self.http: TaskHttp = load_http(runner.artifact.task)
        self.offers = self.http.offers(runner.tokenizer.config)
        self.task = runner.artifact.task
        self.digest = str(runner.artifact.manifest["digest"])
        self.source = str(runner.artifact.manifest["checkpoint"].get("source") or "")
        self.loaded_at = time.time()
        self.bulk_rows = 0  # with the runner, for requests of many lines

    def is_ready(self, stats: Optional[RunnerStatistics] = None) -> bool:
        """Whether a worker of it can be given work; by ``stats`` of its runner where they are at hand."""
        return any(worker["state"] == READY for worker in (stats or self.runner.stats())["workers"])

    def info(self) -> Dict[str, Any]:
        """What it is, for people and programs: artifact, variants, and what the gate measured of them."""
        manifest = self.runner.artifact.manifest
        figures = load_figures(self.task)
        return {
            "name": self.name,
            "task": self.task,
            "digest": self.digest,
            "emulated": self.runner.emulated,
            "checkpoint": _public(manifest["checkpoint"]),
            "neuronbert_version": manifest["neuronbert_version"],
            "created_at": manifest["created_at"],
            "loaded_at": self.loaded_at,
            "variants": [_variant_facts(variant, figures.columns(variant)) for variant in self.runner.variants],
            "workers": len(self.runner.places),
            "max_input_length": self.runner.tokenizer.max_length,
            "offers": sorted(self.offers),
            "example": self.http.EXAMPLE,
        }


_CHECKPOINT_FACTS = ("source", "revision", "fingerprint", "architecture", "parameters")
_VARIANT_FACTS = (
    "name",
    "backend",
    "precision",
    "batch_size",
    "sequence_length",
    "emulated",
    "agreement",
    "accuracy",
    "versions",
)


# The demo's name, and what the hub calls a model; a folder of two parts looks alike, and tells as little.
_HUB_ID = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def _public(checkpoint: Mapping[str, Any]) -> Dict[str, Any]:
    """What the manifest says of the checkpoint, without the folder of the machine that it was compiled on."""
    facts = {name: checkpoint.get(name) for name in _CHECKPOINT_FACTS}
    source = facts["source"]
    if source is not None and not _HUB_ID.fullmatch(source):
        facts["source"] = source.rstrip("/").rsplit("/", 1)[-1]
    return facts


def _variant_facts(variant: Mapping[str, Any], gate: Mapping[str, str]) -> Dict[str, Any]:
    facts = {**{name: variant.get(name) for name in _VARIANT_FACTS}, "gate": dict(gate)}
    if "cascade" in variant:
        cascade = variant["cascade"]
        facts["cascade"] = {**cascade, "variant": cascade["variant"]["name"]}
    return facts


def begin(function: Callable[[], Result]) -> "Future[Result]":
    """Call ``function`` in a thread of its own: a daemon, for whose end the process does not wait when it ends.

    A worker may take minutes to load. An executor's threads would be waited for.
    """
    future: Future[Result] = Future()
    future.set_running_or_notify_cancel()  # who waits may give up; the function goes on

    def call() -> None:
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=call, name="neuronbert-models", daemon=True).start()
    return future


class Models:
    """The models in the order in which they were named; the first answers where a request names none."""

    def __init__(self, places: Sequence[Placed], launch: Launch, drain_timeout_s: float):
        self._places = tuple(places)
        self._launch = launch
        self._drain_timeout_s = drain_timeout_s
        # These two are never changed, only replaced: the loop reads them while other threads load and unload.
        self._in_place: Mapping[str, Model] = {}
        self._wanted: FrozenSet[str] = frozenset(place.name for place in self._places)  # all but the unloaded ones
        self._leaving: List[Model] = []
        self._being_loaded: Set[str] = set()
        self._is_closed = False
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._lock = threading.Lock()
        self.is_draining = False
        self.closing: Future[None] = Future()  # done once they are closed, or about to be
        self.closing.set_running_or_notify_cancel()

    # ---- their lives

    def load_all(self) -> None:
        """Load every artifact, side by side; raises the error of the first that cannot be, at once.

        Then those that are in place are closed, and the others will be when they have loaded.
        """
        loading = [begin(functools.partial(self._load_first, place)) for place in self._places]
        wait(loading, return_when=FIRST_EXCEPTION)
        errors = [error for error in (future.exception() for future in loading if future.done()) if error is not None]
        if errors:
            self.close(0)
            raise errors[0]

    def _load_first(self, place: Placed) -> None:
        with self._loading(place.name):  # a reload that comes now would load it beside
            self._load(place)

    def _load(self, place: Placed) -> Model:
        model = Model(place, self._launch(place.folder))
        with self._lock:
            is_late = self._is_closed
            before = self._in_place.get(place.name)
            if not is_late:
                self._in_place = {**self._in_place, place.name: model}
                self._wanted |= {place.name}
            loop = self._loop
        if is_late:
            model.runner.close(0)
            raise RunnerClosed(f"the server ended while {place.name} was loaded")
        if loop is not None:
            model.runner.turn_in(loop)
        if before is not None:
            before.runner.close(self._drain_timeout_s)
            del before
            _collect_models()
        return model

    def turn_in(self, loop: asyncio.AbstractEventLoop) -> None:
        """Have the runners work in the loop's thread, those too that are loaded later."""
        with self._lock:
            self._loop = loop
            models = list(self._in_place.values())
        for model in models:
            model.runner.turn_in(loop)

    def reload(self, name: str) -> Model:
        """Put what is in the model's folder now in its place: first loaded and tested, then the old one is drained.

        Requests are answered all the while. Raises what keeps the new one from loading: then the old one stays.
        HttpError 404 for a name that the server was not started with, 409 while it is being loaded already.
        """
        place = self._place(name)
        with self._loading(name):
            return self._load(place)

    def unload(self, name: str) -> None:
        """Take a model out of its place, and drain it; HttpError as for ``reload``."""
        self._place(name)
        with self._loading(name):
            with self._lock:
                self._wanted -= {name}
                model = self._in_place.get(name)
                self._in_place = {each: kept for each, kept in self._in_place.items() if each != name}
            if model is not None:
                model.runner.close(self._drain_timeout_s)
                del model
                _collect_models()

    def _place(self, name: str) -> Placed:
        for place in self._places:
            if place.name == name:
                return place
        raise HttpError(404, f"there is no model {name!r:.60}", hint=f"one of {', '.join(self.names)}")

    @contextmanager
    def _loading(self, name: str) -> Iterator[None]:
        with self._lock:
            if name in self._being_loaded:
                raise HttpError(409, f"{name} is being loaded already", hint="wait until that has ended")
            self._being_loaded.add(name)
        try:
            yield
        finally:
            with self._lock:
                self._being_loaded.discard(name)

    def close(self, drain_timeout_s: float) -> None:
        """Finish what was accepted, for ``drain_timeout_s`` at most, and end every worker."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self.closing.set_result(None)
            self._leaving += self._in_place.values()  # another call may leave them less time
            models, self._in_place = list(self._leaving), {}
        for closing in [begin(functools.partial(model.runner.close, drain_timeout_s)) for model in models]:
            closing.result()

    # ---- looking

    def __iter__(self) -> Iterator[Model]:
        """Those that are loaded, in order."""
        in_place = self._in_place
        return iter([in_place[place.name] for place in self._places if place.name in in_place])

    @property
    def names(self) -> Tuple[str, ...]:
        """Of all, loaded or not yet."""
        return tuple(place.name for place in self._places)

    @property
    def are_loaded(self) -> bool:
        """Whether all of them are, but those that were unloaded."""
        return self._wanted <= self._in_place.keys()

    def is_ready(self) -> bool:
        """Whether a new request to any of them would find a worker; not where there is none of them."""
        models = list(self)
        return not self.is_draining and self.are_loaded and bool(models) and all(model.is_ready() for model in models)

    def can_answer(self, model: Model, stats: Optional[RunnerStatistics] = None) -> bool:
        """Whether a new request to ``model`` would find a worker."""
        return not self.is_draining and model.is_ready(stats)

    def named(self, name: str) -> Model:
        """The model of this name, or made from the checkpoint of this name; HttpError 404 if there is none."""
        model = self._in_place.get(name)
        if model is not None:
            return model
        of_checkpoint = [each for each in self if each.source == name]
        if of_checkpoint:
            return of_checkpoint[0]
        if name in self._wanted:
            raise _being_loaded(f"the model {name!r} is")
        raise HttpError(404, f"there is no model {name!r:.60}", hint=self._loaded_names())

    def _loaded_names(self) -> str:
        names = [model.name for model in self]
        if names:
            return f"one of {', '.join(names)}"
        return "none is loaded: POST /v2/repository/models/NAME/load, where the server allows it"

    def in_place(self, model: Model) -> Optional[Model]:
        """What took the place of ``model``; None where nothing did."""
        newer = self._in_place.get(model.name)
        return newer if newer is not model else None

    def first(self) -> Model:
        """The one that answers where a request names none; HttpError 503 while it is loaded."""
        return self.named(self.names[0])

    def offering(self, offer: str, name: Optional[str] = None) -> Model:
        """The model called ``name``, or the first one that gives ``offer``; HttpError 404 where it does not."""
        if name is not None:
            model = self.named(name)
            if offer not in model.offers:
                raise HttpError(404, f"{model.name} is for {model.task}, and gives no {offer}", hint=self._hint(offer))
            return model
        offering = self._offering(offer)
        if offering:
            return offering[0]
        if not self.are_loaded:
            raise _being_loaded("the models are")
        raise HttpError(404, f"no model of this server gives {offer}", hint=self._hint(offer))

    def _offering(self, offer: str) -> List[Model]:
        return [model for model in self if offer in model.offers]

    def _hint(self, offer: str) -> str:
        offering = self._offering(offer)
        if offering:
            return f"the model {offering[0].name}"
        return "POST /models/NAME with what GET /info shows as its example"


def _being_loaded(what: str) -> HttpError:
    return HttpError(
        503, f"{what} being loaded", hint="ask again in a few seconds", headers=retry_headers(UNKNOWN_WAIT_S)
    )


Told = Callable[[str, Models], None]  # the server's URL, and the models, all of which can be asked


def _collect_models() -> None:
    """Free what a model that has gone leaves, at the price of a pause: its parts refer to each other.

    A server has Python leave out what was there at its start when it looks for garbage (``process``), models included.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
