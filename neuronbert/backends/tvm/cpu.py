"""The CPU that code is made for, as TVM's target and as the flags that a machine must have to run it. Pure."""

import platform
from typing import AbstractSet, Any, Dict, NamedTuple, Tuple

from neuronbert.hardware.machine import has_flag

# The levels of the x86-64 psABI, as Linux calls their flags. Code for a level runs wherever its flags are; code for the
# one model of CPU at hand would run on that model only, and be no faster where the loops are ours.
_V3 = ("avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe")
_V4 = (*_V3, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_FLOAT32_BITS = 32


class Cpu(NamedTuple):
    """What LLVM is told, what ``requires`` records, and the size of the unit that multiplies."""

    mcpu: str  # as LLVM names it; "" for what every machine of its kind has
    flags: Tuple[str, ...]
    lanes: int  # float32 of one vector
    registers: int  # vectors

    def target(self, threads: int) -> Dict[str, Any]:
        """TVM's target: schedules are measured with so many ``threads``."""
        return {"kind": "llvm", "num-cores": threads, **({"mcpu": self.mcpu} if self.mcpu else {})}


def cpu_of(flags: AbstractSet[str], machine: str = "") -> Cpu:
    """The best description that a CPU with ``flags`` (hardware.machine.cpu_flags) meets."""
    for mcpu, level, lanes, registers in (("x86-64-v4", _V4, 16, 32), ("x86-64-v3", _V3, 8, 16)):
        if all(has_flag(flags, flag) for flag in level):
            return Cpu(mcpu, level, lanes, registers)
    is_arm = (machine or platform.machine()) in ("aarch64", "arm64")
    # Every one of its kind has the flag, and none of the other, where the system says it.
    of_kind = tuple(flag for flag in ("asimd", "sse2") if has_flag(flags, flag))
    return Cpu("", of_kind, 128 // _FLOAT32_BITS, 32 if is_arm else 16)
