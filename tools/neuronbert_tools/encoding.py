"""Questions as the tokens and batches that a runner or a session takes."""

from typing import Iterable, List, Sequence

from neuronbert.backends.base import Batch
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.engine.batches import collate
from neuronbert.tasks.question_answering.windows import Window, encode_examples
from neuronbert_tools.questions import Pair


def cut_to_tokens(pairs: Iterable[Pair], tokens: int, tokenizer: Tokenizer) -> List[Pair]:
    """The pairs with their contexts cut to fill ``tokens`` tokens, special ones too; shorter ones are left out."""
    cut = []
    for question, context in pairs:
        room = tokens - 3 - len(tokenizer.encode([question])[0].ids)
        offsets = tokenizer.encode([context])[0].offsets
        if len(offsets) >= room:
            cut.append((question, context[: offsets[room - 1][1]]))
    return cut


def first_windows(tokenizer: Tokenizer, pairs: Iterable[Pair]) -> List[Window]:
    """The first window of every pair."""
    return [encode_examples(tokenizer, [pair])[0].windows[0] for pair in pairs]


def full_batches(windows: Sequence[Window], batch_size: int, pad_id: int) -> List[Batch]:
    """Batches of ``batch_size`` windows each; a remainder is left out."""
    return [
        collate(windows[first : first + batch_size], pad_id)
        for first in range(0, len(windows) - batch_size + 1, batch_size)
    ]
