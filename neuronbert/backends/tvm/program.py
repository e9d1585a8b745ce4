"""A model as Relax functions, from torch's export to a shared library, for compile_job.py; tuning.py is in between.

Products take their bias, activation or residual with them, weights are constants, and what schedules want of their
layout is done while compiling.
"""

import sys
import types
from pathlib import Path
from typing import Any, Callable, Dict

from neuronbert.hardware.libraries import optional_imports

# MetaSchedule imports the matrix instructions of GPUs and phones, a minute of parsing, and no schedule here has any.
sys.modules.setdefault("tvm.s_tir.tensor_intrin", types.ModuleType("tvm.s_tir.tensor_intrin"))

with optional_imports("tvm"):
    import torch
    import tvm
    from tvm import relax, te, tirx, topi
    from tvm.relax import transform
    from tvm.relax.backend.cpu_generic import pipeline as cpu_passes
    from tvm.relax.frontend.torch import from_exported_program

Module = Any  # tvm.IRModule: functions by name

_SQRT_HALF = 0.7071067811865476  # GELU(x) = x/2 · (1 + erf(x / √2))
_SQRT_2_OVER_PI, _CUBIC = 0.7978845608028654, 0.044715  # its approximation by tanh, as BERT's authors wrote it


def fused_program(exported: Path, target: Any) -> Module:
    """The model that torch.export saved, as functions of one fused operation each, not scheduled yet."""
    # Undecomposed: a linear layer on [rows, tokens, hidden] would else become one on two axes, between reshapes that
    # keep everything behind it from being fused.
    module = from_exported_program(torch.export.load(str(exported)), run_ep_decomposition=False)
    passes = [
        transform.DecomposeOpsForInference(),
        transform.CanonicalizeBindings(),
        transform.LegalizeOps(_LEGALIZED),
        transform.AnnotateTIROpPattern(),
        transform.FoldConstant(),
        transform.FuseOps(),
        transform.FuseTIR(),
        transform.AttachAttrLayoutFreeBuffers(),  # the constants
    ]
    with target:
        return tvm.transform.Sequential(passes)(module)


def save_library(program: Module, schedules: Any, target: Any, path: Path) -> None:
    """Compile the fused ``program`` with the best of ``schedules`` (a database), and link it at ``path``."""
    with target, schedules, tvm.transform.PassContext(opt_level=3):
        passes = [
            transform.MetaScheduleApplyDatabase(),
            transform.SplitLayoutRewritePreproc(),
            transform.FoldConstant(),
            transform.DeadCodeElimination(),
            *cpu_passes.dataflow_lower_passes(target),
            *cpu_passes.finalize_passes(target),
        ]
        built = relax.build(program, target, relax_pipeline=tvm.transform.Sequential(passes))
    built.export_library(str(path))


# ---------------------------------------------------------------------------- functions in vectors

# LLVM calls libm for exp, erf and tanh, one number at a time. TVM's polynomials are off by 3e-7 at most.


def _gelu(x: Any) -> Any:
    return topi.multiply(topi.multiply(x, 0.5), topi.add(topi.fast_erf(topi.multiply(x, _SQRT_HALF)), 1.0))


def _gelu_tanh(x: Any) -> Any:
    cubed = topi.multiply(topi.multiply(x, topi.multiply(x, x)), _CUBIC)
    inner = topi.multiply(topi.add(x, cubed), _SQRT_2_OVER_PI)
    return topi.multiply(topi.multiply(x, 0.5), topi.add(topi.fast_tanh(inner), 1.0))


def _elementwise(function: Callable[[Any], Any], name: str) -> Callable[[Any, Any], Any]:
    return lambda builder, call: builder.call_te(function, call.args[0], primfunc_name_hint=name)


def _softmax(builder: Any, call: Any) -> Any:
    return builder.call_te(topi.nn.fast_softmax, call.args[0], call.attrs.axis, primfunc_name_hint="softmax")


def _take(builder: Any, call: Any) -> Any:
    # torch's own mode reads whatever memory an index beyond the end points to; a token id may be anybody's.
    return builder.call_te(topi.take, *call.args, call.attrs.axis, mode="clip", primfunc_name_hint="take")


def _cumulative_sum(builder: Any, call: Any) -> Any:
    # RoBERTa's positions, of one row's length each. TVM's own is a program that no schedule can be found for.
    def summed(x: Any) -> Any:
        step = te.reduce_axis((0, x.shape[1]), name="step")
        return te.compute(
            x.shape,
            lambda row, token: te.sum(
                tirx.if_then_else(step <= token, x[row, step], tirx.const(0, x.dtype)), axis=step
            ),
            name="cumulative_sum",
        )

    if len(call.args[0].ty.shape) != 2 or int(call.attrs.axis) not in (1, -1):
        raise ValueError(f"a sum over axis {call.attrs.axis} of {call.args[0].ty}, where rows of tokens were expected")
    return builder.call_te(summed, call.args[0], primfunc_name_hint="cumulative_sum")


_LEGALIZED: Dict[str, Callable[[Any, Any], Any]] = {
    "relax.cumsum": _cumulative_sum,
    "relax.take": _take,
    "relax.erf": _elementwise(topi.fast_erf, "erf"),
    "relax.exp": _elementwise(topi.fast_exp, "exp"),
    "relax.tanh": _elementwise(topi.fast_tanh, "tanh"),
    "relax.nn.gelu": _elementwise(_gelu, "gelu"),
    "relax.nn.gelu_tanh": _elementwise(_gelu_tanh, "gelu_tanh"),
    "relax.nn.softmax": _softmax,
}
