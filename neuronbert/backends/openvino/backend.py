"""OpenVINO on the CPU: converted from torch, int8 by NNCF (int8.py), one infer request per batch that runs at once."""

import queue
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from neuronbert.backends.base import Batch, ExportResult, ExportSource, Recipe, ThroughputPlan, Variant, engine_errors
from neuronbert.backends.outputs import Output, Outputs, fit_tokens, named
from neuronbert.backends.quiet import import_without_telemetry
from neuronbert.backends.tracing import GRAPH_BYTES, disk_errors, traceable
from neuronbert.checkpoint.families import Config, family_of, size_of, usable_positions
from neuronbert.errors import BackendFailed, BackendUnavailable
from neuronbert.hardware.libraries import optional_imports, require_libraries
from neuronbert.hardware.machine import BF16, VNNI, has_bf16, has_vnni, library_version, library_versions

if TYPE_CHECKING:  # the first answer does not wait for what only compile needs
    from neuronbert.backends.openvino.int8_graph import Model

PRECISIONS: Tuple[str, ...] = ("fp32", "bf16", "int8")
STATIC_SHAPES = False
REQUIREMENTS: Mapping[str, str] = {"openvino": ">=2024.4"}
DEVICE = "cpu"
AUTO_RANK: Optional[int] = 0
BY_NAME_ONLY = False
HOST_BOUND = False
FILE_NAME = "openvino_model.xml"
# OpenVINO's attention kernel handles 16 tokens at a time and is slow on a remainder. Over XQuAD's lengths (2 cores,
# int8) padding to 16 makes the demo, with heads of 32, 3 % faster though 5 % more tokens are computed; BERT-base, with
# heads of 64 and a smaller share of attention, becomes 3 % slower.
TOKEN_MULTIPLE = 16
SMALL_HEAD = 32

# The products' types in a compiled model, by OpenVINO's names → the names of precisions here.
_PRECISION_OF = {"f32": "fp32", "bf16": "bf16", "f16": "fp16", "u8": "int8", "i8": "int8"}
_PRODUCTS = ("FullyConnected", "MatMul")


def check_available(precision: str) -> None:
    """Raise BackendUnavailable unless openvino is installed and this CPU computes in ``precision`` itself."""
    if precision not in PRECISIONS:
        raise BackendUnavailable(
            f"openvino has no precision {precision!r} on a CPU", hint=f"--precision {' or '.join(PRECISIONS)}"
        )
    require_libraries("openvino")
    if precision == "bf16" and not has_bf16():
        raise BackendUnavailable(
            f"this CPU cannot multiply bf16: it has none of the flags {BF16.replace('|', ', ')}",
            hint="--precision int8 or fp32",
        )


def batch_invariant(precision: str) -> bool:
    """True: int8 scales are fixed by calibration."""
    return True


def throughput_plan(threads: int) -> ThroughputPlan:
    """One stream per thread: a batch that stays on one core never waits, operator after operator, for the other cores.

    On 2 cores 2 streams of 1 thread answer 1.06 (BERT-base) to 1.11 (demo) times as many questions as 1 stream of 2.
    The batch matters less: of 1 to 16 rows, 8 were fastest on the demo (1 row 11 % slower, 16 rows 7 %), and 4 to 8 on
    BERT-base: they reuse the weights while they are cached, and their activations still fit there too.
    """
    return ThroughputPlan(streams=threads, rows=8, tokens=2048)


def recipes(precision: str) -> Sequence[Recipe]:
    """For int8, those of int8.py, the fastest first; one empty recipe for the others."""
    if precision != "int8":
        return [{}]
    from neuronbert.backends.openvino.int8 import int8_recipes

    # With bf16 between the int8 products this engine answers 1.07 times as many questions (BERT-base and the demo).
    return int8_recipes(overflow_fix=not has_vnni(), rest="bf16" if has_bf16() else "f32")


def export(source: ExportSource, precision: str, recipe: Recipe, folder: Path) -> ExportResult:
    """Convert and, for int8, quantise.

    Raises BackendUnavailable without torch or NNCF, BackendFailed on failure, OSError on a full disk.
    """
    require_libraries("torch", *(["nncf"] if precision == "int8" else []))
    openvino = import_without_telemetry("openvino")
    model = _convert(source)
    if precision == "int8":
        from neuronbert.backends.openvino.int8 import quantize

        model, recipe = quantize(model, _calibration(source), recipe, source.on_step)
    # Half precision weights would be read back as FP32, but rounded.
    with disk_errors(folder, _bytes_of(model)):
        openvino.save_model(model, str(folder / FILE_NAME), compress_to_fp16=False)
    return ExportResult(
        batch_invariant=True,
        requires={"cpu_flags": _cpu_flags(precision, recipe), "libraries": dict(REQUIREMENTS), "device": "cpu"},
        versions=library_versions(("torch", "transformers", "nncf", "openvino")),
        recipe={**recipe, "padding": _padding(source.config)},
    )


def _bytes_of(model: "Model") -> int:
    constants = [node for node in model.get_ops() if node.get_type_name() == "Constant"]
    return sum(int(node.get_byte_size()) for node in constants) + GRAPH_BYTES


def _padding(config: Config) -> Dict[str, int]:
    family = family_of(config, "config.json")
    head = size_of(config, family, "hidden_size") // size_of(config, family, "num_attention_heads")
    return {
        "multiple": TOKEN_MULTIPLE if head <= SMALL_HEAD else 1,
        "limit": usable_positions(config, family),
        "pad_id": size_of(config, family, "pad_token_id"),
    }


