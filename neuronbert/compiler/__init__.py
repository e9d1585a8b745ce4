"""A checkpoint to an artifact: export each candidate, compare it with FP32 at the gate, time it, keep the fastest.

``runner`` and everything above may import it.
"""
