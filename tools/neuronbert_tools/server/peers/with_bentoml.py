"""The echo model behind BentoML: a service with a worker for each CPU, batchable where that is asked for.

Arguments: ARTIFACT PORT single|batches WORKERS. The command becomes BentoML's own, whose workers import this module.
"""

import os
import sys
from typing import Any, Dict, List

import bentoml

from neuronbert_tools.server.peers.answering import BATCH, WAIT_S, answer_all, load

ARTIFACT, WORKERS = "ECHO_ARTIFACT", "ECHO_WORKERS"  # variables
NAMES = {"single": "Single", "batches": "Batched"}
WITH_WORKERS = bentoml.service(workers=int(os.environ.get(WORKERS, "1")))


@WITH_WORKERS
class Single:
    """A list of one question at a time."""

    def __init__(self) -> None:
        self.engine = load(os.environ[ARTIFACT])

    @bentoml.api(route="/")  # type: ignore[untyped-decorator]
    def answer(self, inputs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        return answer_all(self.engine, inputs)


@WITH_WORKERS
class Batched:
    """Those that came together."""

    def __init__(self) -> None:
        self.engine = load(os.environ[ARTIFACT])

    @bentoml.api(  # type: ignore[untyped-decorator]
        route="/", batchable=True, batch_dim=0, max_batch_size=BATCH, max_latency_ms=int(1000 * 200 * WAIT_S)
    )
    def answer(self, inputs: List[Dict[str, Any]]) -> List[Dict[str, Any]]:
        return answer_all(self.engine, inputs)


def main() -> None:
    """Become ``bentoml serve``."""
    _, artifact, port, mode, workers = sys.argv
    os.environ.update({ARTIFACT: artifact, WORKERS: workers})
    service = f"{__spec__.name}:{NAMES[mode]}"
    command = [sys.executable, "-m", "bentoml", "serve", service, "--host", "127.0.0.1", "--port", port]
    os.execv(sys.executable, command)


if __name__ == "__main__":
    main()
