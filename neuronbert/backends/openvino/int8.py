"""Quantises an OpenVINO model to int8 with NNCF, for backend.py: the recipes to try, and which products lose most."""

from typing import Dict, Iterator, List, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Recipe, Steps
from neuronbert.backends.openvino import int8_graph
from neuronbert.backends.openvino.int8_graph import Model, Node
from neuronbert.backends.quiet import import_without_telemetry, silence_nncf, stdout_discarded
from neuronbert.errors import BackendFailed
from neuronbert.hardware.libraries import optional_imports

Inputs = Dict[str, np.ndarray]  # of one text: int64 [1, tokens] by name

# Activation ranges settle within a hundred texts of ~150 tokens; each one costs a pass over the FP32 model.
CALIBRATION_TEXTS = 128
SENSITIVITY_TEXTS = 8
# What NNCF itself uses for the products of transformers (advanced_parameters.py), written out to be recorded.
DEFAULT_ALPHA = 0.95
WEIGHT_LEVELS = 127
ACTIVATION_LEVELS = 255


def int8_recipes(overflow_fix: bool, rest: str = "f32") -> List[Recipe]:
    """Recipes in the order to try: all products in int8 with three SmoothQuant strengths, then fewer products.

    ``overflow_fix`` halves the weights' range for CPUs that add u8 x s8 products in 16 bits. ``fp32_head`` leaves the
    QA head in FP32, ``fp32_share`` that share of the products, those whose outputs lose most. ``rest`` ("bf16" or
    "f32") is what the operators that are not quantised run in while all products are; with fewer, it is FP32.
    """
    shared = {
        "method": "nncf",
        "preset": "mixed",
        "model_type": "transformer",
        "texts": CALIBRATION_TEXTS,
        "overflow_fix": overflow_fix,
    }
    steps: Sequence[Tuple[float, bool, float]] = [
        (DEFAULT_ALPHA, False, 0.0),
        (0.7, False, 0.0),
        (0.5, False, 0.0),
        (DEFAULT_ALPHA, True, 0.0),
        (DEFAULT_ALPHA, True, 0.1),
        (DEFAULT_ALPHA, True, 0.3),
    ]
    names = ("smooth_quant_alpha", "fp32_head", "fp32_share")
    return [{**shared, **dict(zip(names, step)), "rest": "f32" if step[1] else rest} for step in steps]


class Counted:
    """Texts for NNCF, which goes over them several times, with each one of them told to ``on_step``."""

    def __init__(self, texts: Sequence[Inputs], on_step: Steps):
        self._texts, self._on_step, self._passes = texts, on_step, 0

    def __len__(self) -> int:
        return len(self._texts)

    def __iter__(self) -> Iterator[Inputs]:
        self._passes += 1
        what = f"calibration texts read, pass {self._passes}"
        for number, text in enumerate(self._texts, 1):
            self._on_step(what, number, len(self._texts))
            yield text


def quantize(
    model: Model, calibration: Sequence[Inputs], recipe: Recipe, on_step: Steps = lambda what, done, total: None
) -> Tuple[Model, Recipe]:
    """The int8 model, and the recipe with the names of what stayed in FP32.

    Raises BackendFailed when there is no calibration text or NNCF fails.
    """
    if not calibration:
        raise BackendFailed("int8 needs calibration texts, and there are none", hint="--calibration-data FILE.json")
    kept = _products_to_keep(model, calibration, recipe)
    texts = evenly(calibration, recipe["texts"])
    import_without_telemetry("nncf")  # its log keeps the stdout of that moment, which must not be the one below
    try:
        with stdout_discarded():  # two bars for each of several steps; ``on_step`` has the same counts
            ignored = kept + int8_graph.table_readers(model)
            quantized = _nncf_quantize(model, Counted(texts, on_step), recipe, ignored)
    except Exception as error:  # NNCF's errors share no base class
        raise BackendFailed(f"NNCF cannot quantise this model: {error}", hint="--precision fp32") from error
    rewrites = int8_graph.rewrite(quantized)
    return quantized, {**recipe, "texts": len(texts), "fp32_products": kept, "rewrites": rewrites}


