"""What a head does with hidden states, as data: for backends that run their own model instead of transformers' (cuda).

A task describes its head with these steps (``families.Head.steps``), one tuple for each of its outputs; an artifact
holds them as JSON.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple, Type, Union

from neuronbert.hardware.schema import Form, list_of, record, whole

# sentence-transformers' modes, under the names that compile takes.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len", "weightedmean", "lasttoken")
ACTIVATIONS = ("identity", "tanh", "relu", "gelu", "sigmoid", "silu")
INPUT = "input"  # of ``Linear.skip``: the input itself


class Pool(NamedTuple):
    """Hidden states of tokens to one vector a row: sentence-transformers' poolings, side by side where several."""

    poolings: Tuple[str, ...]


class Linear(NamedTuple):
    """``activation(x · weightᵀ + bias)``; with ``skip`` that plus the input, or plus its product with those weights."""

    weight: str  # the name of the weights, [outputs, inputs]
    bias: Optional[str]
    activation: str = "identity"
    skip: Optional[str] = None  # None, INPUT, or the name of weights


class Column(NamedTuple):
    """One number of each vector."""

    number: int


class Normalize(NamedTuple):
    """Every vector divided by its length."""


Step = Union[Pool, Linear, Column, Normalize]
Steps = Tuple[Step, ...]  # from hidden states of tokens to one output
FIRST_TOKEN = Pool(("cls",))

_NAMES: Dict[str, Type[Any]] = {"pool": Pool, "linear": Linear, "column": Column, "normalize": Normalize}
_WEIGHT: Form = {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,200}$"}
_OPTIONAL_WEIGHT: Form = {"type": ["string", "null"], "pattern": _WEIGHT["pattern"]}
_STEP: Form = record(
    {"step": {"enum": list(_NAMES)}},
    {
        "poolings": list_of({"enum": list(POOLINGS)}, minItems=1, maxItems=len(POOLINGS)),
        "weight": _WEIGHT,
        "bias": _OPTIONAL_WEIGHT,
        "activation": {"enum": list(ACTIVATIONS)},
        "skip": _OPTIONAL_WEIGHT,
        "number": whole(0, 1 << 20),
    },
)
STEPS_FORM: Form = list_of(list_of(_STEP, maxItems=64), minItems=1, maxItems=16)


def linear(name: str, activation: str = "identity") -> Linear:
    """A linear layer whose weights torch calls ``name``.weight and ``name``.bias."""
    return Linear(f"{name}.weight", f"{name}.bias", activation)


def weight_names(outputs: Sequence[Steps]) -> Set[str]:
    """The names of all weights that the steps use."""
    linears = [step for steps in outputs for step in steps if isinstance(step, Linear)]
    names = [name for step in linears for name in (step.weight, step.bias, step.skip)]
    return {name for name in names if name is not None and name != INPUT}


def pools(steps: Steps) -> bool:
    """Whether the output has an entry for each row, not for each token."""
    return any(isinstance(step, Pool) for step in steps)


def entry_shape(steps: Steps, hidden: int, shapes: Mapping[str, Sequence[int]]) -> Tuple[int, ...]:
    """The shape of what becomes of ``hidden`` numbers: (width,), or () of a single number.

    ``shapes``: the weights' by their names. ValueError, in words, where a step cannot follow what comes before it.
    """
    width: Optional[int] = hidden
    for place, step in enumerate(steps):
        if width is None:
            raise ValueError("a step follows one that leaves a single number")
        if isinstance(step, Pool):
            if pools(steps[:place]):
                raise ValueError("a pooling follows another, which left no tokens")
            width *= len(step.poolings)
        elif isinstance(step, Linear):
            width = _linear_width(step, width, shapes)
        elif isinstance(step, Column):
            if step.number >= width:
                raise ValueError(f"column {step.number} is taken of {width} numbers")
            width = None
    return () if width is None else (width,)


def _linear_width(step: Linear, width: int, shapes: Mapping[str, Sequence[int]]) -> int:
    outputs = next(iter(shapes[step.weight]), 0)
    wanted = ((step.weight, (outputs, width)), (step.bias, (outputs,)), (step.skip, (outputs, width)))
    for name, shape in wanted:
        if name is not None and name != INPUT and tuple(shapes[name]) != shape:
            raise ValueError(f"{name} is {list(shapes[name])} where {list(shape)} is needed")
    if step.skip == INPUT and outputs != width:
        raise ValueError(f"{step.weight} makes {outputs} numbers of {width}, and these are to be added to them")
    return outputs


def document(outputs: Sequence[Steps]) -> List[List[Dict[str, Any]]]:
    """The steps as JSON."""
    names = {kind: name for name, kind in _NAMES.items()}
    return [[{"step": names[type(step)], **step._asdict()} for step in steps] for steps in outputs]


def steps_of(found: Sequence[Sequence[Mapping[str, Any]]]) -> Tuple[Steps, ...]:
    """The steps of a document of STEPS_FORM; KeyError where a step lacks what it needs."""
    return tuple(tuple(_step(each) for each in steps) for steps in found)


def _step(found: Mapping[str, Any]) -> Step:
    kind = _NAMES[found["step"]]
    fields = {name: found[name] for name in kind._fields}
    if kind is Pool:
        fields["poolings"] = tuple(fields["poolings"])
    step: Step = kind(**fields)
    return step
