"""ONNX Runtime on the CPU: exported by torch, fused by its transformer optimizer, int8 quantised dynamically."""

import mmap
import tempfile
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence, Set, Tuple

import numpy as np

from neuronbert.backends.base import Batch, ExportResult, ExportSource, Recipe, ThroughputPlan, Variant, engine_errors
from neuronbert.backends.outputs import PER_TOKEN, Output, Outputs, fit_tokens, joined, named, refuse_misshapen
from neuronbert.backends.quiet import import_onnxruntime, silence_onnx_exporters
from neuronbert.backends.tracing import disk_errors, model_bytes, traceable
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.libraries import optional_imports, require_libraries
from neuronbert.hardware.machine import VNNI, has_vnni, library_versions

PRECISIONS: Tuple[str, ...] = ("fp32", "int8")
STATIC_SHAPES = False
REQUIREMENTS: Mapping[str, str] = {"onnxruntime": ">=1.17"}
DEVICE = "cpu"
AUTO_RANK: Optional[int] = 1
BY_NAME_ONLY = False
HOST_BOUND = False
FILE_NAME = "model.onnx"
OPSET = 17  # the first with LayerNormalization
# The optimizer's name for the layout that BERT, RoBERTa, ELECTRA and DistilBERT share.
GRAPH_FAMILY = "bert"
# What a session would do of itself and is slower for, as in _fuse.
SLOWER_FUSIONS = ["SkipLayerNormFusion"]
_INT8_PRODUCTS = ("MatMulInteger", "DynamicQuantizeMatMul", "MatMulIntegerToFloat", "QAttention")


def check_available(precision: str) -> None:
    """Raise BackendUnavailable unless onnxruntime is installed and has ``precision``."""
    if precision not in PRECISIONS:
        raise BackendUnavailable(
            f"onnxruntime has no precision {precision!r} on a CPU", hint=f"--precision {' or '.join(PRECISIONS)}"
        )
    require_libraries("onnxruntime")


def batch_invariant(precision: str) -> bool:
    """True: rows run by themselves where others would have a part in their outputs (``runs_rows_alone``)."""
    return True


def runs_rows_alone(precision: str) -> bool:
    """Whether a session runs rows by themselves: in int8 a whole batch would share one scale, found as it runs."""
    return precision == "int8"


def throughput_plan(threads: int) -> ThroughputPlan:
    """One stream per thread, and batches of 4 rows.

    On 2 cores with AVX2 that is 1.0 to 1.1 times as fast in FP32 as batches of 8 on both threads. In int8, where rows
    run by themselves, it is 0.87 (24 tokens) to 1.14 times (128 tokens) as fast as a shared scale would be.
    """
    return ThroughputPlan(streams=threads, rows=4, tokens=2048)


def recipes(precision: str) -> Sequence[Recipe]:
    """For int8, all products, then all but the head's.

    ``reduce_range`` keeps weights to 7 bits where the CPU adds u8 x s8 products in 16 bits, which overflow
    (onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
    """
    if precision != "int8":
        return [{}]
    shared = {"method": "dynamic", "per_channel": True, "reduce_range": not has_vnni()}
    return [{**shared, "keep_head": False}, {**shared, "keep_head": True}]


