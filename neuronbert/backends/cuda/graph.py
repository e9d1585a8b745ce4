"""What a model of the cuda backend is made of, as a JSON file beside its weights; weights.py reads those by it."""

import json
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Sequence, Tuple

from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output
from neuronbert.checkpoint.families import Config, Family, Head, Shape, family_of, size_of, usable_positions
from neuronbert.checkpoint.head_steps import STEPS_FORM, Steps, document, pools, steps_of, weight_names
from neuronbert.errors import BackendFailed
from neuronbert.hardware.schema import FLAG, NUMBER, Schema, record, whole
from neuronbert.hardware.untrusted import Refusal, read_document

FILE_NAME = "graph.json"
DAMAGED = Refusal(BackendFailed, "compile the artifact again")

# transformers' name → ours. Those of one formula, written in several ways, have one name.
ACTIVATIONS: Dict[str, str] = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# The bounds are those of config.json (checkpoint/config.py).
_SIZE = whole(1, 1 << 27)
FORM = Schema(
    **record(
        {
            "vocabulary": _SIZE,
            "positions": _SIZE,
            "token_types": whole(0, 1 << 20),
            "embedding_width": _SIZE,
            "hidden": _SIZE,
            "layers": whole(1, 10_000),
            "heads": whole(1, 10_000),
            "intermediate": _SIZE,
            "activation": {"enum": sorted(set(ACTIVATIONS.values()))},
            "norm_epsilon": NUMBER,
            "skips_padding_id": FLAG,
            "padding_id": whole(0, 1 << 27),
            "head": STEPS_FORM,
        }
    )
)


class Graph(NamedTuple):
    """The sizes of an encoder, and what its head does."""

    vocabulary: int
    positions: int  # rows of the table of position embeddings
    token_types: int  # 0: the model is not told any
    embedding_width: int  # numbers of a token's embedding; projected where it is not ``hidden``
    hidden: int
    layers: int
    heads: int
    intermediate: int
    activation: str  # of ACTIVATIONS' values
    norm_epsilon: float
    skips_padding_id: bool  # RoBERTa: positions are counted over tokens other than ``padding_id``, from that + 1 on
    padding_id: int
    head: Tuple[Steps, ...]  # one for each output

    @property
    def head_width(self) -> int:
        """Numbers of an attention head."""
        return self.hidden // self.heads

    @property
    def longest_row(self) -> int:
        """Tokens that positions are there for."""
        return self.positions - (self.padding_id + 1 if self.skips_padding_id else 0)

    @property
    def projects(self) -> bool:
        """Whether a linear layer makes hidden states of embeddings (ELECTRA)."""
        return self.embedding_width != self.hidden

    def encoder_shapes(self) -> Dict[str, Shape]:
        """Name → shape of each of the encoder's weights; of a head's weights the names alone are known here."""
        shapes: Dict[str, Shape] = {
            "embeddings.word": (self.vocabulary, self.embedding_width),
            "embeddings.position": (self.positions, self.embedding_width),
            **({"embeddings.token_type": (self.token_types, self.embedding_width)} if self.token_types else {}),
            **_pair("embeddings.norm", self.embedding_width),
            **(_pair("embeddings.project", self.hidden, self.embedding_width) if self.projects else {}),
        }
        for layer in range(self.layers):
            for name, (outputs, inputs) in self.products().items():
                shapes.update(_pair(f"layers.{layer}.{name}", outputs, inputs))
            shapes.update(_pair(f"layers.{layer}.attention_norm", self.hidden))
            shapes.update(_pair(f"layers.{layer}.output_norm", self.hidden))
        return shapes

    def products(self) -> Dict[str, Tuple[int, int]]:
        """Name → outputs and inputs of a layer's matrix products, in order."""
        return {
            "qkv": (3 * self.hidden, self.hidden),
            "attention_output": (self.hidden, self.hidden),
            "widen": (self.intermediate, self.hidden),
            "narrow": (self.hidden, self.intermediate),
        }

    def flops(self, lengths: Any) -> float:
        """Floating-point operations of rows of ``lengths`` tokens (int array): 2 for each weight of the layers and
        token, and 4 · hidden for each pair of tokens that see each other, in each layer."""
        weights = sum(outputs * inputs for outputs, inputs in self.products().values())
        tokens, pairs = float(lengths.sum()), float((lengths.astype(float) ** 2).sum())
        return self.layers * (2.0 * weights * tokens + 4.0 * self.hidden * pairs)


