"""What becomes of a checkpoint's token embeddings: pooling, dense layers, length 1; prompts; and the texts' length.

``folder`` reads it from the files of sentence-transformers and puts it into config.json, under a key of ours; artifacts
are asked for it there.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from neuronbert.checkpoint.families import Config, Shape, family_like, size_of
from neuronbert.checkpoint.head_steps import ACTIVATIONS as ACTIVATIONS
from neuronbert.checkpoint.head_steps import POOLINGS as POOLINGS
from neuronbert.errors import CheckpointError, UsageError, shown_value
from neuronbert.hardware.schema import FLAG, TEXT, Form, Schema, list_of, object_of, record, whole
from neuronbert.hardware.untrusted import Refusal, refuse_unfit

KEY = "neuronbert_embeddings"  # in config.json

AUTO, NONE = "auto", "none"  # as the checkpoint's files say; the tokens' own embeddings
DEFAULT_POOLING = ("mean",)  # what sentence-transformers itself does with a plain encoder
NORMALIZE = "normalize"
SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")

_DAMAGED = Refusal(CheckpointError, "compile the checkpoint again, with this release")
_WIDTH = whole(1, 1 << 20)
LAYER_NAME: Form = {"type": "string", "pattern": "^[A-Za-z0-9_-]{1,64}$"}
_LAYER: Form = {
    "type": "object",
    "required": ["type"],
    "properties": {
        "type": {"enum": [NORMALIZE, "dense"]},
        "name": LAYER_NAME,
        "inputs": _WIDTH,
        "outputs": _WIDTH,
        "bias": FLAG,
        "activation": {"enum": list(ACTIVATIONS)},
        "residual": FLAG,
    },
}
FORM = Schema(
    **record(
        {
            "pooling": list_of({"enum": list(POOLINGS)}, maxItems=len(POOLINGS)),
            "include_prompt": FLAG,
            "layers": list_of(_LAYER, maxItems=16),
            "max_seq_length": whole(1, 1 << 20, "null"),
            "lowercase": FLAG,
            "prompts": object_of(TEXT),
            "default_prompt": {"type": ["string", "null"]},
            "similarity": {"enum": list(SIMILARITIES)},
            "truncate_dim": whole(1, 1 << 20, "null"),
        }
    )
)


class Dense(NamedTuple):
    """A linear layer with an activation over the pooled embedding; ``name`` is the first part of its weights' names."""

    name: str
    inputs: int
    outputs: int
    bias: bool
    activation: str
    residual: bool

    @property
    def shapes(self) -> Dict[str, Shape]:
        """Name → shape of its weights."""
        shapes: Dict[str, Shape] = {f"{self.name}.linear.weight": (self.outputs, self.inputs)}
        if self.bias:
            shapes[f"{self.name}.linear.bias"] = (self.outputs,)
        if self.residual and self.inputs != self.outputs:
            shapes[f"{self.name}.residual.weight"] = (self.outputs, self.inputs)
        return shapes


Layer = Union[Dense, str]  # a Dense, or NORMALIZE


class SentenceModules(NamedTuple):
    """What a checkpoint does with token embeddings, and with texts before that."""

    pooling: Tuple[str, ...] = DEFAULT_POOLING  # of POOLINGS; none: the tokens' embeddings are the result
    include_prompt: bool = True  # whether the tokens of a prompt count in the pooling
    layers: Tuple[Layer, ...] = ()
    max_seq_length: Optional[int] = None  # tokens of a text, special ones included; None: the tokenizer's limit
    lowercase: bool = False
    prompts: Mapping[str, str] = {}
    default_prompt: Optional[str] = None  # a name among ``prompts``
    similarity: str = SIMILARITIES[0]
    truncate_dim: Optional[int] = None

    @property
    def pooling_name(self) -> str:
        """The poolings as compile's option takes them: joined by +, side by side in an embedding."""
        return "+".join(self.pooling) or NONE

    @property
    def normalizes(self) -> bool:
        """Whether every embedding of a text has length 1."""
        return bool(self.layers) and self.layers[-1] == NORMALIZE

    @property
    def pools_on_host(self) -> bool:
        """Whether the tokens' embeddings are a second output: what a prompt changes in pooling, a graph cannot see."""
        return bool(self.pooling) and not self.include_prompt

    @property
    def dense(self) -> List[Dense]:
        """The dense layers, in order."""
        return [layer for layer in self.layers if isinstance(layer, Dense)]

    def width(self, hidden: int) -> int:
        """Numbers in an embedding, where a token's has ``hidden``."""
        return ([hidden * max(1, len(self.pooling))] + [layer.outputs for layer in self.dense])[-1]

    def document(self) -> Dict[str, Any]:
        """What config.json has under KEY."""
        layers = [
            {"type": "dense", **layer._asdict()} if isinstance(layer, Dense) else {"type": layer}
            for layer in self.layers
        ]
        return {**self._asdict(), "pooling": list(self.pooling), "layers": layers, "prompts": dict(self.prompts)}