def export(source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
    """Export, fuse and, for int8, quantise.

    Raises BackendUnavailable without torch or onnx, OSError on a full disk, else BackendFailed.
    """
    require_libraries("torch", "onnx")
    import_onnxruntime()
    # Intermediate files are larger than the result and must not stay in the variant's folder.
    size = model_bytes(source.torch_model())
    with tempfile.TemporaryDirectory(dir=str(folder)) as scratch, silence_onnx_exporters(), disk_errors(folder, size):
        plain = Path(scratch) / "plain.onnx"
        _export_plain(source, plain)
        fused = _fuse(plain)
        if precision == "int8":
            _quantize(fused, recipe, Path(scratch), folder / FILE_NAME)
        else:
            fused.save_model_to_file(str(folder / FILE_NAME))
    overflows = precision == "int8" and not recipe["reduce_range"]
    return ExportResult(
        batch_invariant=batch_invariant(precision),
        requires={"cpu_flags": [VNNI] if overflows else [], "libraries": dict(REQUIREMENTS), "device": "cpu"},
        versions=library_versions(("torch", "transformers", "onnx", "onnxruntime")),
        recipe={**recipe, "opset": OPSET, "fusions": _fusions(fused)},
    )


@optional_imports()
def _export_plain(source: ExportSource, path: Path) -> None:
    import torch

    model, inputs = traceable(source)
    axes = {name: {0: "rows", 1: "tokens"} for name in source.input_names}
    for output in source.outputs:
        axes[output.name] = {0: "rows", 1: "tokens"} if output.per == PER_TOKEN else {0: "rows"}
    options: Dict[str, Any] = {} if _before_dynamo(torch) else {"dynamo": False}
    try:
        with torch.no_grad():
            # The tracing exporter: its graphs are the ones that ONNX Runtime's fusions recognise (the newer one's
            # attention is left in small operators: onnxruntime 1.31, torch 2.13).
            torch.onnx.export(
                model, inputs, str(path), input_names=list(source.input_names),
                output_names=[output.name for output in source.outputs], dynamic_axes=axes, opset_version=OPSET,
                **options,
            )  # fmt: skip
    except (RuntimeError, ValueError, TypeError) as error:
        raise BackendFailed(f"torch cannot export this model to ONNX: {error}", hint="--backend openvino") from error
    _rewrite(path)


@optional_imports()
def _rewrite(path: Path) -> None:
    """Write the graph as ONNX Runtime's fusions look for it."""
    import onnx

    model = onnx.load(str(path))
    makers = {output: node for node in model.graph.node for output in node.output}
    _divide_scores(model.graph, makers)
    _count_heads(model.graph, makers)
    onnx.save(model, str(path))


@optional_imports()
def _divide_scores(graph: Any, makers: Mapping[str, Any]) -> None:
    """Write scores * c + mask as scores / (1/c) + mask, as BERT was first written.

    ONNX Runtime's attention fusion looks for the mask behind the first Mul it meets, and that is this one.
    """
    import onnx

    sums = [
        node
        for node in graph.node
        if node.op_type == "Add" and all(_is(makers.get(name), "Mul") for name in node.input)
    ]
    for scale in {id(node): node for add in sums for node in (makers[add.input[0]],)}.values():
        if not (_is(makers.get(scale.input[0]), "MatMul") and _is(makers.get(scale.input[1]), "Constant")):
            continue
        constant = makers[scale.input[1]].attribute[0].t
        factor = onnx.numpy_helper.to_array(constant)
        divisor = onnx.numpy_helper.from_array(np.asarray(1 / factor, dtype=factor.dtype), name=f"{scale.name}/divisor")
        graph.initializer.append(divisor)
        scale.op_type, scale.input[1] = "Div", divisor.name


@optional_imports()
def _count_heads(graph: Any, makers: Mapping[str, Any]) -> None:
    """Write the number of heads into the shapes that leave it to be found (-1): it differs between pruned layers.

    The attention fusion would take the config's number for all of them, and compute something else.
    """
    import onnx

    biases = {each.name: each.dims[0] for each in graph.initializer if len(each.dims) == 1}
    for node in graph.node:
        if node.op_type != "Reshape":
            continue
        values, shape = makers.get(node.input[0]), makers.get(node.input[1])
        if values is None or shape is None or (values.op_type, shape.op_type, len(shape.input)) != ("Add", "Concat", 4):
            continue
        heads, width = (_constant_of(makers.get(name)) for name in shape.input[2:])
        outputs = next((biases[name] for name in values.input if name in biases), None)
        if heads == -1 and width is not None and outputs is not None:
            counted = onnx.numpy_helper.from_array(np.array([outputs // width], np.int64), name=f"{node.name}/heads")
            graph.initializer.append(counted)
            shape.input[2] = counted.name


@optional_imports()
def _constant_of(node: Any) -> Optional[int]:
    """The one number of a Constant; None for anything else."""
    import onnx

    if not _is(node, "Constant"):
        return None
    values = onnx.numpy_helper.to_array(node.attribute[0].t)
    return int(values.item()) if values.size == 1 else None


def _is(node: Any, op_type: str) -> bool:
    return node is not None and node.op_type == op_type


def _before_dynamo(torch: Any) -> bool:
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) < (2, 5)


@optional_imports()
def _fuse(path: Path) -> Any:
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions(GRAPH_FAMILY)
    # Its one operator for a sum and the normalisation of that is slower than two: a model takes 1.07 times as long
    # with it (onnxruntime 1.31, docs/measurements.md). SLOWER_FUSIONS keeps sessions from it.
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    # opt_level 0: the session applies ONNX Runtime's own optimisations when it loads, for the CPU it then finds.
    # No numbers of heads and features: each layer's are read off its shapes, or its attention is left as it is.
    return optimizer.optimize_model(
        str(path),
        model_type=GRAPH_FAMILY,
        num_heads=0,
        hidden_size=0,
        opt_level=0,
        use_gpu=False,
        optimization_options=options,
    )


def _fusions(fused: Any) -> Dict[str, int]:
    return {name: count for name, count in fused.get_fused_operator_statistics().items() if count}


@optional_imports()
def _quantize(fused: Any, recipe: Recipe, scratch: Path, path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    source = scratch / "fused.onnx"
    fused.save_model_to_file(str(source))
    excluded = _head_nodes(fused.model.graph) if recipe["keep_head"] else []
    quantize_dynamic(
        str(source),
        str(path),
        per_channel=recipe["per_channel"],
        reduce_range=recipe["reduce_range"],
        weight_type=QuantType.QInt8,
        nodes_to_exclude=excluded,
        op_types_to_quantize=["MatMul", "Attention"],
        # ONNX's shape inference does not know the fused operators; all their outputs are float32.
        extra_options={"DefaultTensorType": 1},
    )


def _head_nodes(graph: Any) -> Sequence[str]:
    """The node of the graph's last product, which is the head's."""
    return [node.name for node in graph.node if node.op_type == "MatMul"][-1:]


def load(
    folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int
) -> "OnnxRuntimeSession":
    """Open the model. Raises BackendUnavailable without onnxruntime, BackendFailed when it refuses the file."""
    check_available("fp32")
    onnxruntime = import_onnxruntime()
    path = folder / FILE_NAME
    with engine_errors(f"onnxruntime {onnxruntime.__version__} cannot load {path}", hint="compile the artifact again"):
        session = open_session(path, session_options(threads, streams))
        return OnnxRuntimeSession(session, outputs, streams, _precision(session, path))


def session_options(threads: int, streams: int) -> Any:
    """How ``streams`` batches at once run on ``threads``."""
    options = import_onnxruntime().SessionOptions()
    # The calling threads compute too, and the pool's threads are shared by all calls: together they are ``threads``.
    options.intra_op_num_threads = max(1, threads - streams + 1)
    options.inter_op_num_threads = 1
    # A thread that spins takes the core that another stream could compute on. With one stream it is worth it, for now:
    # 5 to 20 % of the speed alone, and beside one busy process, or two, 48 and 42 % are left (docs/measurements.md).
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if streams == 1 else "0")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    options.log_severity_level = 3
    return options


def open_session(path: Path, options: Any) -> Any:
    """ONNX Runtime's session of a model, with ``session_options``; raises whatever that does."""
    # Its fallback to the same provider would tell of the failure on stdout, which is for a command's result.
    return import_onnxruntime().InferenceSession(
        str(path),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=SLOWER_FUSIONS,
        enable_fallback=0,
    )


def _precision(session: Any, path: Path) -> str:
    """int8 when ONNX Runtime was given an integer product to run, fp32 when it was given none."""
    if hasattr(session, "get_provider_graph_assignment_info"):  # 1.24
        operators = {node.op_type for part in session.get_provider_graph_assignment_info() for node in part.get_nodes()}
    else:
        operators = _named_in(path)
    return "int8" if operators & set(_INT8_PRODUCTS) else "fp32"


def _named_in(path: Path) -> Set[str]:
    """The integer products that an ONNX file names: the runtime runs what the file says, and no onnx is needed here."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return {name for name in _INT8_PRODUCTS if data.find(name.encode()) >= 0}


class OnnxRuntimeSession:
    """An ONNX Runtime session; calls from several threads share its weights and its pool."""

    def __init__(self, session: Any, outputs: Sequence[Output], concurrency: int, precision: str):
        self.concurrency = concurrency
        self.precision = precision
        self._session = session
        self._outputs = tuple(outputs)
        self._names = [output.name for output in outputs]
        self._inputs = [argument.name for argument in session.get_inputs()]

    def run(self, batch: Batch) -> Outputs:
        """The outputs of the batch. Raises BackendFailed when the engine refuses the batch."""
        session = self._session
        if session is None:
            raise BackendFailed("this session is closed")
        rows, tokens = batch.input_ids.shape
        what = f"onnxruntime failed on a batch of shape {(rows, tokens)}"
        with engine_errors(what, hint="neuronbert doctor, or another variant"):
            if not runs_rows_alone(self.precision):
                return self._run(session, batch)
            alone = (self._run_alone(session, _alone(batch, row)) for row in range(rows))
            return joined([fit_tokens(outputs, self._outputs, tokens) for outputs in alone])

    def _run_alone(self, session: Any, row: Batch) -> Outputs:
        # Where outputs are filled up to the batch's tokens, nobody later would see that there are too few.
        return refuse_misshapen(self._run(session, row), self._outputs, *row.input_ids.shape)

    def _run(self, session: Any, batch: Batch) -> Outputs:
        fields = batch._asdict()
        arrays = session.run(self._names, {name: np.ascontiguousarray(fields[name]) for name in self._inputs})
        return named(self._outputs, arrays)

    def close(self) -> None:
        """Release the weights; runs that are under way end as usual."""
        self._session = None


def _alone(batch: Batch, row: int) -> Batch:
    """One row without the padding behind it: other rows and padding would have a part in its scales."""
    (attended,) = np.nonzero(batch.attention_mask[row])
    tokens = attended[-1] + 1 if len(attended) else batch.attention_mask.shape[1]
    return Batch(*(field[row : row + 1, :tokens] for field in batch))
