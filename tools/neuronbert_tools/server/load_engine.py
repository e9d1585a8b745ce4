"""A process that does what a worker does before it is ready: loads an engine, which tests itself, and ends.

Its arguments: ARTIFACT
"""

import os
from typing import Sequence

from neuronbert import Engine


def main(arguments: Sequence[str]) -> None:
    """The child; it ends without what Python does at the end, for which nobody waits."""
    Engine(arguments[0])
    os._exit(0)
