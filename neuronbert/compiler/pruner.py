"""Removes a share of the encoder from the checkpoint being compiled, for the rungs of ladder.py."""

from typing import List, Sequence, Tuple

from neuronbert.backends.base import Batch
from neuronbert.backends.reference import torch_threads
from neuronbert.checkpoint.families import family_of, size_of
from neuronbert.checkpoint.removal import Kept, Removal, kept_after
from neuronbert.compiler.source import CompileSource
from neuronbert.errors import BackendFailed
from neuronbert.hardware.libraries import optional_imports
from neuronbert.tasks.base import Document

# What heads and columns do settles within so many; each costs a pass backwards, and five forwards a rung.
TEXTS = 128


class Pruner:
    """Removes shares of the encoder, by what its heads and columns do on the calibration texts.

    The gate's questions have no part in it: whoever passes a gate by having seen its questions passes nothing.
    """

    @optional_imports()
    def __init__(self, source: CompileSource):
        import torch

        from neuronbert.checkpoint import importance, pruning

        self._source = source
        self._family = family_of(source.config, "config.json")
        texts = _evenly(source.calibration(), TEXTS)
        if not texts:
            raise BackendFailed("there is no calibration text to weigh heads and columns on", hint="--calibration-data")
        self._rows = [tuple(torch.from_numpy(batch._asdict()[name]) for name in source.input_names) for batch in texts]
        heads = size_of(source.config, self._family, "num_attention_heads")
        model = source.torch_model()
        self._sizes = pruning.sizes_of(model, self._family, heads, self._rows)
        source.progress(f"weighing attention heads and feed-forward columns on {len(texts)} calibration texts")
        with torch_threads(source.threads):
            self._removals: Sequence[Removal] = importance.removals(
                model, self._family, self._sizes, self._rows, source.on_step
            )

    @property
    def most_percent(self) -> int:
        """The most that can be removed."""
        return int(100 * self._sizes.share_removed(kept_after(self._removals, self._sizes, 1)))

    def left(self, percent: int) -> str:
        """What ``source`` leaves, to tell whether it is the same as of another percentage."""
        return repr(kept_after(self._removals, self._sizes, percent / 100))

    @optional_imports()
    def source(self, percent: int) -> Tuple[CompileSource, Document]:
        """The checkpoint with ``percent`` of its encoder's multiply-adds removed, or the least above that.

        And what was cut, for the manifest.
        """
        from neuronbert.checkpoint.pruning import pruned
        from neuronbert.checkpoint.reconstruction import reconstruct

        kept = kept_after(self._removals, self._sizes, percent / 100)
        whole = self._source.torch_model()
        with torch_threads(self._source.threads):
            cut = pruned(whole, self._family, self._sizes, kept)
            reconstruct(cut, whole, self._family, self._rows, self._source.on_step)
        return self._source.with_model(cut), self._recipe(kept)

    def _recipe(self, kept: Sequence[Kept]) -> Document:
        return {
            "share_removed": round(self._sizes.share_removed(kept), 4),
            "heads": [len(layer.heads) for layer in kept],
            "columns": [len(layer.columns) for layer in kept],
            "texts": len(self._rows),
        }


def _evenly(batches: Sequence[Batch], count: int) -> List[Batch]:
    count = min(count, len(batches))
    return [batches[index * len(batches) // count] for index in range(count)]
