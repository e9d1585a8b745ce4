"""Chooses the questions that ship in neuronbert.tasks.samples from SQuADShifts files.

    tools/make_samples squadshifts-new-wiki-v1.0.json squadshifts-reddit-v1.0.json squadshifts-amazon-reviews-v1.0.json

Every file gives the same share (the remainder goes to the first ones). Within a file, paragraphs are sorted
by length and cut into as many equal strata as are needed, and one is drawn from each: short and long
paragraphs come in the proportion they have in the data. The same seed gives the same bytes.
"""

import json
import random
import sys
from pathlib import Path
from typing import Dict, List, Sequence, Set

from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad, squad_document
from neuronbert_tools.console import new_parser
from neuronbert_tools.paths import SAMPLES as SAMPLES_FOLDER

SAMPLES = (("gate", 300, 2), ("calibration", 200, 1))  # name, paragraphs, questions of each


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    parser = new_parser(__doc__)
    parser.add_argument("sources", nargs="+", type=Path, help="SQuADShifts files")
    parser.add_argument("--output", type=Path, default=SAMPLES_FOLDER, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    samples = choose_samples([load_squad(path) for path in options.sources], options.seed)
    for name, questions in samples.items():
        path = options.output / f"{name}.json"
        document = squad_document(questions, "1.1")
        path.write_text(json.dumps(document, ensure_ascii=False, separators=(",", ":")) + "\n", encoding="utf-8")
        print(f"{path}: {len(questions)} questions, {path.stat().st_size} bytes")
    return 0


def choose_samples(sources: Sequence[Sequence[SquadQuestion]], seed: int) -> Dict[str, List[SquadQuestion]]:
    """The questions of each sample; no paragraph is used twice, within a sample or across them."""
    rng = random.Random(seed)
    used: Set[str] = set()
    samples: Dict[str, List[SquadQuestion]] = {}
    for name, paragraphs, per_paragraph in SAMPLES:
        chosen: List[List[SquadQuestion]] = []
        for index, source in enumerate(sources):
            share = paragraphs // len(sources) + (index < paragraphs % len(sources))
            chosen += draw(source, share, per_paragraph, used, rng)
        # So that the first N questions are a fair sample too.
        rng.shuffle(chosen)
        samples[name] = [question for asked in chosen for question in asked]
    return samples


def draw(
    source: Sequence[SquadQuestion], paragraphs: int, per_paragraph: int, used: Set[str], rng: random.Random
) -> List[List[SquadQuestion]]:
    """``per_paragraph`` questions of each of ``paragraphs`` paragraphs not in ``used``, which they are added to."""
    by_context: Dict[str, List[SquadQuestion]] = {}
    for question in source:
        by_context.setdefault(question.context, []).append(question)
    free = [text for text, asked in by_context.items() if text not in used and len(asked) >= per_paragraph]
    if len(free) < paragraphs:
        sys.exit(f"error: {paragraphs} paragraphs are needed of a source, only {len(free)} are left")
    free.sort(key=lambda text: (len(text), text))
    chosen = []
    for stratum in range(paragraphs):
        first, last = stratum * len(free) // paragraphs, (stratum + 1) * len(free) // paragraphs
        context = rng.choice(free[first:last])
        used.add(context)
        chosen.append(rng.sample(by_context[context], per_paragraph))
    return chosen