def _pair(name: str, *shape: int) -> Dict[str, Shape]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def graph_of(config: Config, head: Head, uses_token_types: bool) -> Graph:
    """The graph of a checkpoint's config.json with ``head``; BackendFailed for an activation that is not served."""
    family = family_of(config, "config.json")

    def size(key: str) -> int:
        return size_of(config, family, key)

    return Graph(
        vocabulary=size("vocab_size"),
        positions=size("max_position_embeddings"),
        token_types=size("type_vocab_size") if uses_token_types else 0,
        embedding_width=size("embedding_size") if family.model_type == "electra" else size("hidden_size"),
        hidden=size("hidden_size"),
        layers=size("num_hidden_layers"),
        heads=size("num_attention_heads"),
        intermediate=size("intermediate_size"),
        activation=_activation(config, family),
        norm_epsilon=_norm_epsilon(config, family),
        skips_padding_id=usable_positions(config, family) != size("max_position_embeddings"),
        padding_id=size("pad_token_id"),
        head=head.steps(family, config),
    )


def _activation(config: Config, family: Family) -> str:
    asked = config.get("activation" if family.model_type == "distilbert" else "hidden_act") or "gelu"
    if not isinstance(asked, str) or asked not in ACTIVATIONS:
        raise BackendFailed(
            f"the model's activation is {asked!r}, and the cuda backend has {', '.join(ACTIVATIONS)}",
            hint="--backend openvino, or another checkpoint",
        )
    return ACTIVATIONS[asked]


def _norm_epsilon(config: Config, family: Family) -> float:
    """As config.json says; 1e-12 is transformers' default, and what DistilBERT's code has."""
    return float(config.get("layer_norm_eps") or 1e-12) if family.model_type != "distilbert" else 1e-12


def save_graph(graph: Graph, folder: Path) -> None:
    """Write ``graph`` into ``folder``."""
    facts = {**graph._asdict(), "head": document(graph.head)}
    (folder / FILE_NAME).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def load_graph(folder: Path) -> Graph:
    """The graph that ``save_graph`` wrote; BackendFailed where the file is something else."""
    path = folder / FILE_NAME
    try:
        facts: Mapping[str, Any] = read_document(path, FORM, DAMAGED, links=False)
    except FileNotFoundError:
        raise DAMAGED.of(f"{path} is missing") from None
    try:
        head = steps_of(facts["head"])
    except KeyError as error:
        raise DAMAGED.of(f"{path}: a step of the head lacks {error}") from None
    graph = Graph(**{**{name: facts[name] for name in Graph._fields}, "head": head})
    if graph.hidden % graph.heads or graph.longest_row < 1:
        raise DAMAGED.of(f"{path}: {graph.hidden} numbers over {graph.heads} heads, {graph.positions} positions")
    return graph


def refuse_other_outputs(graph: Graph, outputs: Sequence[Output], folder: Path) -> None:
    """BackendFailed unless the head has these outputs, of tokens or of rows as they are."""
    found, wanted = [PER_ROW if pools(steps) else PER_TOKEN for steps in graph.head], [output.per for output in outputs]
    if found != wanted:
        raise DAMAGED.of(f"{folder / FILE_NAME}: the head's outputs are per {found}, and the task's are per {wanted}")


def head_weight_names(graph: Graph) -> Tuple[str, ...]:
    """The checkpoint's names of the head's weights, in order."""
    return tuple(sorted(weight_names(graph.head)))
