"""Keywords and verbs as a task states them (tasks/<name>/options.py), for the command line to offer. Light: no numpy.

A task's options are frozen dataclasses: their fields are its keywords. What the command line says of a keyword stands
beside its default; cli/task_options.py makes options of them.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple, Optional, Tuple

METADATA = "option"  # the key in a field's metadata


@dataclass(frozen=True)
class Offer:
    """What the command line offers for a field of options."""

    help: str
    least: Optional[int] = None  # of a number
    choices: Tuple[str, ...] = ()  # of a text
    shows_default: bool = False
    of_output: bool = False  # it changes what is written of a result, and so nothing that can be measured


def option(
    default: Any,
    help: str,
    *,
    least: Optional[int] = None,
    choices: Tuple[str, ...] = (),
    shows_default: bool = False,
    of_output: bool = False,
) -> Any:
    """A field of options with this default, which the command line offers."""
    return field(default=default, metadata={METADATA: Offer(help, least, choices, shows_default, of_output)})


class Text(NamedTuple):
    """A text of an input, under the name of the keyword that the task's ``call_input`` takes."""

    name: str
    help: str
    required: bool = True
    many: bool = False  # whether the command line takes it several times, and the keyword is a list
    spelling: str = ""  # of its option, where that is not the keyword's

    @property
    def option(self) -> str:
        """The option of the command line."""
        return "--" + (self.spelling or self.name).replace("_", "-")


class Verb(NamedTuple):
    """A command that answers one input of a task, or a file of them: ``neuronbert NAME ARTIFACT``."""

    name: str
    short_help: str
    help: str  # one paragraph or two; ARTIFACT is the argument
    texts: Tuple[Text, ...]
    line: str  # the keys of a line of input, such as {"question", "context"}

    @property
    def example(self) -> str:
        """What is typed behind ARTIFACT for one input."""
        return " ".join(f"{text.option} ..." for text in self.texts if text.required)
