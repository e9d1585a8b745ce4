"""Which instance, mode, cores and batch size serve a model at a target: device model, queueing, price, and the reasons.

Only ``cli`` may import it.
"""
