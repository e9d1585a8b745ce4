"""Registers the operators of a compiled module, neuron::forward_v2_<outputs>; runtime.py runs them."""

import contextlib
import hashlib
import threading
import weakref
from typing import Any, Dict, Iterator, List, Optional, Protocol, Sequence, Tuple, Union

import torch

from neuronbert.emulator.execution import LoadedProgram
from neuronbert.emulator.loaded import ANYWHERE, LoadedModel, Placement
from neuronbert.emulator.neff import MAGIC, read_neff

MAX_OUTPUTS = 64
HANDLE = "_neuronbert_model"  # on a payload tensor: the model it became on the device


class DeviceRuntime(Protocol):
    """What the operators ask of the runtime."""

    def load(self, program: LoadedProgram, placement: Placement) -> LoadedModel:
        """Puts a model on cores."""

    def execute(self, model: LoadedModel, inputs: Sequence[torch.Tensor]) -> List[torch.Tensor]:
        """One inference."""

    def unload(self, model: LoadedModel) -> None:
        """Takes a model off its cores."""


_library: Any = None  # torch.library.Library
_runtime: Optional[DeviceRuntime] = None
_programs: "weakref.WeakValueDictionary[bytes, LoadedProgram]" = weakref.WeakValueDictionary()
_load_lock = threading.Lock()
_compiling = threading.local()
last_failure = threading.local()  # .error: what an operator raised last in this thread


def register(runtime: DeviceRuntime) -> None:
    """Makes the operators known to torch, once a process, and ``runtime`` what runs them."""
    global _library, _runtime
    _runtime = runtime
    if _library is not None:
        return
    _library = torch.library.Library("neuron", "DEF")
    for outputs in range(1, MAX_OUTPUTS + 1):
        returns = "Tensor" if outputs == 1 else f"({', '.join(['Tensor'] * outputs)})"
        _library.define(f"forward_v2_{outputs}(Tensor[] inputs, Tensor model) -> {returns}")
        _library.impl(f"forward_v2_{outputs}", forward, "CompositeExplicitAutograd")


def call(inputs: List[torch.Tensor], payload: torch.Tensor, outputs: int) -> Tuple[torch.Tensor, ...]:
    """The operator as Python sees it; always a tuple."""
    result = getattr(torch.ops.neuron, f"forward_v2_{outputs}")(inputs, payload)
    return (result,) if isinstance(result, torch.Tensor) else tuple(result)


@contextlib.contextmanager
def compiling() -> Iterator[None]:
    """Inside, the operators compute without a device: a model can be traced on any machine."""
    _compiling.active = True
    try:
        yield
    finally:
        _compiling.active = False


def is_compiling() -> bool:
    """True inside ``compiling``."""
    return getattr(_compiling, "active", False)


def forward(inputs: Sequence[torch.Tensor], payload: torch.Tensor) -> Union[torch.Tensor, Tuple[torch.Tensor, ...]]:
    """What torch calls for neuron::forward_v2_<n>."""
    try:
        if is_compiling():
            outputs = program_of_payload(payload).run_stages(inputs)
        else:
            outputs = _registered().execute(loaded(payload), inputs)
    except Exception as error:
        last_failure.error = error
        raise
    return outputs[0] if len(outputs) == 1 else tuple(outputs)


def loaded(payload: torch.Tensor) -> LoadedModel:
    """The model on the device, loaded now if it is not yet. One tensor is one load: a copy is another."""
    handle: Optional[_Handle] = getattr(payload, HANDLE, None)
    if handle is None or handle.runtime is not _runtime:
        with _load_lock:
            handle = getattr(payload, HANDLE, None)
            if handle is None or handle.runtime is not _runtime:
                handle = _load(payload, ANYWHERE)
    return handle.model


class _Handle:
    """Ties a model on the device to the tensor it came from: when the tensor goes, so does the model."""

    def __init__(self, runtime: DeviceRuntime, model: LoadedModel):
        self.runtime = runtime
        self.model = model
        weakref.finalize(self, runtime.unload, model).atexit = False


def _load(payload: torch.Tensor, placement: Placement) -> _Handle:
    runtime = _registered()
    handle = _Handle(runtime, runtime.load(program_of_payload(payload), placement))
    setattr(payload, HANDLE, handle)
    return handle


def _registered() -> DeviceRuntime:
    assert _runtime is not None, "the operators are not registered"
    return _runtime


def place(payload: torch.Tensor, placement: Placement) -> None:
    """Unloads a model and loads it where it is asked to be."""
    with _load_lock:
        if hasattr(payload, HANDLE):
            delattr(payload, HANDLE)
        _load(payload, placement)


def program_of_payload(payload: torch.Tensor) -> LoadedProgram:
    """The program in a payload; copies of one model share it."""
    content = payload.detach().numpy().tobytes()
    key = hashlib.sha256(content).digest()
    program = _programs.get(key)
    if program is None:
        program = LoadedProgram(read_neff(content))
        _programs[key] = program
    return program


def payloads_of(module: torch.nn.Module) -> Dict[str, torch.Tensor]:
    """The compiled subgraphs inside a traced module, by buffer name."""
    magic = torch.tensor(list(MAGIC), dtype=torch.uint8)
    return {
        name: buffer
        for name, buffer in module.named_buffers()
        if buffer.dtype == torch.uint8 and buffer.dim() == 1 and torch.equal(buffer[: len(MAGIC)], magic)
    }
