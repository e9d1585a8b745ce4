"""The toy task as a Task (neuronbert/tasks/base.py): a row of the table, made of the modules beside it."""

import json
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output, Outputs
from neuronbert.checkpoint.families import Config, Family, Head, Shape
from neuronbert.checkpoint.head_steps import FIRST_TOKEN, Steps, linear
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError
from neuronbert.tasks.base import (
    Answerer,
    Column,
    Columns,
    ColumnType,
    LineForm,
    Row,
    TaskEvaluation,
    TaskGate,
    options_of,
)
from neuronbert.tasks.lines import read_lines, text_fault
from toy_task import NAME as NAME
from toy_task.data import SAMPLE, load_sentences
from toy_task.labels import Sample, encode_texts, label_of, room_for_text
from toy_task.options import DECODE_OPTIONS as DECODE_OPTIONS
from toy_task.options import ENCODE_OPTIONS as ENCODE_OPTIONS
from toy_task.options import CutOptions, LabelOptions

OUTPUTS = (Output("label_scores", PER_ROW), Output("token_scores", PER_TOKEN))


class SentenceLabelsOutput(NamedTuple):
    """Scores as float32: [rows, labels] of each text, [rows, tokens, labels] of each token."""

    label_scores: Any
    token_scores: Any


MODEL_OUTPUT = SentenceLabelsOutput
REDUCTION = None
ROW_SELECTION = None


def outputs(config: Config) -> Tuple[Output, ...]:
    return OUTPUTS


def meaning(config: Config) -> Dict[str, str]:
    return {}


def _head_shapes(family: Family, hidden: int, labels: int) -> Dict[str, Shape]:
    return {"classifier.weight": (labels, hidden), "classifier.bias": (labels,)}


def _head_forward(model: Any, hidden: Any, attention_mask: Any) -> Tuple[Any, ...]:
    scores = model.classifier(hidden)
    return scores[:, 0].contiguous(), scores.contiguous()


def _head_steps(family: Family, config: Config) -> Tuple[Steps, ...]:
    scores = linear("classifier")
    return (FIRST_TOKEN, scores), (scores,)


HEAD = Head(
    task=NAME,
    class_suffix="ForTokenClassification",
    labels=None,
    shapes=_head_shapes,
    forward=_head_forward,
    steps=_head_steps,
    training_command="python train.py {source}",
    place=f"{__name__}:HEAD",
)


def _fault(record: Mapping[str, Any]) -> Optional[str]:
    return text_fault("text", record["text"]) if "text" in record else "the key 'text' is missing"


LINES = LineForm(
    noun="sentence",
    hint='one JSON object a line: {"text": "..."}',
    example='{"text": ...}',
    keywords={"max_tokens": int, "min_score": float, "evidence": bool},
    fault=_fault,
    input=lambda record: record["text"],
    needs=(("text",),),
)


def call_input(text: str, **keywords: Any) -> Tuple[str, Dict[str, Any]]:
    return text, keywords


def call_arguments(asked: str) -> Sequence[str]:
    return (asked,)


def encode(tokenizer: Tokenizer, inputs: Sequence[str], options: CutOptions) -> List[Sample]:
    return encode_texts(tokenizer, inputs, options)


def check_options(tokenizer: Tokenizer, encode: CutOptions, decode: LabelOptions) -> None:
    room_for_text(tokenizer, encode)


def bucket_options(tokens: Optional[int]) -> CutOptions:
    return CutOptions(max_tokens=tokens)


def read_inputs(path: Any) -> List[str]:
    if path is None:
        return [sentence.text for sentence in load_sentences(SAMPLE)]
    with open(path, "rb") as lines:
        return [line.input for line in read_lines(lines, LINES)]


def full_rows(tokenizer: Tokenizer, inputs: Sequence[str], tokens: int, count: int) -> List[Row]:
    words = " ".join(inputs).split()
    found: List[Row] = []
    for first in range(0, len(words), tokens):
        sample = encode(tokenizer, [" ".join(words[first:])], CutOptions(tokens))[0]
        found += [row for row in sample.windows if len(row.input_ids) == tokens]
    if not found:
        raise InputError(f"the sentences hold no text of {tokens} tokens", hint="longer ones")
    return found[:count]


def decode(example: Sample, outputs: Sequence[Outputs], options: LabelOptions) -> Dict[str, Any]:
    return label_of(example, outputs, options)


def is_slow_to_decode(example: Sample, options: LabelOptions) -> bool:
    return False


def call_result(result: Dict[str, Any]) -> Dict[str, Any]:
    return result


def json_result(result: Dict[str, Any], options: LabelOptions) -> Dict[str, Any]:
    return result


def columns(config: Config, options: LabelOptions) -> Columns:
    return {
        "label": Column(ColumnType.TEXT),
        "score": Column(ColumnType.NUMBER),
        "evidence": Column(ColumnType.OBJECTS),
    }


def result_text(result: Dict[str, Any]) -> str:
    return json.dumps(result)


class SentenceLabelsPipeline:
    """Called with a text or a list of them, and the keywords of both kinds of options."""

    task = NAME

    def __init__(self, model: Answerer, **keywords: Any):
        self.model = model
        self._keywords = keywords

    def __call__(self, texts: Any, **keywords: Any) -> Any:
        options = options_of((CutOptions, LabelOptions), {**self._keywords, **keywords})
        results = self.model.answer([texts] if isinstance(texts, str) else list(texts), *options)
        return results[0] if isinstance(texts, str) else results


def pipeline(model: Answerer, **keywords: Any) -> SentenceLabelsPipeline:
    return SentenceLabelsPipeline(model, **keywords)


def gate(config: Config) -> TaskGate:
    from toy_task.measures import LabelGate

    return LabelGate()


def evaluation(
    data: Any, limit: Optional[int], window_options: CutOptions, answer_options: LabelOptions
) -> TaskEvaluation:
    from toy_task.measures import LabelEvaluation

    return LabelEvaluation(data, limit, window_options, answer_options)
