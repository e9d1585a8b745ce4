"""One process, one loaded variant: rows of tokens through a session in batches, and the calls that users make.

``compiler`` and everything above may import it.
"""
