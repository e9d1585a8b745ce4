"""Many processes that answer as one: ``Runner``. In reading order:

runner              what callers see: tokenises in the caller's thread, lets requests in or refuses them
placement           which cores and threads each worker gets
dispatcher          the one thread that moves requests to workers and results back
batching            which rows leave together, and when (pure)
supervision         a worker's process: start, end, cause of death, back-off
worker              inside that process
publishing          what `neuronbert top` sees of it
requests, frames, statistics, events
"""

from neuronbert.runner.requests import Answered
from neuronbert.runner.runner import Runner

__all__ = ["Answered", "Runner"]
