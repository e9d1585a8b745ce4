"""Question answering: questions and contexts to windows, logits to ranked answers, SQuAD files and metrics.

Loaded through the table of ``tasks``; beside it, only the package's public names and the tools may import it.
"""
