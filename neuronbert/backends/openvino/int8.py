"""Quantises an OpenVINO model to int8 with NNCF, for openvino.py: a ladder of recipes, and what suffers most."""

from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from neuronbert.backends.openvino import int8_graph
from neuronbert.backends.quiet import import_without_telemetry, silence_nncf, stdout_to_stderr
from neuronbert.errors import BackendFailed

Inputs = Dict[str, np.ndarray]

# Activation ranges settle within a hundred texts of ~150 tokens; each one costs a pass over the FP32 model.
CALIBRATION_TEXTS = 128
SENSITIVITY_TEXTS = 8
# What NNCF itself uses for the products of transformers (advanced_parameters.py), written out to be recorded.
DEFAULT_ALPHA = 0.95
WEIGHT_LEVELS = 127
ACTIVATION_LEVELS = 255


def ladder(overflow_fix: bool, rest: str = "f32") -> List[Dict[str, Any]]:
    """Recipes in the order to try: all products in int8 with three SmoothQuant strengths, then fewer products.

    ``overflow_fix`` halves the weights' range for CPUs that add u8 x s8 products in 16 bits. ``fp32_head`` leaves the
    QA head in FP32, ``fp32_share`` that share of the products, those whose output suffers most. ``rest`` ("bf16" or
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


def quantize(model: Any, calibration: Sequence[Inputs], recipe: Mapping[str, Any]) -> Tuple[Any, Dict[str, Any]]:
    """The int8 model, and the recipe with the names of what stayed in FP32.

    Raises BackendFailed when there is no calibration text or NNCF fails.
    """
    if not calibration:
        raise BackendFailed("int8 needs calibration texts, and there are none", hint="--calibration-data FILE.json")
    kept = _products_to_keep(model, calibration, recipe)
    texts = evenly(calibration, recipe["texts"])
    try:
        with stdout_to_stderr():
            quantized = _nncf_quantize(model, texts, recipe, kept + int8_graph.table_readers(model))
    except Exception as error:  # NNCF's errors share no base class
        raise BackendFailed(f"NNCF cannot quantise this model: {error}", hint="--precision fp32") from error
    rewrites = int8_graph.rewrite(quantized)
    return quantized, {**recipe, "texts": len(texts), "fp32_products": kept, "rewrites": rewrites}


def _nncf_quantize(model: Any, texts: Sequence[Inputs], recipe: Mapping[str, Any], ignored: Sequence[str]) -> Any:
    nncf = import_without_telemetry("nncf")
    from nncf.quantization.advanced_parameters import (
        AdvancedQuantizationParameters,
        AdvancedSmoothQuantParameters,
        OverflowFix,
    )

    with silence_nncf():
        return nncf.quantize(
            model,
            nncf.Dataset(list(texts)),
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


def _products_to_keep(model: Any, calibration: Sequence[Inputs], recipe: Mapping[str, Any]) -> List[str]:
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
    node: Any
    weights: np.ndarray


def weighted_products(model: Any) -> List[Product]:
    """The matrix products with constant weights, in the order they are computed (the QA head is the last)."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        source = node.input_value(1).get_node()
        if source.get_type_name() == "Constant":
            weights = source.get_data()
            found.append(
                Product(node.get_friendly_name(), node, weights if node.get_attributes()["transpose_b"] else weights.T)
            )
    return found


def product_errors(model: Any, texts: Sequence[Inputs]) -> Dict[str, float]:
    """For each weighted product, the relative error of its output when its own input and weights are rounded to int8.

    Activations get one asymmetric range over all ``texts``, weights one symmetric range per output; everything
    before the product stays exact, so the errors of different products can be compared.
    """
    products = weighted_products(model)
    sources = [product.node.input_value(0).get_node().get_friendly_name() for product in products]
    return {
        product.name: rounding_error(seen, product.weights)
        for product, seen in zip(products, observe(model, sources, texts))
    }


def observe(model: Any, names: Sequence[str], texts: Sequence[Inputs]) -> List[np.ndarray]:
    """What each named node computes for all ``texts``: float32 [tokens, width]."""
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
    return [np.concatenate([one.reshape(-1, one.shape[-1]) for one in seen]) for seen in zip(*runs)]


def rounding_error(activations: np.ndarray, weights: np.ndarray) -> float:
    """||q(X) q(W)' - X W'|| / ||X W'|| for X [tokens, inputs] and W [outputs, inputs]; 0 where the product is 0."""
    exact = activations @ weights.T
    size = float(np.linalg.norm(exact))
    return float(np.linalg.norm(_round_range(activations) @ _round_rows(weights).T - exact)) / size if size else 0.0


def _round_range(values: np.ndarray) -> np.ndarray:
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    step = (high - low) / ACTIVATION_LEVELS or 1.0
    return np.round(values / step) * step


def _round_rows(weights: np.ndarray) -> np.ndarray:
    steps = np.abs(weights).max(axis=1, keepdims=True) / WEIGHT_LEVELS
    steps[steps == 0] = 1.0
    return np.round(weights / steps) * steps


def evenly(items: Sequence[Any], count: int) -> List[Any]:
    """``count`` items (or all, if fewer) spread evenly over ``items``."""
    count = min(count, len(items))
    return [items[index * len(items) // count] for index in range(count)]
