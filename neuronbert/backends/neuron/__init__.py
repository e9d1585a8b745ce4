"""AWS Inferentia 1: the backend, what it compiles to, compiling in a child process, core groups, failures explained.

Found by the table of ``backends``; ``compiler`` and ``runner`` may import ``target``, which is pure, and ``failures``.
"""
