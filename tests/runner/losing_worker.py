"""In place of runner/worker_process.py: a worker that loses its device once, with the first batch of all workers."""

import os
from typing import Any, List

from neuronbert.backends.base import Batch
from neuronbert.backends.outputs import Outputs
from neuronbert.errors import DeviceLost
from neuronbert.runner import worker_process
from neuronbert.runner.messages import LoadOrder, WorkerReady

MARKER = "NEURONBERT_TEST_LOST"  # names the file that says that it was lost


class LosingSession:
    """Another one, which is lost unless the marker says that it was."""

    def __init__(self, session: Any):
        self._session = session

    def run(self, batch: Batch) -> Outputs:
        try:
            os.close(os.open(os.environ[MARKER], os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            outputs: Outputs = self._session.run(batch)
            return outputs
        raise DeviceLost("CUDA error: device-side assert triggered", hint="nvidia-smi")


class LosingWorker(worker_process.Worker):
    def _load(self, order: LoadOrder) -> WorkerReady:
        ready = super()._load(order)
        self._session = LosingSession(self._session)
        return ready


def main(arguments: List[str]) -> None:
    worker_process.Worker = LosingWorker  # type: ignore[misc]
    worker_process.main(arguments)
