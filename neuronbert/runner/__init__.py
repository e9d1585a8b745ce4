"""Many processes that answer as one: ``Runner``. ``benchmark`` and everything above may import it.

In reading order, the way of a request:

runner              what callers see: tokenises in the caller's thread, gives out futures
admission           lets requests into the queue, or refuses them
room                how many rows may wait, and who is let in next
mapping             many inputs in their order
requests            what was asked, also of several as one, and where its time went
futures             what callers hold of it
callbacks           calls the users' functions in the runner's thread, which they cannot end
placement           which cores and threads each worker gets
settings            what the runner's thread is told when it is made
dispatcher          that thread's loop: inbox, sockets, clock, the end
loop_turns          has an event loop's thread do that thread's work, where a loop asks
inbox               what other threads ask of it
open_requests       each accepted request until its one outcome: deadlines, retries, failures
decoding            makes their results, those that take long in a thread of its own
deadlines           which of them is due next (pure)
batching            which rows leave together, and when (pure)
losses, suspicion   what a worker's death means for what it held, and when a request is poison (pure)
scheduler           gives batches to workers and takes their results
stacking            rows to a batch, a batch's result back to its rows (pure)
worker_pool         starts, watches and replaces the workers
supervision         one worker's process: start, end, cause of death, back-off
messages, frames    what runner and worker say to each other, and how it travels
worker_process      inside that process
counters, events    what happened, in numbers and one by one
documents           what a runner says of itself, as JSON data
publishing          what `neuronbert top` sees of it
sigterm             SIGTERM finishes what was accepted
job                 a file of questions through the runner, for `neuronbert run`
job_input           that file, in blocks of lines
core_environment    the variables of `neuronbert env`
"""

import importlib
from typing import Any

# Imported on use: `neuronbert env` and `top` are in this folder too, and need no engine.
_EXPORTED = {
    "Answered": "neuronbert.runner.requests",
    "Prepared": "neuronbert.runner.requests",
    "Runner": "neuronbert.runner.runner",
}


def __getattr__(name: str) -> Any:
    if name not in _EXPORTED:
        raise AttributeError(f"module 'neuronbert.runner' has no attribute {name!r}")
    return getattr(importlib.import_module(_EXPORTED[name]), name)
