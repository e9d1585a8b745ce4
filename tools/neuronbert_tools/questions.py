"""Real questions for the tools to ask; needs the standard library only, so that peers' environments can import it."""

import json
from pathlib import Path
from typing import Iterator, Tuple

Pair = Tuple[str, str]  # question, context


def squad_pairs(path: Path) -> Iterator[Pair]:
    """(question, context) of a SQuAD-format file, in its order."""
    for article in json.loads(path.read_text(encoding="utf-8"))["data"]:
        for paragraph in article["paragraphs"]:
            for question in paragraph["qas"]:
                yield question["question"], paragraph["context"]
