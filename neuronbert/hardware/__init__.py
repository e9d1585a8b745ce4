"""What a machine is: CPUs, NeuronCores, what the Neuron driver says, how fast the device is, what instances cost.

At the bottom of the house: every folder may import it, and it imports nothing but ``errors``.
"""
