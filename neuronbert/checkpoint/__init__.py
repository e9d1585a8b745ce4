"""A Hugging Face checkpoint as it lies on disk or on the hub: config, weights, tokenizer, the FP32 model of them.

``backends`` and everything above may import it. ``demo/`` is the checkpoint that ships with the package.
"""
