"""Attention of packed rows: each token sees the tokens of its own row. It imports torch."""

import importlib
from typing import Any, Callable, NamedTuple, Optional

import torch


class Rows(NamedTuple):
    """Where the rows are among packed tokens."""

    starts: torch.Tensor  # int32 [rows + 1]: where each begins; the last is the number of tokens
    rows: torch.Tensor  # int32 [tokens]: the row of each token
    places: torch.Tensor  # int32 [tokens]: where in its row
    longest: int  # tokens of the longest row, or more

    @property
    def row_count(self) -> int:
        """The number of rows."""
        return int(self.starts.shape[0]) - 1


# (queries, keys, values, all [tokens, heads, width]; rows) → [tokens, heads, width]
Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor, Rows], torch.Tensor]

FLASH_WIDTHS = range(8, 257, 8)  # of a head, which torch's flash attention takes
CAPABILITY = (8, 0)  # of GPUs with flash attention, torch's and kernels.py's


def flash_attention() -> Optional[Attention]:
    """torch's own for rows of any length, 16 bits and heads of FLASH_WIDTHS; None before torch 2.10."""
    try:
        varlen: Any = importlib.import_module("torch.nn.attention.varlen").varlen_attn
    except ImportError:
        return None

    def attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows) -> torch.Tensor:
        found: torch.Tensor = varlen(queries, keys, values, rows.starts, rows.starts, rows.longest, rows.longest)
        return found

    return attention


def padded_attention(queries: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, rows: Rows) -> torch.Tensor:
    """What every torch has: rows padded to the longest for scaled_dot_product_attention, its result packed again."""
    slots = rows.rows.long() * rows.longest + rows.places.long()

    def padded(packed: torch.Tensor) -> torch.Tensor:
        spread = packed.new_zeros((rows.row_count * rows.longest, *packed.shape[1:])).index_copy_(0, slots, packed)
        return spread.view(rows.row_count, rows.longest, *packed.shape[1:]).transpose(1, 2)

    lengths = (rows.starts[1:] - rows.starts[:-1])[:, None]
    seen = torch.arange(rows.longest, device=queries.device)[None, :] < lengths
    # An empty row would see nothing, and nothing's softmax is NaN; nobody reads what it gets instead.
    mask = (seen | (lengths == 0))[:, None, None, :]
    found = torch.nn.functional.scaled_dot_product_attention(*map(padded, (queries, keys, values)), attn_mask=mask)
    return found.transpose(1, 2).flatten(0, 1).index_select(0, slots)
