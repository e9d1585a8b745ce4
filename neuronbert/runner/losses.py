"""What a worker's death means for the requests that it held (pure); ``open_requests`` asks them again or refuses."""

from typing import Dict, List, NamedTuple, Sequence

from neuronbert.runner.batching import BatchInFlight
from neuronbert.runner.requests import Request


class Loss(NamedTuple):
    """What one worker's death means for one request, however many of its batches that worker held."""

    request: Request
    rows: List[int]  # which came to no result
    is_suspect: bool  # the worker had begun with some of it
    was_alone: bool  # ... and with nothing else


def losses(batches: Sequence[BatchInFlight], begun: int) -> List[Loss]:
    """A Loss for each request in a dead worker's ``batches``, oldest first. Only the first ``begun`` are suspected."""
    # Those that have their outcome count too: one that nobody waits for any more may have been the one.
    suspects = {row.request for batch in batches[:begun] for row in batch.rows}
    rows: Dict[Request, List[int]] = {}
    for batch in batches:
        for row in batch.rows:
            rows.setdefault(row.request, []).append(row.row_index)
    return [
        Loss(request, lost, request in suspects, suspects == {request})
        for request, lost in rows.items()
        if not request.over
    ]
