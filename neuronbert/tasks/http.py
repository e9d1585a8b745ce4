"""What a task's artifacts can be asked over HTTP (tasks/<name>/http.py), for the server: it knows no task by name.

A task says two things. ``BODY`` and ``asked`` are the form in which Hugging Face's inference API and its clients ask
for it: {"inputs": ..., "parameters": ...}. ``offers`` says which of the other protocols' questions it can answer.
"""

from dataclasses import fields
from typing import Any, Dict, List, Optional, Sequence, Tuple, get_type_hints

from neuronbert.errors import InputError
from neuronbert.hardware.libraries import optional_imports
from neuronbert.tasks.base import Asked as Asked
from neuronbert.tasks.offers import EMBEDDINGS as EMBEDDINGS
from neuronbert.tasks.offers import LABELS as LABELS
from neuronbert.tasks.offers import RANKING as RANKING

with optional_imports():
    import msgspec
    from msgspec import Struct as Struct  # what parts of bodies are declared as

EVERY_LABEL = 2**31 - 1  # as ``top_k``: however many there are


def body_type(name: str, inputs: Any, *kinds: type, beside: Optional[Dict[str, Any]] = None) -> Any:
    """The type of a body: its ``inputs``; ``parameters``, every field of the dataclasses of options; and those beside.

    Any of them but ``inputs`` may be left out, or null.
    """
    hints = {field.name: get_type_hints(kind)[field.name] for kind in kinds for field in fields(kind)}
    parameters = msgspec.defstruct(f"{name}Parameters", _optional(hints), forbid_unknown_fields=True)
    return msgspec.defstruct(
        f"{name}Body", [("inputs", inputs), *_optional({"parameters": parameters, **(beside or {})})]
    )


def _optional(hints: Dict[str, Any]) -> List[Tuple[str, Any, None]]:
    return [(name, Optional[hint], None) for name, hint in hints.items()]


def keywords_of(body: Any) -> Dict[str, Any]:
    """The parameters that a body gives, as keywords."""
    if body.parameters is None:
        return {}
    return {name: value for name, value in msgspec.structs.asdict(body.parameters).items() if value is not None}


def as_list(inputs: Any) -> List[Any]:
    """One input as a list of one, several as they are."""
    return inputs if isinstance(inputs, list) else [inputs]


def alone(inputs: Any, answers: Sequence[Any]) -> Any:
    """The answer alone where there was one input, and not a list of them."""
    return answers if isinstance(inputs, list) else answers[0]


def cut_inputs(results: Sequence[Any]) -> List[int]:
    """The numbers of the inputs whose text did not fit: "truncated" stands in their result, or in an entry of it."""
    return [
        number
        for number, result in enumerate(results)
        if any(isinstance(entry, dict) and entry.get("truncated") for entry in as_list(result))
    ]


def refuse_cut(results: Sequence[Any]) -> None:
    """InputError where the text of an input did not fit, for a client that does not want it cut."""
    cut = cut_inputs(results)
    if cut:
        place = f"inputs[{cut[0]}]: " if len(results) > 1 else ""
        raise InputError(
            f"{place}the text is longer than the model reads at once", hint='a shorter text, or "truncate": true'
        )
