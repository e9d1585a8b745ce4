"""Rewrites what NNCF quantised (int8.py) so that OpenVINO runs it on its fastest kernels.

The results stay the same but for the order in which float32 is rounded. Attention's probabilities stay in
FP32 as NNCF leaves them: in int8 they gained 4 to 8 % of speed and cost the demo 0.7 points of F1, because a weight
spread over 150 tokens is less than two of 255 steps.
"""

from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np

from neuronbert.backends.quiet import import_without_telemetry

Model = Any  # openvino.Model; openvino is imported on use only
Node = Any  # openvino.Node

# Operators that only move numbers: scaling and rounding commute with them.
_MOVES = ("Transpose", "Reshape")
# Tables smaller than this are not worth a second type.
_LARGE_TABLE = 1 << 20


def rewrite(model: Model) -> Dict[str, int]:
    """Apply every rewrite to ``model`` in place; the number of times each one applied."""
    counts = {rule.__name__: rule(model) for rule in (halve_tables, fold_value_scales, shift_activations)}
    model.validate_nodes_and_infer_types()
    return counts


def halve_tables(model: Model) -> int:
    """Store large embedding tables in half precision: OpenVINO reads such a table in place, mapped from the file.

    An int8 table is unpacked to float32 as it loads (47 MB more for the demo's words). Returns the number of tables.
    """
    opset = import_without_telemetry("openvino.opset13")
    changed = 0
    for gather in _nodes(model, "Gather"):
        table = _constant(gather, 0)
        if table is None or not _is_table(table) or table.size < _LARGE_TABLE:
            continue
        unpacked = opset.convert(opset.constant(table.astype(np.float16)), np.float32)
        unpacked.get_rt_info()["decompression"] = True  # or it would be folded back into a float32 constant
        gather.input(0).replace_source_output(unpacked.output(0))
        changed += 1
    return changed


def table_readers(model: Model) -> List[str]:
    """The names of the nodes that look up embeddings."""
    return [node.get_friendly_name() for node in _nodes(model, "Gather") if _is_table(_constant(node, 0))]


def _is_table(constant: Optional[np.ndarray]) -> bool:
    return constant is not None and constant.ndim == 2 and constant.dtype == np.float32


def fold_value_scales(model: Model) -> int:
    """Move SmoothQuant's scale behind attention into the value projection, and the rounding right behind attention.

    probabilities @ (values * s) = (probabilities @ values) * s, so only the order of operations changes: one pass
    over the activations less, and the attention kernel writes int8 itself. Returns how many attentions were changed.
    """
    changed = 0
    for attention in _nodes(model, "ScaledDotProductAttention"):
        moved = [attention] + _moves_after(attention)
        scale = _only_reader(moved[-1])
        rounding = _only_reader(scale) if _is(scale, "Multiply") else None
        values = _linear_before(attention.input_value(2).get_node())
        if scale is None or values is None or not _rounds_per_tensor(rounding):
            continue
        factors = _constant(scale, 1)
        if factors is None or factors.size != values.outputs:
            continue
        values.scale_outputs(factors.reshape(-1))
        _round_behind(attention, rounding, moved[-1])
        changed += 1
    return changed


def _round_behind(attention: Node, rounding: Node, last_move: Node) -> None:
    """attention → moves → scale → rounding → readers becomes attention → rounding → moves → readers."""
    readers = list(rounding.output(0).get_target_inputs())
    first_readers = list(attention.output(0).get_target_inputs())
    ranges = [rounding.input_value(port) for port in range(1, 5)]
    opset = import_without_telemetry("openvino.opset13")
    early = opset.fake_quantize(attention.output(0), *ranges, rounding.get_attributes()["levels"])
    early.set_friendly_name(rounding.get_friendly_name())
    for port in first_readers:
        port.replace_source_output(early.output(0))
    for port in readers:
        port.replace_source_output(early.output(0) if last_move is attention else last_move.output(0))


def shift_activations(model: Model) -> int:
    """Let every rounded activation that only feeds int8 products start at 0, and take the shift off in their biases.

    W @ x = W @ (x - low) + low * W @ 1, so nothing is lost. Unsigned without a zero point is the one form that VNNI
    multiplies as it is: signed inputs cost OpenVINO's kernel 20 % (each is shifted as it is read), zero points 5 %.
    Returns how many activations were changed.
    """
    changed = 0
    for rounding in _nodes(model, "FakeQuantize"):
        products = _products_reading(rounding) if _rounds_per_tensor(rounding) else []
        low = float(_read_constant(rounding, 3).item()) if products else 0.0
        if low == 0.0:
            continue
        high = float(_read_constant(rounding, 4).item())
        _set_constant(rounding, 3, np.float32(0.0))
        _set_constant(rounding, 4, np.float32(high - low))
        for product in products:
            product.add_to_bias(low * product.weights().sum(axis=1))
        changed += 1
    return changed


def _products_reading(rounding: Node) -> "List[Linear]":
    """The int8 products behind ``rounding``; none if anything else reads it too."""
    products: List[Linear] = []
    ports = list(rounding.output(0).get_target_inputs())
    while ports:
        port = ports.pop()
        node = port.get_node()
        if port.get_index() == 0 and node.get_type_name() in _MOVES:
            ports += node.output(0).get_target_inputs()
            continue
        product = Linear.of(node) if port.get_index() == 0 else None
        if product is None:
            return []
        products.append(product)
    return products


