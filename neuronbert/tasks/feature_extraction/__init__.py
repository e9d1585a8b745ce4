"""Feature extraction: one embedding of a text, as sentence-transformers makes it, or one of each of its tokens.

``task`` puts the modules together; ``modules`` says what a checkpoint does with its token embeddings, ``folder`` reads
that from a sentence-transformers folder, ``graph`` computes it.
"""
