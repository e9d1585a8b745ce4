"""The emulated device without a runner: a process for each core group asks it, all at the same time.

Its child's arguments: ARTIFACT BATCH_SIZE SECONDS IN_FLIGHT
"""

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import List, Sequence

from neuronbert import Engine
from neuronbert.artifact.manifest import load_artifact
from neuronbert.backends.child import python_environment
from neuronbert.hardware.cores import merged_environment
from neuronbert.runner.placement import place_workers
from neuronbert_tools.emulated_rows import recorded_windows
from neuronbert_tools.encoding import full_batches
from neuronbert_tools.load import closed_loop
from neuronbert_tools.processes import module_command


def device_latencies_s(artifact: Path, batch_size: int, seconds: float, in_flight: int) -> List[float]:
    """Latencies of all core groups together; they begin when the last of them has loaded."""
    command = module_command("measurements.device", artifact, batch_size, seconds, in_flight)
    processes = [
        subprocess.Popen(
            command,
            env=python_environment(merged_environment(place.variables)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for place in place_workers(load_artifact(artifact)).places
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    return [latency for process in processes for latency in json.loads(process.communicate()[0])]


def main(arguments: Sequence[str]) -> None:
    """The child: latencies in seconds of one core group as JSON on stdout, once stdin says to begin."""
    batch_size, seconds, in_flight = int(arguments[1]), float(arguments[2]), int(arguments[3])
    with Engine(Path(arguments[0])) as engine:
        turns = itertools.cycle(full_batches(recorded_windows(engine.tokenizer), batch_size, 0))
        print("ready", flush=True)
        sys.stdin.readline()
        latencies_s = closed_loop(in_flight, seconds, lambda: engine.session.run(next(turns)))
    print(json.dumps(latencies_s))
