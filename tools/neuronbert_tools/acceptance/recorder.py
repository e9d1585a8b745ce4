"""The steps of a run on a machine that is here for an hour, each recorded whether it works or fails."""

import resource
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, TypeVar

from neuronbert_tools.console import print_message

Result = TypeVar("Result")
Record = Dict[str, Any]


class Recorder:
    """What was found so far; ``save`` is called after every step."""

    def __init__(self, save: Callable[[Sequence[Record]], None]):
        self.steps: List[Record] = []
        self._save = save

    def step(self, name: str, work: Callable[[], Result]) -> Optional[Result]:
        """Run ``work`` and record what it returns or how it failed; None if it failed."""
        print_message(f"{name} …")
        started = time.perf_counter()
        record: Record = {"name": name}
        result: Optional[Result] = None
        try:
            result = work()
            record.update(ok=True, result=result)
        except Exception as error:
            record.update(ok=False, error=f"{type(error).__name__}: {error}")
            print_message(f"  failed: {error}")
        record["seconds"] = round(time.perf_counter() - started, 2)
        # Linux has it in KiB, of the largest process that has ended.
        record["largest_process_mb_so_far"] = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000
        self.steps.append(record)
        self._save(self.steps)
        return result
