"""The command line: verbs, options, tables, the error boundary, ``top`` and ``doctor``. Prints; everything below raises.

At the top of the house: nothing may import it.
"""
