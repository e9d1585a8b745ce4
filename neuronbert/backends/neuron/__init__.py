"""AWS Inferentia 1: the backend, its compilation target, compiling in a child process, core groups, and failures.

Found by the table of ``backends``; ``compiler`` and ``runner`` may import ``target``, which is pure, and ``failures``.
"""
