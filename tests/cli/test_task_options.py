"""Options made of what tasks say of their keywords: types, defaults, help, those of several tasks, typed ones only."""

import ast
import re
from dataclasses import dataclass, fields
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import click
import pytest
from click.testing import CliRunner

from neuronbert.cli import task_options as module
from neuronbert.cli.main import cli
from neuronbert.cli.task_options import TaskOption, keywords_of, task_options
from neuronbert.tasks import TASKS, load_options
from neuronbert.tasks.option import Text, Verb, option


@dataclass(frozen=True)
class Words:
    """How a text is read."""

    longest: Optional[int] = option(None, "The longest word.", least=1)
    offset: float = option(0.5, "Where it begins.", shows_default=True)
    hidden: int = 3


@dataclass(frozen=True)
class Answers:
    """How a result is written."""

    count: int = option(2, "How many.", least=1, shows_default=True, of_output=True)
    whole: bool = option(True, "Only whole ones.", shows_default=True)
    loud: bool = option(False, "Louder.", of_output=True)
    tone: str = option("soft", "The tone.", choices=("soft", "hard"), shows_default=True)


@dataclass(frozen=True)
class Others:
    """Options of a second task, of which some are the first one's."""

    longest: Optional[int] = option(None, "The longest word.", least=1)
    count: int = option(5, "How many others.", least=1, shows_default=True)


@dataclass(frozen=True)
class Nothing:
    """No option."""


FIRST = SimpleNamespace(
    ENCODE_OPTIONS=Words, DECODE_OPTIONS=Answers, VERBS=(Verb("say", "", "", (), ""), Verb("shout", "", "", (), ""))
)
SECOND = SimpleNamespace(ENCODE_OPTIONS=Nothing, DECODE_OPTIONS=Others, VERBS=())


@pytest.fixture()
def two_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In place of the package's."""
    monkeypatch.setattr(module, "TASKS", {"first": "", "second": ""})
    monkeypatch.setattr(module, "load_options", {"first": FIRST, "second": SECOND}.__getitem__)


def command_of(*names: str, **keywords: Any) -> click.Command:
    @click.command()
    @task_options(names, **keywords)
    def verb(**options: Any) -> None:
        click.echo(repr(sorted(options.items())))

    return verb


def typed(command: click.Command, *words: str) -> Dict[str, Any]:
    done = CliRunner().invoke(command, list(words))
    assert done.exit_code == 0, done.output
    return dict(ast.literal_eval(done.output))


def options_of(command: click.Command) -> Dict[str, click.Option]:
    return {str(each.name): each for each in command.params if isinstance(each, TaskOption)}


# ---- one task


@pytest.mark.usefixtures("two_tasks")
def test_a_task_s_options_are_its_keywords_in_order() -> None:
    command = command_of("first")
    assert list(options_of(command)) == ["longest", "offset", "count", "whole", "loud", "tone"]
    assert [keyword.verb for keyword in keywords_of("first")] == ["say"] * 6
    assert [keyword.verb for keyword in keywords_of("second")] == ["second"] * 2  # for want of a verb


@pytest.mark.usefixtures("two_tasks")
def test_only_what_was_typed_is_passed_on() -> None:
    command = command_of("first")
    assert typed(command) == {}
    assert typed(command, "--longest", "7") == {"longest": 7}
    assert typed(command, "--count", "2", "--offset", "0.5", "--tone", "soft") == {
        "count": 2, "offset": 0.5, "tone": "soft",
    }  # fmt: skip  # typed defaults are typed
    assert typed(command, "--whole", "--loud") == {"whole": True, "loud": True}
    assert typed(command, "--no-whole") == {"whole": False}


@pytest.mark.usefixtures("two_tasks")
def test_what_other_options_have_as_a_default_is_passed_on() -> None:
    @click.command()
    @click.option("--other", default=1)
    @task_options(["first"])
    def verb(**options: Any) -> None:
        click.echo(repr(sorted(options.items())))

    assert typed(verb) == {"other": 1}


@pytest.mark.usefixtures("two_tasks")
@pytest.mark.parametrize(
    "words",
    [["--longest", "0"], ["--longest", "1.5"], ["--count", "0"], ["--offset", "far"], ["--tone", "loud"], ["--no-loud"],
     ["--hidden", "3"]],
)  # fmt: skip
def test_values_are_checked_as_the_keyword_says(words: List[str]) -> None:
    assert CliRunner().invoke(command_of("first"), words).exit_code == 2


