"""The Inferentia twin: stands in for torch_neuron and the Neuron runtime, and keeps their documented contract.

``NEURONBERT_EMULATE=inf1.xlarge`` in the environment of a command, or ``use("inf1.xlarge")`` in Python, turns it
on; ``import torch_neuron`` is then the twin, and code written for inf1 runs unchanged. In reading order:

    activation, settings, faults, modules      turning it on, what it is asked to be, what import finds
    api, tracing, graph, partition, operators  torch.neuron.trace: what is compiled and what stays on the CPU
    neuron_cc, neff, arithmetic                the compiler, its file, its 16 bit arithmetic
    ops, loaded, runtime, execution            the operator in a loaded module, the cores it runs on
    nrt_settings, reservation, placement       which cores those are
    experimental, data_parallel                the rest of torch_neuron
    calls, timed, device_model                     how long the hardware would take
    nrt_log, trace_log, statistics, tools      what is logged, counted and shown
"""

from neuronbert.emulator.activation import (
    has_device,
    recording,
    settings,
    state,
    stop,
    use,
    use_environment,
    use_if_no_device,
)

__all__ = ["has_device", "recording", "settings", "state", "stop", "use", "use_environment", "use_if_no_device"]
