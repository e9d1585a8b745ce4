"""Teaches question answering (task.py): SQuAD-format questions as windows labelled with the answer's place."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.checkpoint.families import Tensor
from neuronbert.checkpoint.loading import BaseCheckpoint, load_base_checkpoint
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError
from neuronbert.tasks.checkpoints import modules_of_tasks
from neuronbert.tasks.question_answering.options import WindowOptions
from neuronbert.tasks.question_answering.squad import SquadQuestion, load_squad
from neuronbert.tasks.question_answering.task import HEAD as HEAD
from neuronbert.tasks.question_answering.windows import Example, Window, encode_examples
from neuronbert_tools.console import print_message
from neuronbert_tools.finetuning.distillation import softened
from neuronbert_tools.finetuning.options import TrainingOptions
from neuronbert_tools.finetuning.task import CHUNK, Lesson, Lessons

SUFFIXES = (".json",)
PADDING_LOGIT = -10000.0


@dataclass(frozen=True)
class QuestionAnsweringOptions(TrainingOptions):
    """How questions become windows; neuronbert's WindowOptions has the same names."""

    max_seq_len: int = 384  # tokens
    doc_stride: int = 128  # tokens
    max_question_len: int = 64  # tokens


OPTIONS = QuestionAnsweringOptions


def read_base(source: str, **hub: Any) -> BaseCheckpoint:
    """The base, with its question-answering head if it has one."""
    return load_base_checkpoint(source, HEAD, modules=modules_of_tasks(), **hub)


class LabelledWindow(NamedTuple):
    """A window and the positions in it of the answer's first and last token; 0 and 0 (the CLS token) without one."""

    window: Window
    start: int
    end: int


def label_windows(example: Example, answer: Optional[Tuple[int, int]]) -> List[LabelledWindow]:
    """Label each window of ``example`` with ``answer``, its first and last character, or None if there is none.

    A window that does not show the whole answer is labelled as having none.
    """
    tokens = None if answer is None else _answer_tokens(example, *answer)
    labelled = []
    for window in example.windows:
        start = end = 0
        if tokens is not None:
            first, stop = window.first_token, window.first_token + window.token_count
            if first <= tokens[0] and tokens[1] < stop:
                start, end = (window.context_start + token - first for token in tokens)
        labelled.append(LabelledWindow(window, start, end))
    return labelled


def _answer_tokens(example: Example, first: int, last: int) -> Optional[Tuple[int, int]]:
    """First and last token of characters ``first`` to ``last``; characters that became no token are passed over."""
    encoding = example.encoded_context.encoding
    starts = (encoding.char_to_token(character) for character in range(first, last + 1))
    ends = (encoding.char_to_token(character) for character in range(last, first - 1, -1))
    start = next((token for token in starts if token is not None), None)
    end = next((token for token in ends if token is not None), None)
    return None if start is None or end is None else (start, end)


def answer_span(question: SquadQuestion) -> Optional[Tuple[int, int]]:
    """First and last character of the first answer without the spaces around it; None for an impossible question.

    InputError when the context does not have the answer where the data says.
    """
    if question.is_impossible:
        return None
    text, start = question.answers[0], question.answer_starts[0]
    if not text.strip() or start < 0 or question.context[start : start + len(text)] != text:
        raise InputError(f"question {question.id}: the context does not have {text!r} at character {start}")
    return start + len(text) - len(text.lstrip()), start + len(text.rstrip()) - 1


def read_lessons(
    paths: Sequence[Path], base: BaseCheckpoint, tokenizer: Tokenizer, options: QuestionAnsweringOptions
) -> Lessons:
    """Every window of every question of the SQuAD files; questions with a misplaced answer are counted and left out."""
    windows: List[LabelledWindow] = []
    for path in paths:
        windows.extend(_read_windows(path, tokenizer, options))
    if not windows:
        raise InputError(f"no question to learn from in {', '.join(map(str, paths))}", hint="a SQuAD-format file")
    return Lessons([Lesson(item.window, (item.start, item.end)) for item in windows], _loss, _imitation, base)


def _read_windows(path: Path, tokenizer: Tokenizer, options: QuestionAnsweringOptions) -> List[LabelledWindow]:
    window_options = WindowOptions(options.max_seq_len, options.doc_stride, options.max_question_len)
    questions, spans, misplaced = [], [], 0
    for question in load_squad(path):
        try:
            spans.append(answer_span(question))
            questions.append(question)
        except InputError:
            misplaced += 1
    if misplaced:
        print_message(f"{path}: {misplaced} questions left out, whose answer is not where answer_start says")
    windows: List[LabelledWindow] = []
    for begin in range(0, len(questions), CHUNK):
        chunk = questions[begin : begin + CHUNK]
        examples = encode_examples(tokenizer, [(q.question, q.context) for q in chunk], window_options)
        for example, span in zip(examples, spans[begin : begin + CHUNK]):
            windows.extend(label_windows(example, span))
    return windows


def _loss(outputs: Sequence[Tensor], mask: Tensor, targets: Tensor) -> Tensor:
    """Mean cross entropy of the first and of the last token's place; ``targets`` is [rows, 2]."""
    return sum(_place_loss(outputs[number], mask, targets[:, number]) for number in range(2)) / 2


def _imitation(outputs: Sequence[Tensor], taught: Sequence[Tensor], mask: Tensor) -> Tensor:
    """Where the answer begins and where it ends, as the teacher has it."""
    pairs = ((values.float().masked_fill(mask == 0, PADDING_LOGIT) for values in both) for both in zip(outputs, taught))
    return sum(softened(*pair) for pair in pairs) / 2


def _place_loss(logits: Tensor, mask: Tensor, target: Tensor) -> Tensor:
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float().masked_fill(mask == 0, PADDING_LOGIT), target)