@pytest.mark.usefixtures("two_tasks")
def test_help_says_what_one_task_s_options_do_and_their_defaults() -> None:
    text = " ".join(CliRunner().invoke(command_of("first"), ["--help"], terminal_width=200).output.split())
    for part in (
        "--longest INTEGER RANGE The longest word. [x>=1]",
        "Where it begins. [default: 0.5]",
        "--whole / --no-whole Only whole ones. [default: whole]",
        "--loud Louder.",
        "--tone [soft|hard] The tone. [default: soft]",
    ):
        assert part in text
    assert "How many." in text and "default: 2" in text and "say:" not in text


@pytest.mark.usefixtures("two_tasks")
def test_what_only_changes_the_output_can_be_left_out() -> None:
    assert list(options_of(command_of("first", of_output=False))) == ["longest", "offset", "whole", "tone"]
    # Another task's option of that name changes more than what is written.
    assert "count" in options_of(command_of(of_output=False))


# ---- several


@pytest.mark.usefixtures("two_tasks")
def test_options_of_several_tasks_are_merged() -> None:
    command = command_of()
    assert sorted(options_of(command)) == ["count", "longest", "loud", "offset", "tone", "whole"]
    assert typed(command) == {} and typed(command, "--count", "5") == {"count": 5}
    assert typed(command, "--longest", "1") == {"longest": 1}


@pytest.mark.usefixtures("two_tasks")
def test_help_names_whose_option_it_is() -> None:
    helps = {name: str(each.help) for name, each in options_of(command_of()).items()}
    assert helps["longest"] == "say, second: The longest word."
    assert helps["count"] == "say: How many.  [default: 2]  second: How many others.  [default: 5]"
    assert helps["tone"].startswith("say: The tone.")


# ---- the package's own


@pytest.mark.parametrize("task", TASKS)
def test_every_offer_of_a_task_is_a_sentence_and_an_option(task: str) -> None:
    keywords = list(keywords_of(task))
    options = load_options(task)
    names = [each.name for kind in (options.ENCODE_OPTIONS, options.DECODE_OPTIONS) for each in fields(kind)]
    assert keywords and set(names) >= {keyword.name for keyword in keywords}
    for keyword in keywords:
        assert re.match(r"^[A-Z].*[.\])]$", keyword.offer.help), keyword.offer.help
        assert keyword.kind in (int, float, str, bool), keyword.name
    assert list(options_of(command_of(task))) == [keyword.name for keyword in keywords]


def test_keywords_that_tasks_share_are_of_one_type() -> None:
    """One option takes the values of all of them."""
    found: Dict[str, List[Any]] = {}
    for task in TASKS:
        for keyword in keywords_of(task):
            found.setdefault(keyword.name, []).append(keyword)
    assert len(found["top_k"]) > 1
    for same in found.values():
        assert len({(each.kind, each.spelling, each.offer.least, each.offer.choices) for each in same}) == 1


def test_every_verb_of_a_task_has_its_options_and_texts() -> None:
    for task in TASKS:
        for verb in load_options(task).VERBS:
            names = {each.name for each in cli.commands[verb.name].params}
            assert {keyword.name for keyword in keywords_of(task)} <= names
            assert {text.name for text in verb.texts} <= names
    for verb_name in ("run", "evaluate"):
        helps = {name: str(each.help) for name, each in options_of(cli.commands[verb_name]).items()}
        assert helps["max_length"].startswith("classify: ") and helps["doc_stride"].startswith("answer: ")
    assert "answer: " in str(options_of(cli.commands["run"])["top_k"].help)
    assert "classify: " in str(options_of(cli.commands["run"])["top_k"].help)
    assert not {"top_k", "details", "return_texts"} & set(options_of(cli.commands["evaluate"]))


def test_names_of_options() -> None:
    assert Text("text_pair", "").option == "--text-pair"
    assert Text("texts", "", many=True, spelling="text").option == "--text"
    assert Verb("v", "", "", (Text("a_b", ""), Text("c", "", required=False)), "").example == "--a-b ..."
