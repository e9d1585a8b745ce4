"""Which instance, mode, cores and batch size serve a model at a target: device models, queueing, price, reasons.

Only ``cli`` may import it. In reading order:

planning        plan: judge every candidate against the target, and rank them
configurations  the data: a target, a configuration
candidates      every configuration, predicted or measured
queueing        how long requests wait for one another
simulation      the same event by event, to check queueing
explanation     the plan in words
frontier        what costs least at each latency, and what others have published
picture         the plan as a picture
"""
