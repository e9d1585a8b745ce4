"""What compile writes and everything else loads: the manifest, which vouches for every byte, files and variants.

``engine`` and everything above may import it.
"""
