"""Entities (entities.py) as text for a person; the command line prints it."""

from typing import Iterable

from neuronbert.tasks.token_classification.entities import Entity


def entities_text(entities: Iterable[Entity]) -> str:
    """One line for each entity: its word and label, then its score and place."""
    return "\n".join(map(_line, entities)) or "(no entities)"


def _line(entity: Entity) -> str:
    label = entity.get("entity_group", entity.get("entity"))
    word = " ".join(entity["word"].split())
    return f"{word}  {label}  (score {entity['score']:.4f}, characters {entity['start']} to {entity['end']})"
