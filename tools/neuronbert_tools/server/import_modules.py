"""A process that imports modules and ends: what they cost at a start.

Its arguments: their names
"""

import importlib
import os
from typing import Sequence


def main(arguments: Sequence[str]) -> None:
    """The child; it ends without what Python does at the end, for which nobody waits."""
    for name in arguments:
        importlib.import_module(name)
    os._exit(0)