def modules_of(config: Config) -> SentenceModules:
    """What config.json says under KEY, checked; mean pooling where it says nothing. CheckpointError."""
    document = config.get(KEY)
    if document is None:
        return SentenceModules()
    where = f"config.json, {KEY}"
    if not isinstance(document, dict):
        raise _DAMAGED.of(f"{where} is {shown_value(document)}")
    refuse_unfit(document, where, FORM, _DAMAGED)
    layers = tuple(_layer(layer, where) for layer in document["layers"])
    known = {name: document[name] for name in SentenceModules._fields}
    modules = SentenceModules(**{**known, "pooling": tuple(document["pooling"]), "layers": layers})
    refuse_odd_widths(modules, hidden_size(config), where)
    return modules


def _layer(layer: Mapping[str, Any], where: str) -> Layer:
    if layer["type"] == NORMALIZE:
        return NORMALIZE
    missing = [name for name in Dense._fields if name not in layer]
    if missing:
        raise _DAMAGED.of(f"{where}: a dense layer lacks {', '.join(missing)}")
    return Dense(**{name: layer[name] for name in Dense._fields})


def hidden_size(config: Config) -> int:
    """Numbers in a token's embedding."""
    return size_of(config, family_like(config), "hidden_size")


def refuse_odd_widths(modules: SentenceModules, hidden: int, where: str) -> None:
    """CheckpointError for layers that do not fit what comes before them, and for layers without a pooling."""
    if modules.layers and not modules.pooling:
        raise CheckpointError(f"{where} has layers behind no pooling", hint="--pooling none leaves them out")
    names = [layer.name for layer in modules.dense]
    width = hidden * len(modules.pooling)
    for layer in modules.dense:
        if layer.inputs != width or names.count(layer.name) > 1:
            raise CheckpointError(
                f"{where}: the dense layer {layer.name} reads {layer.inputs} numbers, and gets {width}",
                hint="another --pooling, or fetch the checkpoint again: its files are of different models",
            )
        width = layer.outputs
    if modules.pools_on_host and modules.dense:
        raise CheckpointError(
            f"{where}: dense layers behind a pooling that leaves out the prompt (include_prompt false) are not served",
            hint="--pooling none, and pool the tokens yourself",
        )


def chosen_pooling(modules: SentenceModules, asked: Optional[str]) -> SentenceModules:
    """``modules`` with the pooling that compile's option asks for; None or ``"auto"`` leaves them as they are.

    ``"none"`` leaves out the layers behind it too. UsageError for what is no pooling.
    """
    if asked is None or asked == AUTO:
        return modules
    if asked == NONE:
        return modules._replace(pooling=(), layers=())
    named = tuple(asked.split("+")) if isinstance(asked, str) else ()
    if not named or not set(named).issubset(POOLINGS) or len(set(named)) < len(named):
        raise UsageError(
            f"there is no pooling {shown_value(asked)}",
            hint=f"one of {', '.join((AUTO, NONE, *POOLINGS))}, or several, such as cls+mean",
        )
    return modules._replace(pooling=named)
