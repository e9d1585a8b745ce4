"""What a server elsewhere says of its runners, for ``top``: asked through hardware/remote.py."""

import time
from typing import Any, Dict, List, Tuple, cast
from urllib.parse import quote

from neuronbert.errors import InputError
from neuronbert.hardware.remote import RemoteServer
from neuronbert.hardware.schema import TEXT, Schema, form_of, list_of, record
from neuronbert.runner.documents import PublishedRunner, Reading, RunnerStatistics
from neuronbert.runner.publishing import rates

_MODEL = record({"name": TEXT, "emulated": {"type": "boolean"}, "loaded_at": {"type": "number"}, "variants": {}})
_INFO = Schema(**record({"models": list_of(_MODEL)}))
_STATS = Schema(**record({"runner": form_of(RunnerStatistics)}))


class RemoteRunners:
    """The runners of the server at ``url``. UsageError for what is no URL."""

    def __init__(self, url: str):
        self._server = RemoteServer(url, "top")
        self._before: Dict[str, Tuple[float, Reading]] = {}  # by model: when it was loaded, and the last reading
        self._last: List[PublishedRunner] = []

    def running(self) -> List[PublishedRunner]:
        """One for each model, with its rates since the last call. InputError where the server does not answer."""
        info = self._server.ask("/info", _INFO)
        self._last = [self._runner(model) for model in info["models"]]
        return self._last

    def running_or_last(self) -> List[PublishedRunner]:
        """As ``running``; what was last said, where the server does not answer now."""
        try:
            return self.running()
        except InputError:
            return self._last

    def _runner(self, model: Dict[str, Any]) -> PublishedRunner:
        name = model["name"]
        stats = cast(RunnerStatistics, self._server.ask(f"/v2/models/{quote(name)}/stats", _STATS)["runner"])
        now: Reading = {"at": time.time(), "workers": stats["workers"]}
        loaded_at, before = self._before.get(name, (model["loaded_at"], now))
        if loaded_at != model["loaded_at"]:  # another runner, which counts from 0
            before = now
        self._before[name] = (model["loaded_at"], now)
        runner = {
            "at": now["at"],
            "pid": None,
            "process_started": None,
            "artifact": f"{self._server.url} {name}",
            "variant": ", ".join(str(variant["name"]) for variant in model["variants"]),
            "emulated": model["emulated"],
            "started_at": model["loaded_at"],
            **stats,
            **rates(before, now),
            "work": None,
        }
        return cast(PublishedRunner, runner)
