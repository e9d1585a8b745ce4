"""Where the tools find the checkout and its data, and where they keep what the next run needs."""

import os
from pathlib import Path

TOOLS = Path(__file__).resolve().parents[1]
ROOT = TOOLS.parent
PACKAGE = ROOT / "neuronbert"
DEMO = ROOT / "examples" / "demo-checkpoint" / "neuronbert_demo" / "checkpoint"
SAMPLES = PACKAGE / "tasks" / "samples"
XQUAD = ROOT / "tests" / "data" / "xquad" / "xquad-en.json"


def cache_folder(tool: str) -> Path:
    """Where ``tool`` keeps artifacts, recordings and environments between runs."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "neuronbert" / tool