class Linear:
    """A MatMul with weights as NNCF leaves them, Convert(int8 [outputs, inputs]) * scale [outputs, 1], and its bias."""

    def __init__(self, node: Node, integers: np.ndarray, scaling: Node):
        self._node = node
        self._integers = integers
        self._scaling = scaling
        self.outputs = integers.shape[0]

    @classmethod
    def of(cls, node: Node) -> "Optional[Linear]":
        """``node`` as a Linear; None if it is something else."""
        if not _is(node, "MatMul") or not node.get_attributes()["transpose_b"]:
            return None
        scaling = node.input_value(1).get_node()
        scale = _constant(scaling, 1) if _is(scaling, "Multiply") else None
        converted = scaling.input_value(0).get_node() if scale is not None else None
        integers = _constant(converted, 0) if _is(converted, "Convert") else None
        if scale is None or integers is None or integers.dtype != np.int8 or integers.ndim != 2:
            return None
        return cls(node, integers, scaling) if scale.size in (1, integers.shape[0]) else None

    def weights(self) -> np.ndarray:
        """[outputs, inputs] in float64."""
        weights: np.ndarray = self._integers.astype(np.float64) * self._scale()
        return weights

    def scale_outputs(self, factors: np.ndarray) -> None:
        """Multiply weights and bias by ``factors`` [outputs]."""
        _set_constant(self._scaling, 1, (self._scale() * factors.reshape(-1, 1)).astype(np.float32))
        bias, port = self._bias()
        if bias is not None:
            _set_constant(bias, port, _read_constant(bias, port) * factors)

    def add_to_bias(self, values: np.ndarray) -> None:
        """Add ``values`` [outputs] to the outputs, in the bias if there is one."""
        bias, port = self._bias()
        if bias is not None:
            _set_constant(bias, port, (_read_constant(bias, port).astype(np.float64) + values).astype(np.float32))
            return
        readers = list(self._node.output(0).get_target_inputs())
        opset = import_without_telemetry("openvino.opset13")
        added = opset.add(self._node, opset.constant(values.astype(np.float32).reshape(1, 1, -1)))
        for reader in readers:
            reader.replace_source_output(added.output(0))

    def _scale(self) -> np.ndarray:
        return _read_constant(self._scaling, 1).astype(np.float64).reshape(-1, 1)

    def _bias(self) -> Tuple[Optional[Node], int]:
        """The Add of a constant vector behind the product and that constant's port; (None, 0) if there is none."""
        add = _only_reader(self._node)
        for port in (0, 1) if _is(add, "Add") else ():
            constant = _constant(add, port)
            if constant is not None and constant.size == constant.shape[-1] == self.outputs:
                return add, port
        return None, 0


def _linear_before(node: Node) -> Optional[Linear]:
    """The product whose output reaches ``node`` unchanged but for moves and its bias, and reaches nothing else."""
    while _is(node, *_MOVES) and _only_reader(node) is not None:
        node = node.input_value(0).get_node()
    if _is(node, "Add"):
        node = next(
            (node.input_value(port).get_node() for port in (0, 1) if _constant(node, 1 - port) is not None), node
        )
    return Linear.of(node) if _only_reader(node) is not None else None


def _moves_after(node: Node) -> List[Node]:
    moves: List[Node] = []
    following = _only_reader(node)
    while _is(following, *_MOVES):
        moves.append(following)
        following = _only_reader(following)
    return moves


def _nodes(model: Model, kind: str) -> List[Node]:
    return [node for node in model.get_ordered_ops() if node.get_type_name() == kind]


def _is(node: Optional[Node], *kinds: str) -> bool:
    return node is not None and node.get_type_name() in kinds


def _only_reader(node: Optional[Node]) -> Optional[Node]:
    """The one node that reads ``node``'s only output; None if there are more or none."""
    ports = list(node.output(0).get_target_inputs()) if node is not None and node.get_output_size() == 1 else []
    return ports[0].get_node() if len(ports) == 1 else None


def _rounds_per_tensor(node: Node) -> bool:
    if not _is(node, "FakeQuantize"):
        return False
    range_ends = [_constant(node, port) for port in range(1, 5)]
    return all(end is not None and end.size == 1 for end in range_ends)


def _constant(node: Node, port: int) -> Optional[np.ndarray]:
    """The constant that ``node`` reads at ``port``; None if it is not one."""
    source = node.input_value(port).get_node()
    if not _is(source, "Constant"):
        return None
    values: np.ndarray = source.get_data()
    return values


def _read_constant(node: Node, port: int) -> np.ndarray:
    """The constant that ``node`` is known to read at ``port``."""
    values = _constant(node, port)
    assert values is not None
    return values


def _set_constant(node: Node, port: int, value: Union[np.ndarray, np.floating]) -> None:
    constant = import_without_telemetry("openvino.opset13").constant(np.ascontiguousarray(value))
    node.input(port).replace_source_output(constant.output(0))
