"""Keeps libraries from printing, logging, warning and reporting home; backends import and call them through it."""

import ctypes
import importlib
import logging
import os
import sys
import threading
import warnings
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from typing import Any, Iterator, TextIO

from neuronbert.hardware.libraries import optional_imports

_NO_ONNXRUNTIME_TELEMETRY = "ORT_DISABLE_TELEMETRY"
# Else TVM compiles an extension of some releases of torch into the home folder, where torch is loaded.
NO_TORCH_EXTENSION = "TVM_FFI_DISABLE_TORCH_C_DLPACK"
NO_TVM_COMPILER = "TVM_USE_RUNTIME_LIB"  # of all that TVM reads where it is set, and a compile must not see

_importing = threading.RLock()  # libraries whose variables are read once: one that is set is for one import


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what anything in the process prints to stderr, native libraries too: stdout is for a command's result.

    Works on file descriptors 1 and 2 and on ``sys.stdout``, and puts back the ones that were there. A process without
    stdout or stderr is left as it is.
    """
    with _stdout_as(2, sys.stderr):
        yield


@contextmanager
def stdout_discarded() -> Iterator[None]:
    """Let what anything in the process prints to stdout go nowhere: the progress bars of a library, not its errors."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere, _stdout_as(nowhere.fileno(), nowhere):
        yield


@contextmanager
def _stdout_as(descriptor: int, replacement: TextIO) -> Iterator[None]:
    stream = sys.stdout
    try:
        stream.flush()
        saved = os.dup(1)
    except (OSError, ValueError, AttributeError):
        yield
        return
    try:
        os.dup2(descriptor, 1)
        sys.stdout = replacement
        yield
    finally:
        try:
            sys.stdout = stream
            ctypes.CDLL(None).fflush(None)  # what native libraries printed is still in C's buffer when stdout is a pipe
        finally:  # whatever a second Ctrl-C interrupts: the result that follows is for stdout
            os.dup2(saved, 1)
            os.close(saved)


def import_without_telemetry(name: str) -> Any:
    """Import openvino, nncf or a module of theirs without openvino_telemetry.

    That package writes to the home folder and reports to its maker, and both libraries run without it. If the
    caller's own code imported it before, it is left as it is.
    """
    with hidden_module("openvino_telemetry"), optional_imports():
        return importlib.import_module(name)


@contextmanager
def hidden_module(name: str) -> Iterator[None]:
    """Inside, importing the module ``name`` fails in this thread, unless it was imported before, in whichever."""
    hidden = _Hidden(name)
    sys.meta_path.insert(0, hidden)
    try:
        yield
    finally:
        sys.meta_path.remove(hidden)


class _Hidden(MetaPathFinder):
    """Finds no module called ``name`` for the thread that made it."""

    def __init__(self, name: str):
        self._name = name
        self._thread = threading.get_ident()

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """None, so that the next finder is asked."""
        if name == self._name and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {name!r}: it is not wanted here", name=name)


def import_onnxruntime() -> Any:
    """Import onnxruntime without its telemetry, which (1.31) writes to the home folder and reports from Linux too.

    The variable is read once, when the library is loaded; where a caller imported it before, telemetry is switched off.
    """
    with _importing, variable_set(_NO_ONNXRUNTIME_TELEMETRY), optional_imports():
        onnxruntime = importlib.import_module("onnxruntime")
    onnxruntime.disable_telemetry_events()
    return onnxruntime


@optional_imports("tvm")
def import_tvm_runtime() -> Any:
    """Import tvm without its compiler (260 MB) and without torch, unless either was imported before."""
    with _importing, variable_set(NO_TVM_COMPILER), variable_set(NO_TORCH_EXTENSION), hidden_module("torch"):
        importlib.import_module("tvm.runtime.vm")
        return importlib.import_module("tvm")


@contextmanager
def variable_set(name: str, value: str = "1") -> Iterator[None]:
    """Inside, the environment variable ``name`` is ``value``: libraries read theirs once, as when they are loaded."""
    previous = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if previous is None:
            del os.environ[name]
        else:
            os.environ[name] = previous


@contextmanager
def silence_onnx_exporters() -> Iterator[None]:
    """Keep the exporters' notes about their own deprecations and skipped fusions off the user's screen."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)


@contextmanager
def silence_nncf() -> Iterator[None]:
    """Keep NNCF's notes off the user's screen, and the warning in notebooks that its progress bar needs ipywidgets.

    ``nncf.set_log_level`` would set the level of every handler it finds, the application's own among them, for good.
    """
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*ipywidgets")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def silence_tracing_warnings() -> Iterator[None]:
    """Silence two transformers warnings that ``torch.jit.trace`` triggers, because it reads every attribute.

    One is about ``loss_function``: a model without a head has an unknown loss_type. The other is that
    ``is_gradient_checkpointing`` is deprecated. Nothing here uses either.
    """

    def is_other(record: logging.LogRecord) -> bool:
        return "loss_type=None" not in record.getMessage()

    log = logging.getLogger("transformers.modeling_utils")
    log.addFilter(is_other)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".is_gradient_checkpointing. is deprecated")
            yield
    finally:
        log.removeFilter(is_other)
