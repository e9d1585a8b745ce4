"""Question answering as a Task (tasks/base.py), put together from the modules beside it, for the table of tasks."""

from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends.outputs import PER_TOKEN, Output, Outputs
from neuronbert.checkpoint.families import Config, Family, Head, Shape, Tensor, TorchModel
from neuronbert.checkpoint.head_steps import Column, Steps, linear
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError
from neuronbert.tasks.base import Answerer, Columns, Document, Keywords, PathLike, Row, TaskEvaluation, TaskGate
from neuronbert.tasks.lines import open_lines
from neuronbert.tasks.question_answering import answers, selection, spans, text
from neuronbert.tasks.question_answering.answers import Answer, flat, rank_answers
from neuronbert.tasks.question_answering.lines import LINES as LINES
from neuronbert.tasks.question_answering.lines import Pair, read_questions
from neuronbert.tasks.question_answering.options import DECODE_OPTIONS as DECODE_OPTIONS
from neuronbert.tasks.question_answering.options import ENCODE_OPTIONS as ENCODE_OPTIONS
from neuronbert.tasks.question_answering.options import AnswerOptions, WindowOptions
from neuronbert.tasks.question_answering.windows import Example, encode_examples, window_lengths

NAME = "question-answering"
OUTPUTS = (Output(spans.START_LOGITS, PER_TOKEN, ()), Output(spans.END_LOGITS, PER_TOKEN, ()))


class QuestionAnsweringOutput(NamedTuple):
    """Logits of each token: float32 [rows, tokens], as wide as the input, in torch tensors where that was one."""

    start_logits: Any
    end_logits: Any


MODEL_OUTPUT = QuestionAnsweringOutput
REDUCTION = spans
ROW_SELECTION = selection


def outputs(config: Config) -> Tuple[Output, ...]:
    """Both logits, whatever the checkpoint."""
    return OUTPUTS


def meaning(config: Config) -> Dict[str, str]:
    """Nothing: a span is a span, whatever the checkpoint."""
    return {}


def _head_shapes(family: Family, hidden: int, labels: int) -> Dict[str, Shape]:
    return {"qa_outputs.weight": (labels, hidden), "qa_outputs.bias": (labels,)}


def _head_forward(model: TorchModel, hidden: Tensor, attention_mask: Tensor) -> Tuple[Tensor, ...]:
    start, end = model.qa_outputs(hidden).split(1, dim=-1)
    return start.squeeze(-1).contiguous(), end.squeeze(-1).contiguous()


def _head_steps(family: Family, config: Config) -> Tuple[Steps, ...]:
    logits = linear("qa_outputs")
    return (logits, Column(0)), (logits, Column(1))


HEAD = Head(
    task=NAME,
    class_suffix="ForQuestionAnswering",
    labels=2,
    shapes=_head_shapes,
    forward=_head_forward,
    steps=_head_steps,
    training_command="python tools/finetune.py --base {source} --data train.json --output qa-checkpoint",
    place=f"{__name__}:HEAD",
)


# ---------------------------------------------------------------------------- inputs


def call_input(question: str, context: str, **keywords: Any) -> Tuple[Pair, Keywords]:
    """A question and its context, and the other keywords."""
    return Pair(question, context), keywords


def call_arguments(asked: Tuple[str, str]) -> Sequence[str]:
    """Question and context."""
    return asked


def encode(tokenizer: Tokenizer, inputs: Sequence[Tuple[str, str]], options: WindowOptions) -> List[Example]:
    """Cut every (question, context) into windows."""
    return encode_examples(tokenizer, inputs, options)


def check_options(tokenizer: Tokenizer, encode: WindowOptions, decode: AnswerOptions) -> None:
    """UsageError for windows that overlap by more than their length."""
    window_lengths(tokenizer, encode)


def bucket_options(tokens: Optional[int]) -> WindowOptions:
    """Windows of ``tokens`` at most, half of them for the question."""
    return WindowOptions(max_seq_len=tokens, max_question_len=tokens // 2 if tokens else None)


def read_inputs(path: Optional[PathLike]) -> List[Pair]:
    """Questions and contexts of a JSONL or SQuAD file, or the package's own."""
    from neuronbert.tasks.question_answering.squad import load_squad
    from neuronbert.tasks.samples import gate_path

    if path is None:
        path = gate_path()
    if Path(path).suffix == ".jsonl":
        with open_lines(path, hint="a .jsonl or a SQuAD .json file") as lines:
            return [line.input for line in read_questions(lines)]
    return [Pair(labelled.question, labelled.context) for labelled in load_squad(path)]


def full_rows(tokenizer: Tokenizer, inputs: Sequence[Tuple[str, str]], tokens: int, count: int) -> List[Row]:
    """Full windows of the first question over the text of all contexts."""
    together = " ".join(dict.fromkeys(context for _, context in inputs))
    options = WindowOptions(max_seq_len=tokens, doc_stride=0)
    windows = encode_examples(tokenizer, [(inputs[0][0], together[: 40 * count * tokens // 8])], options)[0].windows
    full: List[Row] = [window for window in windows if len(window.input_ids) == tokens]
    if not full:
        raise InputError(f"the questions hold no text of {tokens} tokens", hint="more --input-data, or a shorter one")
    return full[:count]


# ---------------------------------------------------------------------------- results


def decode(example: Example, outputs: Sequence[Outputs], options: AnswerOptions) -> List[Answer]:
    """The ranked answers."""
    return rank_answers(example, outputs, options)


is_slow_to_decode = answers.is_slow_to_rank


def json_result(result: List[Answer], options: AnswerOptions) -> Document:
    """One answer's own keys where one was asked for, else a list under ``answers``."""
    return flat(result, options.top_k)


def columns(config: Config, options: AnswerOptions) -> Columns:
    """The keys of one answer, and of several."""
    return answers.columns(options)


call_result = answers.single
result_text = text.answers_text


# ---------------------------------------------------------------------------- objects of the task


def pipeline(model: Answerer, **keywords: Any) -> Any:
    """A QuestionAnsweringPipeline."""
    from neuronbert.tasks.question_answering.pipeline import QuestionAnsweringPipeline

    return QuestionAnsweringPipeline(model, **keywords)


def gate(config: Config) -> TaskGate:
    """F1 against gold answers, and agreement with the reference's answers."""
    from neuronbert.tasks.question_answering.gate import QuestionAnsweringGate

    return QuestionAnsweringGate()


def evaluation(
    data: PathLike, limit: Optional[int], window_options: WindowOptions, answer_options: AnswerOptions
) -> TaskEvaluation:
    """Exact match and F1 on a SQuAD v1.1 or v2.0 file, as the official scripts count them: an EvaluationReport."""
    from neuronbert.tasks.question_answering.evaluation import SquadEvaluation

    return SquadEvaluation.of(data, limit, window_options, answer_options)
