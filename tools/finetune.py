#!/usr/bin/env python3
"""Starts the tool of this file's name, whose code is the module of that name in neuronbert_tools."""

import sys

from neuronbert_tools.launcher import launch

if __name__ == "__main__":
    sys.exit(launch(__file__))
