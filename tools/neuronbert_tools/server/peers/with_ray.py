"""The echo model behind Ray Serve: a deployment with a replica for each CPU, its own batching where that is asked for.

Arguments: ARTIFACT PORT single|batches WORKERS
"""

import signal
import sys
from typing import Any, List

import ray
from ray import serve

from neuronbert_tools.server.peers.answering import BATCH, WAIT_S, answer_all, load


class Single:
    """One request at a time."""

    def __init__(self, artifact: str) -> None:
        self.engine = load(artifact)

    async def __call__(self, request: Any) -> Any:
        return answer_all(self.engine, [(await request.json())["inputs"]])[0]


class Batched:
    """Those that came together."""

    def __init__(self, artifact: str) -> None:
        self.engine = load(artifact)

    @serve.batch(max_batch_size=BATCH, batch_wait_timeout_s=WAIT_S)  # type: ignore[untyped-decorator]
    async def together(self, asked: List[Any]) -> List[Any]:
        return answer_all(self.engine, asked)

    async def __call__(self, request: Any) -> Any:
        return await self.together((await request.json())["inputs"])


def main() -> None:
    """Serve until a signal."""
    _, artifact, port, mode, workers = sys.argv
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": int(port)})
    deployment = serve.deployment(
        num_replicas=int(workers), max_ongoing_requests=BATCH, ray_actor_options={"num_cpus": 0}
    )(Batched if mode == "batches" else Single)
    serve.run(deployment.bind(artifact), route_prefix="/")
    signal.sigwait([signal.SIGTERM, signal.SIGINT])
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
