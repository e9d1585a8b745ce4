"""What a process that child.py started does first: it takes the parent's search path and packages, then calls a main.

Python is given this file by its path. Then the folder of the file is first on ``sys.path``, and not, as with ``-c`` and
``-m``, the working directory, where a ``json.py`` beside a user's data would be run instead of the library's.
"""

import sys

if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # this folder: its modules are named like the libraries that they import (onnxruntime.py)

import importlib
import importlib.util
import json
from typing import Mapping, Sequence


def extend_search_path(places: Sequence[str]) -> None:
    """Search the parent's ``places`` in its order, then those that only this process has."""
    sys.path[:] = [*places, *(place for place in sys.path if place not in places)]


def load_packages(files: Mapping[str, str]) -> None:
    """Load each package, by name, from its ``__init__.py``: what is beside it need not be on ``sys.path``."""
    for name, file in files.items():
        spec = importlib.util.spec_from_file_location(name, file)
        assert spec is not None and spec.loader is not None
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])


if __name__ == "__main__":
    facts = json.loads(sys.argv[1])
    extend_search_path(facts["search_path"])
    load_packages(facts["packages"])
    sys.exit(importlib.import_module(facts["module"]).main(sys.argv[2:]))
