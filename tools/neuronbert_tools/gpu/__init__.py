"""What tools/gpu_acceptance measures on a GPU: its limits, the backend's variants, and transformers beside them."""
