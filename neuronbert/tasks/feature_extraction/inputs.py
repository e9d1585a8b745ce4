"""Texts with their prompts as rows of tokens; a long one as several if that is asked for. results.py reads outputs."""

from typing import List, NamedTuple, Sequence, Tuple

from neuronbert.checkpoint.tokenizer import Tokenizer, once_per_tokenizer
from neuronbert.errors import TooManyRows, UsageError, counted, shown_value
from neuronbert.tasks.feature_extraction.modules import SentenceModules, modules_of
from neuronbert.tasks.feature_extraction.options import POOLED, TextOptions
from neuronbert.tasks.rows import CutRow, TextRow, check_text, encode_rows, row_limit, token_rows


class Example(NamedTuple):
    """A text as rows, and what becomes of their outputs."""

    windows: List[TextRow]
    truncated: bool
    unpooled_tokens: int  # at the beginning of each row, that do not count in its pooling
    modules: SentenceModules


@once_per_tokenizer
def modules_for(tokenizer: Tokenizer) -> SentenceModules:
    """What the tokenizer's checkpoint does with texts and token embeddings, read from its config."""
    return modules_of(tokenizer.config)


def encode_examples(tokenizer: Tokenizer, texts: Sequence[str], options: TextOptions) -> List[Example]:
    """Every text as one row, behind its prompt; what is too long for it is cut, or becomes more rows.

    InputError for what is no text, and for a text of more rows than the tokenizer's ``row_limit``; UsageError for a
    prompt that the checkpoint does not have.
    """
    modules = modules_for(tokenizer)
    for text in texts:
        check_text("text", text)
    prompt = prompt_of(modules, options)
    limit = text_limit(tokenizer, options)
    if modules.lowercase:
        prompt, texts = prompt.lower(), [text.lower() for text in texts]
    prompted = [prompt + text for text in texts] if prompt else texts
    unpooled = _unpooled_tokens(tokenizer, prompt, limit) if modules.pools_on_host and prompt else 0
    cut_rows = encode_rows(tokenizer, prompted, limit)
    if options.long_texts == POOLED:
        return [
            Example(_windows(tokenizer, text, cut, len(prompt), unpooled, limit), False, unpooled, modules)
            for text, cut in zip(prompted, cut_rows)
        ]
    return [Example([cut.row], cut.truncated, unpooled, modules) for cut in cut_rows]


def prompt_of(modules: SentenceModules, options: TextOptions) -> str:
    """What is put before a text, by the rules of sentence-transformers: the prompt itself, one by name, the default."""
    if options.prompt is not None:
        return options.prompt
    name = options.prompt_name if options.prompt_name is not None else modules.default_prompt
    if name is None:
        return ""
    if name not in modules.prompts:
        known = f"one of {', '.join(modules.prompts)}" if modules.prompts else "it has none: prompt='...'"
        raise UsageError(f"the checkpoint has no prompt {shown_value(name)}", hint=known, field="prompt_name")
    return modules.prompts[name]


def text_limit(tokenizer: Tokenizer, options: TextOptions) -> int:
    """The most tokens of a row; UsageError where it leaves no room for text, and for texts that cannot be pooled."""
    modules = modules_for(tokenizer)
    if options.long_texts == POOLED and not modules.pooling:
        raise UsageError(
            "long_texts='pooled' is for one embedding of a text", hint="compile with --pooling mean", field="long_texts"
        )
    return row_limit(tokenizer, options.max_length or modules.max_seq_length)


def _unpooled_tokens(tokenizer: Tokenizer, prompt: str, limit: int) -> int:
    """The tokens of a row that sentence-transformers leaves out: of the prompt alone as a row, less a special last one.

    The rule of its Transformer module's ``_get_prompt_length``. Where a token of the prompt alone is another one behind
    which a text follows, as byte-level BPE joins a space to the next word, it counts the text's first token as well.
    """
    (cut,) = encode_rows(tokenizer, [prompt], limit)
    return len(cut.row.input_ids) - bool(len(tokenizer.single.after))


def _windows(
    tokenizer: Tokenizer, text: str, cut: CutRow, prompt_length: int, unpooled: int, limit: int
) -> List[TextRow]:
    """The row of a text that fits it; else rows of all its tokens, each behind those of its first characters.

    Where the prompt's tokens are not pooled, each row is behind all the ``unpooled`` ones: every other counts once.
    """
    if not cut.truncated:
        return [cut.row]
    (encoding,) = tokenizer.encode([text])
    ids = encoding.ids
    prompt_tokens = _tokens_within(encoding.offsets, prompt_length)
    if unpooled:
        prompt_tokens = unpooled - len(tokenizer.single.before)
    prompt, body = ids[:prompt_tokens], ids[prompt_tokens:]
    room = limit - tokenizer.single.special_tokens - prompt_tokens
    if room < 1:
        raise UsageError(
            f"a max_length of {limit} leaves no room for text behind a prompt of {counted(prompt_tokens, 'token')}",
            hint="a shorter prompt, or a larger max_length",
            field="max_length",
        )
    most, count = tokenizer.row_limit, -(-len(body) // room)
    if count > most.rows:
        raise TooManyRows(
            f"a text of {len(body):,} tokens becomes {count:,} rows, and {most.whose} takes {most.rows:,}",
            hint="a shorter text, or long_texts='cut'",
        )
    return token_rows(tokenizer, [prompt + body[first : first + room] for first in range(0, len(body), room)], limit)


def _tokens_within(offsets: Sequence[Tuple[int, int]], characters: int) -> int:
    """How many tokens at the beginning of a text end within its first ``characters``; none where those are none."""
    ends = [end for _, end in offsets] if characters else []
    return next((index for index, end in enumerate(ends) if end > characters), len(ends))
