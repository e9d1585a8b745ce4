"""The protocols that clients speak: a module each, and the table. ``application`` may import it."""

from typing import Tuple

from neuronbert.server.protocols import bulk, cohere, hugging_face, open_inference, openai, operations, text_embeddings
from neuronbert.server.routes import Protocol

PROTOCOLS: Tuple[Protocol, ...] = (
    hugging_face.PROTOCOL,
    text_embeddings.PROTOCOL,
    openai.PROTOCOL,
    cohere.PROTOCOL,
    open_inference.PROTOCOL,
    bulk.PROTOCOL,
    operations.PROTOCOL,
)
