"""Where backends keep what takes long to compile, for the next time: a folder of the user's own for each of them."""

import os
from pathlib import Path

from neuronbert.errors import BackendFailed
from neuronbert.hardware.own_places import own_folder

CACHE_VARIABLE = "NEURONBERT_CACHE"


def cache_folder(part: str) -> Path:
    """The folder ``part`` of $NEURONBERT_CACHE, or of ``neuronbert`` in the user's cache; created if it is missing."""
    chosen = os.environ.get(CACHE_VARIABLE)
    home = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = (Path(chosen) if chosen else Path(home, "neuronbert")) / part
    try:
        return own_folder(folder)
    except OSError as error:
        raise BackendFailed(
            f"cannot write the compile cache {folder}: {getattr(error, 'message', error.strerror)}",
            hint=f"export {CACHE_VARIABLE}=a folder of your own",
        ) from error
