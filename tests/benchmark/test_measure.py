"""What a point measures of text is what a service pays for it."""

from typing import Any, List

import pytest

from neuronbert import Runner
from neuronbert.artifact.manifest import Artifact
from neuronbert.benchmark.measure import _Texts
from neuronbert.checkpoint.tokenizer import Tokenizer


def test_texts_that_come_again_only_to_be_measured_are_encoded_again(
    echo_artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    document = "It was Jim Henson, a nice puppet maker. " * 30
    asked: List[str] = []
    encode: Any = Tokenizer.encode
    monkeypatch.setattr(Tokenizer, "encode", lambda self, texts: asked.extend(texts) or encode(self, texts))
    with Runner(echo_artifact, workers=1) as runner:
        client = _Texts(runner)
        assert all(client.submit(("Who was it?", document)).result() for _ in range(3))
    assert asked.count(document) == 3
