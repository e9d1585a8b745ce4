"""What each worker of a peer does: the whole of our Engine on the echo artifact, in its own process."""

from pathlib import Path
from typing import Any, Dict, List, Sequence

from neuronbert import Engine

BATCH = 16  # the requests that are in flight: more never come together
WAIT_S = 0.005  # for others, as our Runner by default


def load(artifact: str) -> Engine:
    """One thread: there is a worker for each CPU."""
    return Engine(Path(artifact), threads=1, streams=1)


def answer_all(engine: Engine, asked: Sequence[Dict[str, Any]]) -> List[Dict[str, Any]]:
    """The best answer to each {"question", "context"}, as JSON."""
    pairs = [(each["question"], each["context"]) for each in asked]
    return [{name: _plain(value) for name, value in ranked[0].items()} for ranked in engine.answer(pairs)]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
