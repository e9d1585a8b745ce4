"""Where backends keep what takes long to compile, for the next time: a folder of the user's own for each of them."""

from pathlib import Path

from neuronbert.errors import BackendFailed
from neuronbert.hardware.own_places import CACHE_VARIABLE, cache_path, own_folder


def cache_folder(part: str) -> Path:
    """The folder ``part`` of neuronbert's cache; created if it is missing. Raises BackendFailed where it cannot be."""
    folder = cache_path(part)
    try:
        return own_folder(folder)
    except OSError as error:
        raise BackendFailed(
            f"cannot write the compile cache {folder}: {getattr(error, 'message', error.strerror)}",
            hint=f"export {CACHE_VARIABLE}=a folder of your own",
        ) from error
