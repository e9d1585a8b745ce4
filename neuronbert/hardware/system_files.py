"""Small files in which a kernel describes its machine, for ``machine``, ``neuron`` and ``cuda``."""

from pathlib import Path


def read_text(path: Path) -> str:
    """A small system file as text; empty where the kernel does not offer or allow it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
