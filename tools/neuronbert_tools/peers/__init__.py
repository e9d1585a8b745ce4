"""What tools/compare_peers is made of; ``comparison`` is the way through it, ``base`` says what a task provides.

``preparation`` makes environments and models, a contender runs in a child (``children``, and ``worker`` in it), and
``summary`` makes figures of what was measured. ``TASKS`` lists the tasks; ``libraries`` and ``texts`` are what their
contenders share.
"""

import importlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from neuronbert_tools.peers.base import PeerTask

# name, as transformers calls its pipeline → module (base.PeerTask), imported on use
TASKS = {
    "question-answering": "neuronbert_tools.peers.question_answering",
    "text-classification": "neuronbert_tools.peers.text_classification",
    "feature-extraction": "neuronbert_tools.peers.feature_extraction",
}


def load_peer_task(name: str) -> "PeerTask":
    """The module of the task called ``name``, which must be in the table."""
    return cast("PeerTask", importlib.import_module(TASKS[name]))
