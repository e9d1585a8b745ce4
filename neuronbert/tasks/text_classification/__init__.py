"""Text classification: labels of texts and pairs of texts, scores, and the ranking of texts for a query.

``task`` puts the modules together; ``inputs`` makes rows of texts, ``results`` makes labels of logits.
"""
