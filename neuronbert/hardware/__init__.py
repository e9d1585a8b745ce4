"""What a machine is: CPUs, NeuronCores, what the Neuron driver says, how fast the device is, what instances cost.

Files are a machine's too: ``untrusted`` and ``schema`` read those that nobody vouches for.

The lowest folder: every other one may import it, and it imports nothing but ``errors``.
"""
