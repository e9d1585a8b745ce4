"""One process, one loaded variant: rows of tokens in batches through a session, and the calls that people make.

``compiler`` and everything above may import it.
"""
