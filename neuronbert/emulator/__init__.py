"""Emulates AWS Inferentia 1: stands in for torch_neuron and the Neuron runtime, and keeps their documented contract.

``backends``' table, ``benchmark``, ``cli`` and the tools may import it; a backend may not, so that none knows whether
its torch_neuron is the real one. It imports only ``hardware`` and ``errors``.

``NEURONBERT_EMULATE=inf1.xlarge`` in the environment of a command, or ``use("inf1.xlarge")`` in Python, turns it on:
code written for inf1 then runs unchanged. In reading order:

    activation, current, emulator_settings,     turning it on, what is on now, what can be asked for,
        faults, unknowns, modules               failures by name, what no source settles, what import finds
    api, tracing, graph, partition, operators   torch.neuron.trace: what is compiled and what stays on the CPU
    neuron_cc, neff, arithmetic                 the compiler, its file, its 16 bit arithmetic
    compiled_ops, jit_load, loaded, execution   the operator in a compiled module, loading a saved one, the model on
                                                the device, running it
    runtime, device_memory                      the cores and the memory that models run on
    nrt_settings, reservation, placement        which cores those are
    experimental, data_parallel                 the rest of torch_neuron
    calls, recordings, timed, core_clock        timed mode: recorded answers after the time the hardware would take,
                                                which hardware/device_model.py says
    nrt_log, trace_log, inference_counters,     what is logged, counted and shown
        tools, __main__
"""

from neuronbert.emulator.activation import has_device, recording, state, stop, use, use_environment, use_if_no_device
from neuronbert.emulator.current import settings

__all__ = ["has_device", "recording", "settings", "state", "stop", "use", "use_environment", "use_if_no_device"]