@optional_imports()
def _nncf_quantize(model: Model, texts: Counted, recipe: Recipe, ignored: Sequence[str]) -> Model:
    nncf = import_without_telemetry("nncf")
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
    )

    with silence_nncf():
        return nncf.quantize(
            model,
            nncf.Dataset(texts),
            model_type=nncf.ModelType(recipe["model_type"]),
            preset=nncf.QuantizationPreset(recipe["preset"]),
            target_device=nncf.TargetDevice.CPU,
            subset_size=len(texts),
            ignored_scope=nncf.IgnoredScope(names=list(ignored)) if ignored else None,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.ENABLE if recipe["overflow_fix"] else OverflowFix.DISABLE,
                smooth_quant_alphas=AdvancedSmoothQuantParameters(matmul=recipe["smooth_quant_alpha"]),
            ),
        )


def _products_to_keep(model: Model, calibration: Sequence[Inputs], recipe: Recipe) -> List[str]:
    products = weighted_products(model)
    kept = [products[-1].name] if recipe["fp32_head"] else []
    if recipe["fp32_share"]:
        errors = product_errors(model, evenly(calibration, SENSITIVITY_TEXTS))
        worst = sorted(errors, key=lambda name: -errors[name])[: max(1, round(recipe["fp32_share"] * len(products)))]
        kept += [name for name in worst if name not in kept]
    return kept


class Product(NamedTuple):
    """A product of activations with a constant: its node, and the weights as [outputs, inputs]."""

    name: str
    node: Node
    weights: np.ndarray


def weighted_products(model: Model) -> List[Product]:
    """The matrix products with constant weights, in the order they are computed (the head is the last)."""
    products = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        if source.get_type_name() == "Constant":
            weights = source.get_data()
            products.append(
                Product(node.get_friendly_name(), node, weights if node.get_attributes()["transpose_b"] else weights.T)
            )
    return products


def product_errors(model: Model, texts: Sequence[Inputs]) -> Dict[str, float]:
    """For each weighted product, the relative error of its output when its own input and weights are rounded to int8.

    Activations get one asymmetric range over all ``texts``, weights one symmetric range per output; everything
    before the product stays exact, so the errors of different products can be compared.
    """
    products = weighted_products(model)
    sources = [product.node.input_value(0).get_node().get_friendly_name() for product in products]
    return {
        product.name: rounding_error(activations, product.weights)
        for product, activations in zip(products, observe(model, sources, texts))
    }


def observe(model: Model, names: Sequence[str], texts: Sequence[Inputs]) -> List[np.ndarray]:
    """The output of each named node for all ``texts``: float32 [tokens, width]."""
    openvino = import_without_telemetry("openvino")
    probe = model.clone()
    positions = {name: index for index, name in enumerate(dict.fromkeys(names))}  # OpenVINO adds an output once
    nodes = {node.get_friendly_name(): node for node in probe.get_ops()}
    first = len(model.outputs)
    probe.add_outputs([nodes[name].output(0) for name in positions])
    compiled = openvino.Core().compile_model(probe, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    runs = []
    for text in texts:
        results = compiled(text)
        runs.append([results[first + positions[name]] for name in names])
    return [np.concatenate([array.reshape(-1, array.shape[-1]) for array in arrays]) for arrays in zip(*runs)]


def rounding_error(activations: np.ndarray, weights: np.ndarray) -> float:
    """||q(X) q(W)' - X W'|| / ||X W'|| for X [tokens, inputs] and W [outputs, inputs]; 0 where the product is 0."""
    exact = activations @ weights.T
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(_round_range(activations) @ _round_rows(weights).T - exact)) / size if size else 0.0


def _round_range(values: np.ndarray) -> np.ndarray:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    step = (high - low) / ACTIVATION_LEVELS or 1.0
    rounded: np.ndarray = np.round(values / step) * step
    return rounded


def _round_rows(weights: np.ndarray) -> np.ndarray:
    steps = np.abs(weights).max(axis=1, keepdims=True) / WEIGHT_LEVELS
    steps[steps == 0] = 1.0
    rounded: np.ndarray = np.round(weights / steps) * steps
    return rounded


def evenly(items: Sequence[Inputs], count: int) -> List[Inputs]:
    """``count`` items (or all, if fewer) spread evenly over ``items``."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]
