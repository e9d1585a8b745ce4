"""A second task, unlike question answering in every way that a task may be: it holds the Protocol to its word.

One text in, one row of tokens, a label of the checkpoint's own and the word that speaks for it out.
"""

from typing import Dict

NAME = "sentence-labels"
MODEL_CLASS = "NeuronBertForSentenceLabels"


# It has this task's head, and stands in its place in the table.
IN_PLACE_OF = "token-classification"


def register(tasks: Dict[str, str], model_classes: Dict[str, str]) -> None:
    """Add the task's rows to the tables of neuronbert.tasks."""
    tasks.pop(IN_PLACE_OF, None)
    tasks[NAME] = __name__
    model_classes[MODEL_CLASS] = NAME
