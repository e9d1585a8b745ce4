"""Checkpoint to artifact: export the candidates, time them, compare with FP32 at the gate, keep the fastest that pass.

``runner`` and everything above may import it.
"""
