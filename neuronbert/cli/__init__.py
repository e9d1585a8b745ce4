"""The command line: verbs, options, tables, the error boundary, ``top`` and ``doctor``. Only this folder prints.

At the top of the house: nothing may import it.
"""