def _cpu_flags(precision: str, recipe: Recipe) -> List[str]:
    if precision == "bf16":
        return [BF16]
    return [VNNI] if precision == "int8" and not recipe["overflow_fix"] else []


def _convert(source: ExportSource) -> "Model":
    openvino = import_without_telemetry("openvino")
    with optional_imports():
        import torch

    module, inputs = traceable(source)
    try:
        with torch.no_grad():
            model = openvino.convert_model(module, example_input=inputs)
    except Exception as error:  # the converter raises whatever torch's tracer or its own checks raise
        raise BackendFailed(
            f"openvino cannot convert this model: {error}", hint="--backend onnxruntime or torchscript"
        ) from error
    for port, name in zip(model.inputs, source.input_names):
        port.get_tensor().set_names({name})
    for port, output in zip(model.outputs, source.outputs):
        port.get_tensor().set_names({output.name})
    return model


def _calibration(source: ExportSource) -> List[Dict[str, np.ndarray]]:
    return [{name: getattr(batch, name) for name in source.input_names} for batch in source.calibration()]


def load(folder: Path, variant: Variant, *, outputs: Sequence[Output], threads: int, streams: int) -> "OpenVinoSession":
    """Compile the model for this CPU. Raises BackendUnavailable without openvino, BackendFailed on bad files."""
    check_available(variant["precision"])
    openvino = import_without_telemetry("openvino")
    options = compile_options(variant, threads, streams)
    what = f"openvino {library_version('openvino')} cannot load {folder / FILE_NAME}"
    with engine_errors(what, hint="compile the artifact again"):
        compiled = openvino.Core().compile_model(str(folder / FILE_NAME), "CPU", options)
        return OpenVinoSession(compiled, outputs, streams, variant["recipe"].get("padding"))


def compile_options(variant: Variant, threads: int, streams: int) -> Dict[str, Any]:
    """How ``streams`` batches at once run on ``threads``."""
    return {
        "INFERENCE_PRECISION_HINT": _hint(variant),
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": streams,
        "ENABLE_CPU_PINNING": False,
    }


def _hint(variant: Variant) -> str:
    """The precision of what is not int8; without it, OpenVINO's own default is bf16 where the CPU has it.

    An int8 variant that passed the gate with bf16 beside it runs with FP32 beside it where the CPU has no bf16.
    """
    if variant["precision"] == "bf16":
        return "bf16"
    return "bf16" if variant["recipe"].get("rest") == "bf16" and has_bf16() else "f32"


class OpenVinoSession:
    """A compiled model and one infer request for each batch that may run at once."""

    def __init__(
        self,
        compiled: Any,
        outputs: Sequence[Output],
        concurrency: int,
        padding: Optional[Mapping[str, int]] = None,
    ):
        self.concurrency = concurrency
        self._outputs = tuple(outputs)
        self._padding = padding
        self.precision, self.products = _precision(compiled)
        self._inputs = [port.get_any_name() for port in compiled.inputs]
        # close() leaves a None among the requests, which each waiting call passes on to the next.
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(concurrency):
            self._requests.put(compiled.create_infer_request())
        self._closing = threading.Lock()
        self._closed = False

    def run(self, batch: Batch) -> Outputs:
        """The outputs of the batch; waits its turn. Raises BackendFailed on a refused batch."""
        if self._closed:
            raise BackendFailed("this session is closed")
        fields = pad_tokens(batch, self._padding)._asdict()
        request = self._requests.get()
        if request is None:
            self._requests.put(None)
            raise BackendFailed("this session was closed while a batch waited for its turn")
        what = f"openvino failed on a batch of shape {batch.input_ids.shape}"
        try:
            with engine_errors(what, hint="neuronbert doctor, or another variant"):
                request.infer([np.ascontiguousarray(fields[name]) for name in self._inputs], share_inputs=True)
                arrays = [request.get_output_tensor(index).data for index in range(len(self._outputs))]
                outputs = fit_tokens(named(self._outputs, arrays), self._outputs, batch.input_ids.shape[1])
                # Copied: the request writes its next results to the same memory.
                return {name: array.copy() for name, array in outputs.items()}
        finally:
            self._requests.put(request)

    def close(self) -> None:
        """Release the requests and the compiled model; waits for runs that are under way."""
        with self._closing:
            if not self._closed:
                self._closed = True
                for _ in range(self.concurrency):
                    self._requests.get()
                self._requests.put(None)


def pad_tokens(batch: Batch, padding: Optional[Mapping[str, int]]) -> Batch:
    """``batch`` with masked tokens added up to the next ``multiple`` that stays within the model's ``limit``."""
    if padding is None:
        return batch
    tokens = batch.input_ids.shape[1]
    extra = -tokens % padding["multiple"]
    if extra == 0 or tokens + extra > padding["limit"]:
        return batch
    fills = (padding["pad_id"], 0, 0)  # of ids, mask and token types
    return Batch(*(np.pad(field, ((0, 0), (0, extra)), constant_values=fill) for field, fill in zip(batch, fills)))


def _precision(compiled: Any) -> Tuple[str, Dict[str, int]]:
    """The precision that most products of the compiled model run in, and the number of products by precision."""
    types: Counter[str] = Counter()
    for node in compiled.get_runtime_model().get_ops():
        info = node.get_rt_info()
        if info["layerType"].astype(str) in _PRODUCTS:
            types[info["runtimePrecision"].astype(str)] += 1
    if not types:
        raise BackendFailed("the compiled model holds no matrix products", hint="compile the artifact again")
    precisions: Counter[str] = Counter()
    for name, count in types.items():
        precisions[_PRECISION_OF.get(name, name)] += count
    return precisions.most_common(1)[0][0], dict(precisions)
