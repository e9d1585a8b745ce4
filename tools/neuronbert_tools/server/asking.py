"""Requests about questions: their bodies, the whole HTTP message of each, and repeats among them."""

import json
import random
from pathlib import Path
from typing import List, Optional, Sequence

from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.errors import UsageError
from neuronbert_tools.paths import XQUAD
from neuronbert_tools.questions import Pair, squad_pairs

BODY_BYTES = 688  # of the one question that costs are measured with
TASK = "question-answering"


def questions(count: Optional[int] = None) -> List[Pair]:
    """The first of XQuAD's questions, with their contexts."""
    return list(squad_pairs(XQUAD))[:count]


def load_questions_artifact(folder: Path) -> Artifact:
    """The artifact in ``folder``; UsageError for one that answers no questions."""
    artifact = load_artifact(folder)
    if artifact.task != TASK:
        raise UsageError(
            f"{folder} is for {artifact.task}, and XQuAD's questions are asked", hint="neuronbert compile demo OUT"
        )
    return artifact


def body_of(pair: Pair) -> bytes:
    """As Hugging Face's InferenceClient asks it."""
    question, context = pair
    return json.dumps({"inputs": {"question": question, "context": context}, "parameters": {}}).encode()


def pair_of_size(pair: Pair, size_bytes: int) -> Pair:
    """``pair`` with so much of its context that the body has ``size_bytes``; ASCII only, so that bytes are characters.

    UsageError where the context is too short for it.
    """
    question, context = (text.encode("ascii", "ignore").decode() for text in pair)
    context = context.replace('"', "").replace("\\", "")
    spare = len(body_of((question, context))) - size_bytes
    if not 0 <= spare < len(context):
        raise UsageError(f"no part of this context makes a body of {size_bytes} bytes", hint="another size")
    return question, context[: len(context) - spare]


def message(port: int, body: bytes, path: str = "/", timeout_s: Optional[float] = None) -> bytes:
    """A whole HTTP/1.1 request, as bytes that can be sent again and again."""
    timeout = "" if timeout_s is None else f"X-Request-Timeout-Ms: {timeout_s * 1000:g}\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: application/json\r\n"
        f"{timeout}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def with_repeats(pairs: Sequence[Pair], count: int, share: float, seed: int = 0) -> List[Pair]:
    """``count`` of the pairs, of which ``share`` were asked before, at random places; the first is new.

    UsageError where ``pairs`` are too few for it.
    """
    repeats = round(count * share)
    if count - repeats > len(pairs):
        raise UsageError(f"{count - repeats} different questions are more than {len(pairs)}", hint="fewer --requests")
    choice = random.Random(seed)
    places = set(choice.sample(range(1, count), repeats))
    new = iter(pairs)
    asked: List[Pair] = []
    for number in range(count):
        asked.append(choice.choice(asked) if number in places else next(new))
    return asked
