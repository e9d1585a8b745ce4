"""What is compiled for a run: each artifact by a name that says all of it, so that another machine can make it."""

from typing import Any, List, Mapping, NamedTuple, Sequence, Tuple

from neuronbert.hardware.cores import DATA_PARALLEL, PIPELINE, fewest_layers

DEMO, BERT_BASE = "demo", "bert-base"
OURS, ALL, COMPILER = "ours", "all", "compiler"
# The options of neuronbert compile. What AWS published was compiled in one of the two others, so its figures are
# compared with those; ours is the most accurate one.
CASTS: Mapping[str, Sequence[str]] = {
    COMPILER: ("--auto-cast", "compiler"),
    ALL: ("--auto-cast", "all"),
    OURS: (),
}
FULL_LAYERS = 12
SMALL_LAYERS = 6  # DistilBERT and DistilRoBERTa


class Recipe(NamedTuple):
    """One compilation. ``cores`` is the length of the pipeline, ``"auto"`` for the formula's, 1 for none."""

    checkpoint: str  # DEMO or BERT_BASE
    layers: int  # of BERT_BASE; 0 for the demo, which is what it is
    cores: object
    batch_size: int
    sequence_lengths: Tuple[int, ...]
    casts: str = OURS

    @property
    def name(self) -> str:
        """The artifact's folder."""
        checkpoint = f"{self.checkpoint}-{self.layers}-layers" if self.layers else self.checkpoint
        return f"{checkpoint}-p{self.cores}-b{self.batch_size}-s{self._lengths('-')}-{self.casts}"

    def arguments(self, instance: str) -> List[object]:
        """What neuronbert compile gets behind the checkpoint and the output."""
        layout: List[object] = ["--mode", DATA_PARALLEL]
        if self.cores != 1:
            layout = ["--mode", PIPELINE, "--neuroncore-pipeline-cores", self.cores]
        shape = ["--batch-size", self.batch_size, "--sequence-length", self._lengths(",")]
        return ["--backend", "neuron", "--instance-type", instance, *layout, *shape, *CASTS[self.casts]]

    def _lengths(self, separator: str) -> str:
        return separator.join(map(str, self.sequence_lengths))


def demo(cores: object, *sequence_lengths: int) -> Recipe:
    """The demo, one row at a time."""
    return Recipe(DEMO, 0, cores, 1, sequence_lengths or (128, 384))


def bert_base(layers: int, cores: int, batch_size: int, tokens: int, casts: str = OURS) -> Recipe:
    """BERT-base with ``layers``, or the few more without which a pipeline has nothing to do for some of its cores."""
    return Recipe(BERT_BASE, max(layers, fewest_layers(cores)), cores, batch_size, (tokens,), casts)


def published(row: Mapping[str, Any], casts: str, layers: int) -> Recipe:
    """The configuration of a published row, with at most ``layers``: what is quick to look at has fewer."""
    own = SMALL_LAYERS if row["model"].startswith("distil") else FULL_LAYERS
    cores, batch_size, tokens = (int(row[name]) for name in ("pipeline_cores", "batch_size", "sequence_length"))
    return bert_base(min(own, layers), cores, batch_size, tokens, casts)


def published_casts(row: Mapping[str, Any]) -> str:
    """How the row's model was compiled.

    The SDK's own data-parallel rows are neuronperf's (src/benchmark/pytorch of aws-neuron-sdk v2.20.2), whose default
    performance level is ``--fast-math all``; the blog post and the pipeline tutorial pass no such option.
    """
    return ALL if "aws-neuron-sdk" in row["source"] and row["mode"] == DATA_PARALLEL else COMPILER
