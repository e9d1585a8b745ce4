"""Backends, artifact, engine, compiler, runner and benchmark know no task: no word of one occurs there."""

import inspect
import re
from pathlib import Path
from typing import Iterator, Set

import pytest

from neuronbert.checkpoint.families import FAMILIES, head_parts
from neuronbert.tasks import MODEL_CLASSES, TASKS, load_task

PACKAGE = Path(__file__).resolve().parents[2] / "neuronbert"
FOLDERS = ("backends", "artifact", "engine", "compiler", "runner", "benchmark")
# What belongs to a task and can be read off none of its attributes, such as the data format that it reads.
MORE_WORDS = {"question-answering": {"squad"}}
# What a task shares with every other: the word says nothing.
COMMON_WORDS = {"logits", "Model"}


def words_of(name: str) -> Set[str]:
    """The task's name, its folder, its head's parts, its outputs and its classes."""
    task = load_task(name)
    classes = {task.ENCODE_OPTIONS, task.DECODE_OPTIONS, task.MODEL_OUTPUT, type(task.gate({}))}
    return {
        name,
        TASKS[name].rpartition(".")[2],
        *head_parts(FAMILIES["bert"], task.HEAD),
        *({task.HEAD.class_suffix, *(output.name for output in task.outputs({}))} - COMMON_WORDS),
        *(kind.__name__ for kind in classes if inspect.isclass(kind)),
        *(public for public, its_task in MODEL_CLASSES.items() if its_task == name),
        *MORE_WORDS.get(name, ()),
    }


def pattern_of(word: str) -> str:
    """The word however its parts are joined: question-answering, question_answering, question answering."""
    return "[-_ ]?".join(re.escape(part) for part in re.split("[-_ ]", word))


def occurrences(name: str) -> Iterator[str]:
    """Each line of the folders' text, code and comments alike, with a word of the task, and where it is."""
    pattern = re.compile("|".join(pattern_of(word) for word in sorted(words_of(name))), re.IGNORECASE)
    for folder in FOLDERS:
        for path in sorted((PACKAGE / folder).rglob("*")):
            if path.is_dir() or path.suffix == ".pyc":
                continue
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
                if pattern.search(line):
                    yield f"{path.relative_to(PACKAGE)}:{number}: {line.strip()}"


@pytest.mark.parametrize("name", TASKS)
def test_no_task_is_known_by_name(name: str) -> None:
    assert list(occurrences(name)) == []


def test_the_words_of_question_answering() -> None:
    """A task whose words were not found would be known anywhere without this test's notice."""
    assert words_of("question-answering") == {
        "question-answering", "question_answering", "qa_outputs", "ForQuestionAnswering", "start_logits", "end_logits",
        "WindowOptions", "AnswerOptions", "QuestionAnsweringOutput", "QuestionAnsweringGate",
        "NeuronBertForQuestionAnswering", "squad",
    }  # fmt: skip


@pytest.mark.parametrize("text", ["question answering", "Question-Answering", "question_answering", "start_logits"])
def test_a_word_is_found_however_it_is_written(text: str) -> None:
    words = "|".join(map(pattern_of, words_of("question-answering")))
    assert re.search(words, f"# of {text}.", re.IGNORECASE)
