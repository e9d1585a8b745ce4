"""What the tests of several tasks share."""

from pathlib import Path
from typing import List

import pytest

from neuronbert.tasks.feature_extraction import gate as of_embeddings
from neuronbert.tasks.samples import QuestionOnText, shipped_texts
from neuronbert.tasks.text_classification import gate as of_labels
from neuronbert.tasks.token_classification import data as of_tags
from neuronbert.tasks.token_classification import gate as of_entities

SHORT = 60  # questions of the shipped file


@pytest.fixture
def short_gate(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shipped texts are few: random weights pass no other gate with more, and compile is what is tested."""

    def few(path: Path) -> List[QuestionOnText]:
        return shipped_texts(path)[:SHORT]

    for module in (of_embeddings, of_labels, of_tags):
        monkeypatch.setattr(module, "shipped_texts", few)
    monkeypatch.setattr(of_embeddings, "MIN_PAIRS", 20)
    for gate in (of_labels, of_entities):
        monkeypatch.setattr(gate, "MIN_TEXTS", 1)
