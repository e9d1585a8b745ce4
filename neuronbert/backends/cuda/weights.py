"""The weights of graph.py's models: of a checkpoint's, stored as safetensors, read and checked. It imports torch."""

from pathlib import Path
from typing import Dict, Mapping, Tuple

import torch

from neuronbert.backends.cuda.graph import DAMAGED, Graph, head_weight_names
from neuronbert.checkpoint.families import Config, Family, Shape, family_of, layer_names
from neuronbert.checkpoint.head_steps import entry_shape
from neuronbert.hardware.libraries import optional_imports
from neuronbert.hardware.untrusted import open_regular

with optional_imports("cuda"):
    import safetensors
    from safetensors.torch import load_file, save_file

FILE_NAME = "weights.safetensors"
Weights = Dict[str, torch.Tensor]

# Of the weights of matrix products, of all else but norms (those are float32), and of what is computed.
TYPES: Dict[str, torch.dtype] = {
    "fp32": torch.float32,
    "tf32": torch.float32,
    "bf16": torch.bfloat16,
    "fp16": torch.float16,
    "fp8": torch.bfloat16,
}
FP8 = torch.float8_e4m3fn
FP8_LARGEST = 448.0  # of e4m3fn, torch.finfo(FP8).max
_HEAD = "head."  # before the checkpoint's own names
SCALE = ".scale"  # behind the name of an FP8 matrix: float32 [outputs], what its rows are multiplied by


def make_weights(named: Mapping[str, torch.Tensor], config: Config, graph: Graph, precision: str) -> Weights:
    """The weights of ``graph`` in ``precision``, of a checkpoint's float32 ones by their canonical names."""
    family = family_of(config, "config.json")
    exact = {**_embeddings(named, family, graph), **_layers(named, family, graph)}
    exact.update({_HEAD + name: named[name] for name in head_weight_names(graph)})
    made: Weights = {}
    for name, weight in exact.items():
        if precision == "fp8" and is_product(name, graph):
            made[name], made[name + SCALE] = to_fp8(weight)
        else:
            made[name] = weight.to(type_of(name, precision))
    return {name: weight.detach().contiguous().clone() for name, weight in made.items()}


def is_product(name: str, graph: Graph) -> bool:
    """Whether it is a matrix of a layer, which is what FP8 is for."""
    parts = name.split(".")
    return parts[0] == "layers" and parts[2] in graph.products() and parts[3] == "weight"


def type_of(name: str, precision: str) -> torch.dtype:
    """The type of a weight that is not in FP8. A head is small, and its sums are what is compared: it stays float32."""
    exact = "norm." in name or name.startswith(_HEAD) or name.endswith(SCALE)
    return torch.float32 if exact else TYPES[precision]


def to_fp8(weight: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """A matrix [outputs, inputs] in FP8, and float32 [outputs]: what each row has to be multiplied by."""
    scale = weight.abs().amax(dim=1).clamp(min=1e-12) / FP8_LARGEST
    return (weight / scale[:, None]).clamp(-FP8_LARGEST, FP8_LARGEST).to(FP8), scale.to(torch.float32)


def _embeddings(named: Mapping[str, torch.Tensor], family: Family, graph: Graph) -> Weights:
    root = family.prefix + "embeddings."
    made = {
        "embeddings.word": named[root + "word_embeddings.weight"],
        "embeddings.position": named[root + "position_embeddings.weight"],
        **_renamed(named, root + "LayerNorm", "embeddings.norm"),
    }
    if graph.projects:
        made.update(_renamed(named, family.prefix + "embeddings_project", "embeddings.project"))
    types = named.get(root + "token_type_embeddings.weight")
    if graph.token_types:
        made["embeddings.token_type"] = named[root + "token_type_embeddings.weight"]
    elif types is not None:  # every token is of type 0
        made["embeddings.position"] = made["embeddings.position"] + types[0]
    return made


def _layers(named: Mapping[str, torch.Tensor], family: Family, graph: Graph) -> Weights:
    made: Weights = {}
    for number in range(graph.layers):
        layer, names = f"layers.{number}.", layer_names(family, number)
        for kind in ("weight", "bias"):
            parts = [named[f"{name}.{kind}"] for name in (names.query, names.key, names.value)]
            made[f"{layer}qkv.{kind}"] = torch.cat(parts)
        for part in ("attention_output", "attention_norm", "widen", "narrow", "output_norm"):
            made.update(_renamed(named, getattr(names, part), layer + part))
    return made


def _renamed(named: Mapping[str, torch.Tensor], theirs: str, ours: str) -> Weights:
    return {f"{ours}.{kind}": named[f"{theirs}.{kind}"] for kind in ("weight", "bias")}


def save_weights(weights: Weights, folder: Path) -> None:
    """Write ``weights`` into ``folder``; OSError on a full disk."""
    path = folder / FILE_NAME
    path.touch()
    mode = path.stat().st_mode & 0o777
    save_file(weights, str(path))
    path.chmod(mode)  # some releases of safetensors put another file there, which nobody else may read


def load_weights(folder: Path, graph: Graph, precision: str, device: torch.device) -> Weights:
    """The weights that ``save_weights`` wrote, on ``device``; BackendFailed where they are not those of ``graph``."""
    path = folder / FILE_NAME
    try:
        with open_regular(path, DAMAGED, links=False):  # a pipe would be waited for
            pass
        weights: Weights = load_file(str(path), device=str(device))
    except FileNotFoundError:
        raise DAMAGED.of(f"{path} is missing") from None
    except safetensors.SafetensorError as error:
        raise DAMAGED.of(f"{path}: {error}") from error
    _refuse_others(weights, graph, precision, path)
    return weights


def _refuse_others(weights: Weights, graph: Graph, precision: str, path: Path) -> None:
    shapes = graph.encoder_shapes()
    scales = [name for name in shapes if precision == "fp8" and is_product(name, graph)]
    expected: Dict[str, Shape] = {**shapes, **{name + SCALE: shapes[name][:1] for name in scales}}
    names = {*expected, *(_HEAD + name for name in head_weight_names(graph))}
    if set(weights) != names:
        raise DAMAGED.of(f"{path}: the weight {sorted(set(weights) ^ names)[0]} is missing or not the graph's")
    for name, weight in weights.items():
        wanted = FP8 if name in scales else type_of(name, precision)
        if weight.dtype != wanted or tuple(weight.shape) != tuple(expected.get(name, weight.shape)):
            raise DAMAGED.of(f"{path}: {name} is {weight.dtype} {list(weight.shape)}, not as its graph says")
    of_head = {name[len(_HEAD) :]: tuple(weight.shape) for name, weight in weights.items() if name.startswith(_HEAD)}
    for steps in graph.head:
        try:
            entry_shape(steps, graph.hidden, of_head)
        except ValueError as error:
            raise DAMAGED.of(f"{path} or its graph, in the head: {error}") from None
