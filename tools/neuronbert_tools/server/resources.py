"""What the main process of a server holds, for what attacks it to see whether it keeps more and more of it."""

import os
import time
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

from neuronbert_tools.server.served import Server

SETTLE_S = 60.0
LEAKS = ("descriptors", "threads", "children")  # where they grow; memory is reported: an allocator keeps some of it


def resources(server: Server) -> Dict[str, int]:
    """Of the server's main process: memory (MiB), the most that it ever had, file descriptors, threads and children."""
    proc = Path(f"/proc/{server.process.pid}")
    status = dict(line.split(":", 1) for line in (proc / "status").read_text().splitlines())
    children = (task / "children" for task in (proc / "task").iterdir())
    return {
        "memory_mib": int(status["VmRSS"].split()[0]) // 1024,
        "peak_mib": int(status["VmHWM"].split()[0]) // 1024,
        "descriptors": len(os.listdir(proc / "fd")),
        "threads": int(status["Threads"]),
        "children": sum(len(path.read_text().split()) for path in children),
    }


def settled(server: Server, before: Optional[Mapping[str, int]], leaks: Sequence[str] = LEAKS) -> Dict[str, int]:
    """Its resources once all workers are ready, and what has grown since ``before`` has had time to go."""
    end = time.monotonic() + SETTLE_S
    while time.monotonic() < end:
        if all(worker["state"] == "ready" for worker in server.workers):
            found = resources(server)
            if before is None or not grown(before, found, leaks):
                return found
        time.sleep(0.5)
    return resources(server)


def grown(before: Mapping[str, int], after: Mapping[str, int], leaks: Sequence[str] = LEAKS) -> List[str]:
    """Which of ``leaks`` have grown, in words."""
    return [f"{name} grew from {before[name]} to {after[name]}" for name in leaks if after[name] > before[name]]
