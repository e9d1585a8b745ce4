"""What a server elsewhere says of its runners, for ``top``: read over HTTP, with no library beside Python's own."""

import json
import os
import time
import urllib.request
from http.client import HTTPException
from typing import Any, Dict, List, Optional, cast
from urllib.error import HTTPError
from urllib.parse import quote, urlsplit

from neuronbert.errors import InputError, UsageError
from neuronbert.hardware.schema import TEXT, Schema, form_of, list_of, record
from neuronbert.runner.documents import PublishedRunner, Reading, RunnerStatistics
from neuronbert.runner.publishing import rates

TIMEOUT_S = 5.0
MOST_BYTES = 1 << 24  # of an answer
KEY_VARIABLE = "NEURONBERT_API_KEY"

_MODEL = record({"name": TEXT, "emulated": {"type": "boolean"}, "loaded_at": {"type": "number"}, "variants": {}})
_INFO = Schema(**record({"models": list_of(_MODEL)}))
_STATS = Schema(**record({"runner": form_of(RunnerStatistics)}))


class RemoteRunners:
    """The runners of the server at ``url``; the first key of $NEURONBERT_API_KEY is shown to it, where there is one."""

    def __init__(self, url: str):
        if urlsplit(url).scheme not in ("http", "https"):
            raise UsageError(f"{url} is no URL of a server", hint="neuronbert top http://127.0.0.1:8080")
        self._url = url.rstrip("/")
        self._before: Dict[str, Reading] = {}
        self._last: List[PublishedRunner] = []

    def running(self) -> List[PublishedRunner]:
        """One for each model, with its rates since the last call. InputError where the server does not answer."""
        info = self._ask("/info", _INFO)
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
        stats = cast(RunnerStatistics, self._ask(f"/v2/models/{quote(name)}/stats", _STATS)["runner"])
        now: Reading = {"at": time.time(), "workers": stats["workers"]}
        before = self._before.get(name, now)
        self._before[name] = now
        runner = {
            "at": now["at"],
            "pid": None,
            "process_started": None,
            "artifact": f"{self._url} {name}",
            "variant": ", ".join(str(variant["name"]) for variant in model["variants"]),
            "emulated": model["emulated"],
            "started_at": model["loaded_at"],
            **stats,
            **rates(before, now),
            "work": None,
        }
        return cast(PublishedRunner, runner)

    def _ask(self, path: str, form: Schema) -> Dict[str, Any]:
        request = urllib.request.Request(self._url + path, headers=_key_header())
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                document = json.loads(answer.read(MOST_BYTES))
        except HTTPError as error:
            hint = f"set {KEY_VARIABLE} to a key of it" if error.code == 401 else "the URL that neuronbert serve said"
            raise InputError(f"{self._url}{path} answers {error.code} {error.reason}", hint=hint) from None
        except (OSError, HTTPException, ValueError) as error:
            raise InputError(
                f"{self._url} does not answer: {error}", hint="the URL that neuronbert serve said"
            ) from None
        fault = form.fault(document)
        if fault is not None:
            raise InputError(f"{self._url}{path} is no neuronbert server's: {fault}")
        return cast(Dict[str, Any], document)


def _key_header() -> Dict[str, str]:
    key: Optional[str] = next(iter(os.environ.get(KEY_VARIABLE, "").split()), None)
    return {} if key is None else {"Authorization": f"Bearer {key}"}
