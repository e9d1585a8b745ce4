"""A Hugging Face checkpoint on disk or on the hub: its config, weights and tokenizer, and the FP32 model of them.

``backends`` and everything above may import it.
"""
