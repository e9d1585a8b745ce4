"""The command line: verbs, options, tables, the error boundary, ``top`` and ``doctor``. Only this folder prints.

The highest folder: only ``__main__`` may import it.
"""
