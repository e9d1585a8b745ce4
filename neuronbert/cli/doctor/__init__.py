"""The doctor: facts about this machine are gathered, then judged, one check a line; each fault with its remedy.

In reading order ``facts``, ``machine_checks``, ``neuron_checks``, ``gpu_checks``, ``examination``. Only the verb
may import it.
"""
