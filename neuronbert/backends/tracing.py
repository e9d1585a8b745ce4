"""What the backends that trace the torch model share: the model, example inputs for it, and room for its files."""

import contextlib
import gc
import os
import tempfile
from pathlib import Path
from typing import Dict, Iterator, Tuple

import numpy as np

from neuronbert.backends.base import ExportSource
from neuronbert.checkpoint.families import Tensor, TorchModel, family_of, size_of
from neuronbert.hardware.libraries import optional_imports

# Unequal and above 1, so that no tracer takes a size for a constant, or one size for the other.
EXAMPLE_ROWS = 2
EXAMPLE_TOKENS = 12
EXAMPLE_PADDING = 3
# In a model's file, the graph around the weights takes a few megabytes at most.
GRAPH_BYTES = 4 << 20
PROBE_BYTES = 1 << 20


@optional_imports()
def traceable(source: ExportSource) -> Tuple[TorchModel, Tuple[Tensor, ...]]:
    """The FP32 model and a tuple of example tensors, one for each of ``source.input_names``, in that order.

    The last row of the examples ends in padding, so that no tracer finds a mask that is all ones and drops it.
    A model without token_type_ids has forward(input_ids, attention_mask) and is traced with two.
    """
    import torch

    family = family_of(source.config, "config.json")
    examples = example_inputs(size_of(source.config, family, "vocab_size"))
    return source.torch_model(), tuple(torch.from_numpy(examples[name]) for name in source.input_names)


@contextlib.contextmanager
def traces_forgotten() -> Iterator[None]:
    """Let torch forget, after the block, the class and graph of each module that was traced in it.

    It keeps them until the process ends, some megabytes for each compile. What forgets them takes the methods from all
    classes, so nothing is done while this process has a scripted module or class that is in use.
    """
    yield
    _forget_traces()


@optional_imports()
def _forget_traces() -> None:
    import torch

    gc.collect()
    in_use = any(issubclass(type(thing), torch.jit.ScriptModule) for thing in gc.get_objects())
    forget = getattr(torch._C, "_jit_clear_class_registry", None)
    if forget is not None and not in_use and not getattr(torch.jit._state, "_script_classes", None):
        forget()


def example_inputs(vocabulary: int, rows: int = EXAMPLE_ROWS, tokens: int = EXAMPLE_TOKENS) -> Dict[str, np.ndarray]:
    """Three int64 arrays of shape [rows, tokens] with token ids below ``vocabulary``, always the same ones."""
    shape = (rows, tokens)
    mask = np.ones(shape, dtype=np.int64)
    mask[-1, -EXAMPLE_PADDING:] = 0
    ids = np.random.default_rng(0).integers(min(5, vocabulary - 1), vocabulary, size=shape, dtype=np.int64)
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros(shape, dtype=np.int64)}


def model_bytes(model: TorchModel) -> int:
    """The most bytes that a file of the FP32 torch ``model`` takes."""
    weights = sum(int(parameter.numel()) * 4 for parameter in model.parameters())
    return weights + GRAPH_BYTES


@contextlib.contextmanager
def disk_errors(folder: Path, size: int) -> Iterator[None]:
    """Raise the file system's own OSError where a native writer failed and ``folder`` has no room for ``size`` bytes.

    OpenVINO and torch raise the same RuntimeError for a full disk as for a broken model.
    """
    try:
        yield
    except OSError:
        raise
    except Exception:  # whatever the library turned it into
        require_room(folder, size)
        raise


def require_room(folder: Path, size: int) -> None:
    """Write ``size`` bytes into ``folder`` and remove them: OSError on a full disk, a used up quota, or a limit."""
    # Random, for file systems that compress.
    block = os.urandom(PROBE_BYTES)
    with tempfile.TemporaryFile(dir=str(folder), buffering=0) as file:
        while size > 0:
            size -= file.write(block[:size])
