"""The steps from BERT-base padded to its maximum to a small model behind a cache, measured one after the other."""
