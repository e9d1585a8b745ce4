"""What the Python commands in tools/ do: one module for each command, and what several of them share.

``tools/chaos`` starts ``main`` of ``neuronbert_tools.chaos``, and so with the others.
"""
