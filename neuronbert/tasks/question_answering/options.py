"""The keywords of question answering, and its verb: light, for the command line lists them (tasks/option.py)."""

from dataclasses import dataclass
from typing import Dict, Optional, Tuple

from neuronbert.errors import UsageError, as_real, as_whole, positive, shown_value, yes_or_no
from neuronbert.tasks.option import Text, Verb, option

RANKINGS = ("window", "document")
SMALLEST = {"max_seq_len": 1, "doc_stride": 0, "max_question_len": 1, "select_windows": 0}  # of WindowOptions


@dataclass(frozen=True)
class WindowOptions:
    """How a context is cut into windows; all lengths in tokens.

    max_seq_len: length of a window with question and special tokens. None is the smallest of 384, the tokenizer's
        ``model_max_length`` and the model's positions; more than those positions is lowered to them.
    doc_stride: overlap of neighbouring windows. None is the smaller of 128 and half of max_seq_len. An overlap that
        would keep windows from advancing is lowered until each window starts one token after the last.
    max_question_len: the question is cut after that many tokens. None keeps it whole, as the transformers pipeline
        did: there the documented default of 64 had no effect with a fast tokenizer.
    select_windows: of a context with many windows, read so many with the question's words in them, and as many more to
        see whether they change the best answer; if they do, twice as many, and so on (selection.py). 0 reads all. None
        is 0, or what the artifact was compiled with.
    """

    max_seq_len: Optional[int] = option(
        None,
        "Tokens of question and context that are read at once, a window.  [default: 384, or the model's limit]",
        least=1,
    )
    doc_stride: Optional[int] = option(
        None, "Tokens that two windows of a longer context share.  [default: 128]", least=0
    )
    max_question_len: Optional[int] = option(None, "Cut longer questions to this many tokens.", least=1)
    select_windows: Optional[int] = option(
        None,
        "Read so many windows with the question's words first, more while the answer changes; 0: all.  "
        "[default: as compiled]",
        least=0,
    )

    def __post_init__(self) -> None:
        for name, smallest in SMALLEST.items():
            value = getattr(self, name)
            number = as_whole(value)
            if value is not None and (number is None or number < smallest):
                raise UsageError(
                    f"{name} parameter should be a whole number >= {smallest} (got {shown_value(value)})",
                    hint=f"{name}={2 if name == 'select_windows' else 64}, or leave it out",
                    field=name,
                )
            object.__setattr__(self, name, number and positive(name, number))  # an int, whatever whole number it was


@dataclass(frozen=True)
class AnswerOptions:
    """Which answers are wanted, and how they are ranked.

    top_k: at most this many answers; fewer when the context has fewer spans.
    max_answer_len: longest answer in tokens, before its ends are moved to the ends of words.
    handle_impossible_answer: let the empty answer compete; its score is the smallest over the windows.
    align_to_words: move an answer's ends to the ends of their words, as far as the window shows them.
    ranking: "window" scores each span by softmax within its window, so that scores of different windows are not
        comparable; "document" by one softmax over all spans of all windows (start logit + end logit) and the empty
        answer, so that scores are comparable over a long context and add up to at most 1.
    null_threshold: None, or the empty answer comes first exactly when (start + end logit of the classification
        token, the smallest over the windows) - (start + end logit of the best span) > null_threshold. This is
        SQuAD 2.0's null_score_diff_threshold. When it is set, it alone decides about the empty answer.
    details: add to each answer ``window`` (index of the window whose span scored highest; None for the empty answer)
        and ``null_difference`` (what null_threshold is compared with, the same for all answers of an example; inf
        when the context has no token).
    """

    top_k: int = option(1, "Answers for each question.", least=1, shows_default=True, of_output=True)
    max_answer_len: int = option(15, "Tokens of an answer, at most.", least=1, shows_default=True)
    handle_impossible_answer: bool = option(False, 'Let "no answer" win: the empty one.')
    align_to_words: bool = option(True, "Answers begin and end at words, not within them.", shows_default=True)
    ranking: str = option(
        "window",
        "Scores within each window, as the old pipeline did, or comparable over the document.",
        choices=RANKINGS,
        shows_default=True,
    )
    null_threshold: Optional[float] = option(
        None, 'Answer nothing when "no answer" leads the best by more than this (in logits).'
    )
    details: bool = option(
        False, 'Add each answer\'s window and by how much "no answer" leads the best.', of_output=True
    )

    def __post_init__(self) -> None:
        top_k, longest, threshold = as_whole(self.top_k), as_whole(self.max_answer_len), as_real(self.null_threshold)
        if top_k is None or top_k < 1:
            raise UsageError(f"top_k parameter should be >= 1 (got {shown_value(self.top_k)})", field="top_k")
        if longest is None or longest < 1:
            # The missing parenthesis is the transformers pipeline's; people match on its texts.
            raise UsageError(
                f"max_answer_len parameter should be >= 1 (got {shown_value(self.max_answer_len)}",
                field="max_answer_len",
            )
        if threshold is None and self.null_threshold is not None:
            value = shown_value(self.null_threshold)
            raise UsageError(
                f"null_threshold is a difference of logits, a number (got {value})", field="null_threshold"
            )
        if not isinstance(self.ranking, str) or self.ranking not in RANKINGS:
            raise UsageError(
                f"there is no ranking {shown_value(self.ranking)}",
                hint=f"one of {', '.join(RANKINGS)}",
                field="ranking",
            )
        # As plain values: equal options are the same options, and JSON can write them.
        checked: Dict[str, object] = {"null_threshold": threshold}
        checked.update(top_k=positive("top_k", top_k), max_answer_len=positive("max_answer_len", longest))
        for name in ("handle_impossible_answer", "align_to_words", "details"):
            checked[name] = yes_or_no(name, getattr(self, name))
        for name, plain in checked.items():
            object.__setattr__(self, name, plain)

    @property
    def candidates_per_window(self) -> int:
        # Candidates may become one answer when they are moved to words, so more are kept: the old pipeline's rule.
        return 2 * self.top_k + 10 if self.align_to_words else self.top_k


ENCODE_OPTIONS = WindowOptions
DECODE_OPTIONS = AnswerOptions
EVALUATION = "questions (SQuAD v1.1 or v2.0): exact match and F1, as the official scripts count them"
OFFERS: Tuple[str, ...] = ()
VERBS = (
    Verb(
        name="answer",
        short_help="Answer one question, or a file of them.",
        help="""Answer one question, or a file of them, with ARTIFACT.

    One question prints its answer; --input prints a JSON line, or with --output-format csv a row, for each line read,
    in order.
    """,
        texts=(Text("question", "One question."), Text("context", "The text that answers it.")),
        line='{"question", "context"}',
    ),
)
