"""What code is made for: the level of a CPU that all its flags reach, and the flags to be asked for elsewhere."""

from neuronbert.backends.tvm.cpu import Cpu, cpu_of

V3 = {"avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe"}
V4 = V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}


def test_the_highest_level_that_is_whole():
    for flags, mcpu, lanes, registers in ((V4, "x86-64-v4", 16, 32), (V3, "x86-64-v3", 8, 16)):
        cpu = cpu_of(flags | {"sse2"})
        assert (cpu.mcpu, set(cpu.flags), cpu.lanes, cpu.registers) == (mcpu, flags, lanes, registers)
    assert cpu_of(V4 - {"avx512vl"}).mcpu == "x86-64-v3"
    assert cpu_of((V3 | {"sse2"}) - {"fma"}, "x86_64") == Cpu("", ("sse2",), 4, 16)
    assert cpu_of({"asimd"}, "aarch64") == Cpu("", ("asimd",), 4, 32)


def test_the_target_names_the_level_and_the_threads():
    assert cpu_of(V3).target(6) == {"kind": "llvm", "num-cores": 6, "mcpu": "x86-64-v3"}
    assert cpu_of(set(), "x86_64").target(1) == {"kind": "llvm", "num-cores": 1}
