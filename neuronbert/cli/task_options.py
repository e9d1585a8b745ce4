"""Options of the command line, made of what each task says of its keywords (tasks/<name>/options.py)."""

from dataclasses import fields
from functools import wraps
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence, Tuple, Union, get_type_hints

import click
from click.core import ParameterSource

from neuronbert.tasks import TASKS, load_options
from neuronbert.tasks.option import METADATA, Offer

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class TaskOption(click.Option):
    """An option of a task's."""


class Keyword(NamedTuple):
    """A keyword of one task's options, as the command line offers it."""

    verb: str  # the task's first one, which names the task to a user
    name: str
    kind: Any  # the type of its values
    default: Any
    offer: Offer

    @property
    def click_type(self) -> Any:
        """What click checks a value with; None for a flag."""
        if self.offer.choices:
            return click.Choice(self.offer.choices)
        if self.kind is int:
            return click.IntRange(min=self.offer.least)
        return None if self.kind is bool else self.kind

    @property
    def spelling(self) -> str:
        """The option's name, or its two where it is on by default."""
        name = self.name.replace("_", "-")
        return f"--{name}/--no-{name}" if self.default is True else f"--{name}"


def keywords_of(task: str) -> Iterator[Keyword]:
    """The keywords of a task that the command line offers, in the order of its options."""
    options = load_options(task)
    verb = next((verb.name for verb in options.VERBS), task)
    for options_class in (options.ENCODE_OPTIONS, options.DECODE_OPTIONS):
        kinds = get_type_hints(options_class)
        for field in fields(options_class):
            offer = field.metadata.get(METADATA)
            if offer is not None:
                yield Keyword(verb, field.name, without_none(kinds[field.name]), field.default, offer)


def task_options(tasks: Sequence[str] = (), *, of_output: bool = True) -> Decorator:
    """The options of the tasks called so (none: of all), those of several merged; without ``of_output`` fewer.

    A verb gets those that were typed: the artifact's task has its own defaults, or may not have the option at all.
    """
    merged: Dict[str, List[Keyword]] = {}
    for task in tasks or TASKS:
        for keyword in keywords_of(task):
            if of_output or not keyword.offer.of_output:
                merged.setdefault(keyword.name, []).append(keyword)
    several = len(tasks or TASKS) > 1

    def decorate(verb: Callable[..., Any]) -> Callable[..., Any]:
        decorated = _typed_only(verb)
        for same in reversed(list(merged.values())):
            decorated = _click_option(same, several)(decorated)
        return decorated

    return decorate


def _click_option(same: Sequence[Keyword], several: bool) -> Decorator:
    """The option of a keyword that several tasks may have; its help names whose is whose where there are several."""
    first = same[0]
    alike = all(keyword.offer == first.offer and keyword.default == first.default for keyword in same)
    if alike:
        verbs = ", ".join(keyword.verb for keyword in same)
        text = f"{verbs}: {first.offer.help}" if several else first.offer.help
    else:
        text = "  ".join(f"{keyword.verb}: {_with_default(keyword)}" for keyword in same)
    return click.option(
        first.spelling,
        cls=TaskOption,
        type=first.click_type,
        is_flag=first.kind is bool,
        default=first.default if alike else None,
        show_default=alike and first.offer.shows_default,
        help=text,
    )


def _with_default(keyword: Keyword) -> str:
    shown = f"  [default: {keyword.default}]" if keyword.offer.shows_default else ""
    return f"{keyword.offer.help}{shown}"


def _typed_only(verb: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(verb)
    def call(**options: Any) -> Any:
        context = click.get_current_context()
        left_out = {
            option.name
            for option in context.command.params
            if isinstance(option, TaskOption)
            and context.get_parameter_source(str(option.name)) is ParameterSource.DEFAULT
        }
        return verb(**{name: value for name, value in options.items() if name not in left_out})

    return call


def without_none(kind: Any) -> Any:
    """The type that an Optional is of."""
    others: Tuple[Any, ...] = tuple(each for each in getattr(kind, "__args__", ()) if each is not type(None))
    return others[0] if getattr(kind, "__origin__", None) is Union else kind
