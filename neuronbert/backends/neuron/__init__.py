"""AWS Inferentia 1: the backend, its compilation target, compiling in a child process, core groups, and failures.

Found by the table of ``backends``; the folders above may import ``target``, which is pure,
``failures`` and ``known_failures``, and where the cache of ``compile_job`` is.
"""
