"""What a model is for: a folder for each task, the Protocols (``base``), and the table. Text in, results out.

``artifact`` and everything above may import the modules here and the table, never a task: they know none by name.
"""

import importlib
from typing import TYPE_CHECKING, cast

from neuronbert.errors import UsageError

if TYPE_CHECKING:
    from neuronbert.tasks.base import Task, TaskFigures, TaskHttp, TaskKeywords

# name, as transformers calls its pipeline → folder with the modules task (base.Task), options (base.TaskKeywords),
# figures (base.TaskFigures) and http (base.TaskHttp), imported on use
TASKS = {
    "question-answering": "neuronbert.tasks.question_answering",
    "text-classification": "neuronbert.tasks.text_classification",
    "token-classification": "neuronbert.tasks.token_classification",
    "feature-extraction": "neuronbert.tasks.feature_extraction",
}
# the other names that transformers has for some of its pipelines
ALIASES = {
    "ner": "token-classification",
    "sentiment-analysis": "text-classification",
}
# public name → task: the class that returns a task's outputs for token ids (engine/model.py makes it)
MODEL_CLASSES = {
    "NeuronBertForQuestionAnswering": "question-answering",
    "NeuronBertForSequenceClassification": "text-classification",
    "NeuronBertForTokenClassification": "token-classification",
    "NeuronBertForFeatureExtraction": "feature-extraction",
}
# public name → the module of its task that has it: a class over a tasks.base.Answerer (engine/objects.py makes it)
OBJECT_CLASSES = {
    "SentenceEncoder": "neuronbert.tasks.feature_extraction.encoder",
}


def load_task(name: str) -> "Task":
    """The task called ``name``; UsageError if there is none."""
    if name not in TASKS:
        raise UsageError(f"there is no task {name!r}", hint=f"one of {', '.join(TASKS)}")
    return cast("Task", importlib.import_module(f"{TASKS[name]}.task"))


def load_options(name: str) -> "TaskKeywords":
    """The module with the keywords of the task called ``name``, which must be in the table, and its verbs."""
    return cast("TaskKeywords", importlib.import_module(f"{TASKS[name]}.options"))


def load_figures(name: str) -> "TaskFigures":
    """The module that shows the gate's figures for the task called ``name``, which must be in the table."""
    return cast("TaskFigures", importlib.import_module(f"{TASKS[name]}.figures"))


def load_http(name: str) -> "TaskHttp":
    """The module that says what the task called ``name``, which must be in the table, can be asked over HTTP."""
    return cast("TaskHttp", importlib.import_module(f"{TASKS[name]}.http"))
