"""Question answering: questions and contexts to windows, logits to ranked answers, SQuAD files and metrics.

Found by the table of ``tasks``; nobody else may import it but the public names of the package.
"""
