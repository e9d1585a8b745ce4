"""Token classification: texts to windows, logits to tags and entities, files of tagged text, and entity F1.

Loaded through the table of ``tasks``; beside it, only the package's public names and the tools may import it.
"""
