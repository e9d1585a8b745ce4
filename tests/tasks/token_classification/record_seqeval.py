"""Records what seqeval counts, for test_entity_f1.py: a release that has no wheel is not for every test environment.

python -m pip install --use-pep517 seqeval==1.2.2
python tests/tasks/token_classification/record_seqeval.py > tests/data/golden/seqeval-1.2.2.json
"""

import json
import random
import warnings
from typing import Any, Dict, List

CASES = 300
TAGS = [
    *("O", "B", "I", "E", "S"),
    *(f"{place}-{kind}" for place in "BIES" for kind in ("PER", "LOC", "WORK-OF-ART", "")),
]


def recorded(golds: List[List[str]], guesses: List[List[str]]) -> Dict[str, Any]:
    """Entities of each sentence, and the figures of all."""
    from seqeval import metrics
    from seqeval.metrics.sequence_labeling import get_entities

    report = metrics.classification_report(golds, guesses, output_dict=True, zero_division=0) if _any(golds) else {}
    return {
        "golds": golds,
        "guesses": guesses,
        "entities": [get_entities(tags) for tags in golds],
        "precision": metrics.precision_score(golds, guesses),
        "recall": metrics.recall_score(golds, guesses),
        "f1": metrics.f1_score(golds, guesses),
        "accuracy": metrics.accuracy_score(golds, guesses),
        "macro_f1": metrics.f1_score(golds, guesses, average="macro") if _any(golds) else None,
        "by_type": {
            name: [values[key] for key in ("precision", "recall", "f1-score", "support")]
            for name, values in report.items()
            if not name.endswith(" avg")
        },
    }


def _any(golds: List[List[str]]) -> bool:
    """Whether there is an entity to find: of none, seqeval's means are no numbers."""
    from seqeval.metrics.sequence_labeling import get_entities

    return any(get_entities(tags) for tags in golds)


def main() -> None:
    """Print the cases as JSON."""
    import numpy as np
    import seqeval

    warnings.simplefilter("ignore")
    chosen = random.Random(0)
    cases = []
    for _ in range(CASES):
        lengths = [chosen.randint(1, 9) for _ in range(chosen.randint(1, 4))]
        golds = [chosen.choices(TAGS, k=length) for length in lengths]
        # Half of the guesses are right, so that something is counted.
        guesses = [[tag if chosen.random() < 0.5 else chosen.choice(TAGS) for tag in tags] for tags in golds]
        cases.append(recorded(golds, guesses))
    version = getattr(seqeval, "__version__", "1.2.2")
    print(json.dumps({"seqeval": version, "cases": cases}, default=lambda value: np.asarray(value).item()))


if __name__ == "__main__":
    main()
