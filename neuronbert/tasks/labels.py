"""The names of a checkpoint's labels, for the tasks that give some: from its config.json, and from data files."""

from typing import Any, Mapping, Optional, Sequence, Tuple

from neuronbert.errors import CheckpointError, InputError, as_whole, shown_value

SHOWN_LABELS = 10  # of more, an error names the first
MOST_DIGITS = 20  # of a label's number: Python refuses to read thousands with an error of its own


def label_names(config: Mapping[str, Any]) -> Tuple[str, ...]:
    """The names under ``id2label`` in the order of their numbers; LABEL_0 ... where the config has none.

    CheckpointError for numbers that are not 0, 1, ..., one for each label.
    """
    names = config.get("id2label")
    if not isinstance(names, dict) or not names:
        return tuple(f"LABEL_{number}" for number in range(config.get("num_labels") or 2))
    by_number = {_number_of(number): str(name) for number, name in names.items()}
    if sorted(by_number) != list(range(len(names))):
        raise CheckpointError(
            f"config.json: the labels of id2label are numbered {', '.join(map(str, names))[:100]}, not 0, 1, ...",
            hint="fetch config.json again from where the checkpoint came from",
        )
    return tuple(by_number[number] for number in range(len(names)))


def _number_of(key: Any) -> int:
    return int(key) if isinstance(key, int) or str(key).isdecimal() else -1


def label_number(label: Any, names: Sequence[str]) -> int:
    """The number of a label that a data file gives by name or number; InputError for one that ``names`` lacks."""
    name = _name_of(label)
    if name is not None and name in names:
        return list(names).index(name)
    if name is not None and name.isdecimal() and len(name) < MOST_DIGITS and int(name) < len(names):
        return int(name)
    raise InputError(
        f"the checkpoint has no label {shown_value(label)}; it has {first_labels(names)}",
        hint="data with the checkpoint's own labels, by name or number",
    )


def first_labels(names: Sequence[str]) -> str:
    """The labels for an error, which names SHOWN_LABELS of them, and how many there are."""
    more = f", ... ({len(names)} in all)" if len(names) > SHOWN_LABELS else ""
    return ", ".join(names[:SHOWN_LABELS]) + more


def _name_of(label: Any) -> Optional[str]:
    """A label as text: the number 1 in JSON is the 1 of a CSV file. None for what is neither name nor number."""
    if isinstance(label, str):
        return label
    number = as_whole(label)
    return str(number) if number is not None and 0 <= number < 10**MOST_DIGITS else None
