"""The backend for NVIDIA GPUs: our own encoder in torch, without padding. The table of backends names ``backend``.

``graph`` says what a model is made of, ``weights`` stores it, ``packing`` joins the rows of a batch, ``encoder`` and
``head`` compute on them with ``layers``, ``kernels`` and ``attention``; ``session`` keeps a GPU busy with it.
"""
