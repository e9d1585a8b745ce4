"""The runtime's environment variables: what they ask for, and which combinations are refused. Pure."""

import re
from typing import Mapping, NamedTuple, Optional, Tuple

from neuronbert.emulator.unknowns import Shown, default_behaviour
from neuronbert.hardware.cores import GROUP_SIZES, NUM_CORES, VISIBLE_CORES

EXEC_TIMEOUT = "NEURON_RT_EXEC_TIMEOUT"
LOG_LOCATION = "NEURON_RT_LOG_LOCATION"
PROCESS_TAG = "NEURON_PROCESS_TAG"

_RUN = re.compile(r"(\d+)(?:-(\d+))?$")


class SettingsRefused(ValueError):
    """Variables that the documentation forbids or that make no sense."""


class NrtSettings(NamedTuple):
    """The variables as the runtime reads them, once, at its first use in the process."""

    visible: Optional[range]  # these cores of the instance
    number: Optional[int]  # or that many free ones; None and None: all
    groups: Optional[Tuple[int, ...]]
    exec_timeout_s: float
    log_to_console: bool
    process_tag: str


def read_settings(environ: Mapping[str, str], cores: int, shown: Shown = default_behaviour) -> NrtSettings:
    """What ``environ`` asks of an instance with ``cores`` cores; SettingsRefused names the variable.

    ``shown`` decides what no source settles (unknowns.py).
    """
    visible = _visible(environ.get(VISIBLE_CORES, "").strip(), cores, shown)
    named = environ.get(NUM_CORES, "").strip()
    asked, listed = _number(named, shown)
    groups = _groups(GROUP_SIZES, environ.get(GROUP_SIZES, "").strip())
    if groups and named and visible is None and shown("num-cores-with-group-sizes") == "refused":
        raise SettingsRefused(f"{GROUP_SIZES} must be unset when {NUM_CORES} is set")
    groups = groups if shown("group-sizes") == "honoured" else None
    given = len(visible) if visible is not None else asked
    if groups and given and sum(groups) > given:
        raise SettingsRefused(
            f"{GROUP_SIZES}={environ[GROUP_SIZES]} requires {sum(groups)} NeuronCores, but there are only {given} "
            "cores available"
        )
    # Visible cores win over a number, be it 0 for all; with neither, group sizes reserve what they add up to, as they
    # used to (placer.cc sets the number to their sum where it is not set).
    summed = sum(groups) if groups and not named else None
    number = None if visible is not None else (asked or summed)
    return NrtSettings(
        visible,
        number,
        groups or (listed if visible is None else None),
        _timeout(environ.get(EXEC_TIMEOUT, "").strip() or shown("exec-timeout")),
        "syslog" not in environ.get(LOG_LOCATION, "console").lower(),
        environ.get(PROCESS_TAG, ""),
    )


def _visible(text: str, cores: int, shown: Shown) -> Optional[range]:
    if not text:
        return None
    numbers = []
    for part in text.split(","):
        match = _RUN.match(part.strip())
        if match is None:
            raise SettingsRefused(f"{VISIBLE_CORES}={text!r} is neither an index nor a range")
        first = int(match[1])
        numbers += list(range(first, int(match[2] or first) + 1))
    if not numbers or numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        raise SettingsRefused(f"{VISIBLE_CORES}={text!r} is not contiguous and increasing")
    if numbers[-1] >= cores and shown("visible-cores-beyond") == "invalid":
        raise SettingsRefused(f"{VISIBLE_CORES}={text!r} goes beyond nc{cores - 1}")
    return range(numbers[0], numbers[-1] + 1)


def _number(text: str, shown: Shown) -> Tuple[Optional[int], Optional[Tuple[int, ...]]]:
    """How many cores (None: all), and the groups where they are given as a list."""
    if "," in text and shown("num-cores-list") == "groups":
        listed = _groups(NUM_CORES, text)
        return sum(listed or ()), listed
    return _whole(NUM_CORES, text or "0") or None, None


def _groups(name: str, text: str) -> Optional[Tuple[int, ...]]:
    if not text:
        return None
    sizes = tuple(_whole(name, part.strip()) for part in text.split(","))
    if min(sizes) < 1:
        raise SettingsRefused(f"{name}={text!r} has an empty group")
    return sizes


def _whole(name: str, text: str) -> int:
    if not text.isdigit():
        raise SettingsRefused(f"{name}={text!r} is not a whole number")
    return int(text)


def _timeout(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise SettingsRefused(f"{EXEC_TIMEOUT}={text!r} is not a number of seconds") from None
