"""The echo model behind LitServe: a LitAPI with its four steps, its own batching where that is asked for.

Arguments: ARTIFACT PORT single|batches WORKERS
"""

import sys
from typing import Any, Dict, List

import litserve

from neuronbert_tools.server.peers.answering import BATCH, WAIT_S, answer_all, load


class Single(litserve.LitAPI):  # type: ignore[misc]
    """One request at a time."""

    def setup(self, device: str) -> None:
        self.engine = load(sys.argv[1])

    def decode_request(self, request: Dict[str, Any]) -> Any:
        return request["inputs"]

    def predict(self, asked: Any) -> Any:
        return answer_all(self.engine, [asked])[0]

    def encode_response(self, output: Any) -> Any:
        return output


class Batched(Single):
    """Those that came together."""

    def batch(self, inputs: List[Any]) -> List[Any]:
        return inputs

    def predict(self, asked: Any) -> Any:
        return answer_all(self.engine, asked)

    def unbatch(self, output: List[Any]) -> List[Any]:
        return output


def main() -> None:
    """Serve until a signal."""
    _, _, port, mode, workers = sys.argv
    api = (
        Batched(max_batch_size=BATCH, batch_timeout=WAIT_S, api_path="/") if mode == "batches" else Single(api_path="/")
    )
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=int(workers))
    server.run(host="127.0.0.1", port=int(port), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
