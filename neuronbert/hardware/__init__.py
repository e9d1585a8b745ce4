"""What a machine is: CPUs, NeuronCores, what the Neuron driver says, how fast the device is, what instances cost.

What else a program finds on the machine is here too: files that nobody vouches for (``untrusted``, ``schema``), folders
with names that others can guess (``own_places``), and which libraries are installed (``libraries``).

The lowest folder: every other one may import it, and it imports nothing but ``errors``.
"""
