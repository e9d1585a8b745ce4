"""An artifact whose answers are a hash of the text, and words in a question that break the worker that reads them."""

import pytest
from echo_files import with_echo

from neuronbert import Engine
from neuronbert.artifact.manifest import Artifact
from neuronbert.checkpoint.tokenizer import Tokenizer

# Word in a question → what happens to its worker.
FAULTS = {"dynamite": "exit", "torpedo": "abort", "assassin": "kill", "glacier": "hang", "refuse": "raise"}


@pytest.fixture()
def faulty_artifact(echo_copy) -> Artifact:
    """The echo artifact, with ``FAULTS``."""
    tokenizer = Tokenizer.from_files(echo_copy)
    tokens = {tokenizer.backend.token_to_id(word): kind for word, kind in FAULTS.items()}
    return with_echo(echo_copy, faults=tokens)


@pytest.fixture(scope="session")
def texts():
    """Questions and contexts of different lengths, and texts of several windows."""
    words = "the quick brown fox jumps over a lazy dog near Zürich in 1955 and sings ".split()
    pairs = []
    for number in range(120):
        length = 5 + (number * 37) % 300 + (600 if number % 17 == 0 else 0)
        pairs.append(
            (f"What is number {number}?", " ".join(words[(number + i * i) % len(words)] for i in range(length)))
        )
    return pairs


@pytest.fixture(scope="session")
def expected(echo_artifact, texts):
    """What one process answers."""
    with Engine(echo_artifact, threads=1) as engine:
        return [ranked[0] for ranked in engine.answer(texts)]
