"""What compile writes and everything else loads: the manifest that vouches for every byte, its files, its variants.

``engine`` and everything above may import it.
"""
