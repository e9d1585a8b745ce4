"""Token classification as a Task (tasks/base.py), put together from the modules beside it, for the table of tasks."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends.outputs import PER_TOKEN, Output, Outputs
from neuronbert.checkpoint.families import Config, Family, Head, Shape, Tensor, TorchModel
from neuronbert.checkpoint.head_steps import Steps, linear
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.errors import InputError
from neuronbert.tasks.base import (
    Answerer,
    Column,
    Columns,
    ColumnType,
    Document,
    Keywords,
    PathLike,
    Row,
    TaskEvaluation,
    TaskGate,
)
from neuronbert.tasks.labels import label_names
from neuronbert.tasks.samples import gate_path
from neuronbert.tasks.token_classification import entities, text
from neuronbert.tasks.token_classification.data import read_texts, shipped_paragraphs
from neuronbert.tasks.token_classification.entities import Entity, entities_of_text
from neuronbert.tasks.token_classification.lines import LINES as LINES
from neuronbert.tasks.token_classification.options import DECODE_OPTIONS as DECODE_OPTIONS
from neuronbert.tasks.token_classification.options import ENCODE_OPTIONS as ENCODE_OPTIONS
from neuronbert.tasks.token_classification.options import EntityOptions, StrideOptions
from neuronbert.tasks.token_classification.windows import Example, TextInput, encode_texts, row_lengths

NAME = "token-classification"
OUTPUTS = (Output("logits", PER_TOKEN),)


class TokenClassifierOutput(NamedTuple):
    """Logits of each token: float32 [rows, tokens, labels], as wide as the input, a torch tensor where that was one."""

    logits: Any


MODEL_OUTPUT = TokenClassifierOutput
REDUCTION = None
ROW_SELECTION = None


def outputs(config: Config) -> Tuple[Output, ...]:
    """The logits, whatever the checkpoint."""
    return OUTPUTS


def meaning(config: Config) -> Dict[str, str]:
    """The labels."""
    return {"labels": ", ".join(label_names(config))}


def _head_shapes(family: Family, hidden: int, labels: int) -> Dict[str, Shape]:
    return {"classifier.weight": (labels, hidden), "classifier.bias": (labels,)}


def _head_forward(model: TorchModel, hidden: Tensor, attention_mask: Tensor) -> Tuple[Tensor, ...]:
    return (model.classifier(hidden),)


def _head_steps(family: Family, config: Config) -> Tuple[Steps, ...]:
    return ((linear("classifier"),),)


HEAD = Head(
    task=NAME,
    class_suffix="ForTokenClassification",
    labels=None,
    shapes=_head_shapes,
    forward=_head_forward,
    steps=_head_steps,
    training_command="python run_ner.py --model_name_or_path {source} --train_file train.json --output_dir tagger",
    place=f"{__name__}:HEAD",
)


# ---------------------------------------------------------------------------- inputs


def call_input(text: TextInput, **keywords: Any) -> Tuple[TextInput, Keywords]:
    """A text, or a list of its words, and the other keywords."""
    return text, keywords


def call_arguments(asked: TextInput) -> Sequence[Any]:
    """The text, or the words."""
    return (asked,)


def encode(tokenizer: Tokenizer, inputs: Sequence[TextInput], options: StrideOptions) -> List[Example]:
    """Cut every text into windows."""
    return encode_texts(tokenizer, inputs, options)


def check_options(tokenizer: Tokenizer, encode: StrideOptions, decode: EntityOptions) -> None:
    """UsageError for rows without room for text, or that overlap by all of it."""
    row_lengths(tokenizer, encode)


def bucket_options(tokens: Optional[int]) -> StrideOptions:
    """Rows of ``tokens`` at most."""
    return StrideOptions(max_length=tokens)


def read_inputs(path: Optional[PathLike]) -> List[str]:
    """The texts of a JSONL or CoNLL file, or the package's own."""
    return shipped_paragraphs(gate_path()) if path is None else read_texts(path)


def full_rows(tokenizer: Tokenizer, inputs: Sequence[str], tokens: int, count: int) -> List[Row]:
    """Full windows over all texts together."""
    together = " ".join(dict.fromkeys(inputs))
    options = StrideOptions(max_length=tokens, stride=0)
    windows = encode_texts(tokenizer, [together[: 40 * count * tokens // 8]], options)[0].windows
    full: List[Row] = [window for window in windows if len(window.input_ids) == tokens]
    if not full:
        raise InputError(f"the texts hold no text of {tokens} tokens", hint="more --input-data, or a shorter one")
    return full[:count]


# ---------------------------------------------------------------------------- results


def decode(example: Example, outputs: Sequence[Outputs], options: EntityOptions) -> List[Entity]:
    """The entities, or the labelled tokens."""
    return entities_of_text(example, outputs, options)


is_slow_to_decode = entities.is_slow_to_join


def call_result(result: List[Entity]) -> List[Entity]:
    """The list as it is."""
    return result


def json_result(result: List[Entity], options: EntityOptions) -> Document:
    """The list under ``entities``."""
    return {"entities": result}


def columns(config: Config, options: EntityOptions) -> Columns:
    """The list alone."""
    return {"entities": Column(ColumnType.OBJECTS)}


result_text = text.entities_text


# ---------------------------------------------------------------------------- objects of the task


def pipeline(model: Answerer, **keywords: Any) -> Any:
    """A TokenClassificationPipeline."""
    from neuronbert.tasks.token_classification.pipeline import TokenClassificationPipeline

    return TokenClassificationPipeline(model, **keywords)


def gate(config: Config) -> TaskGate:
    """Agreement with the reference's labels and entities, and entity F1 on the labelled texts of ``--gate-data``."""
    from neuronbert.tasks.token_classification.gate import TokenClassificationGate

    return TokenClassificationGate(label_names(config))


def evaluation(
    data: PathLike, limit: Optional[int], window_options: StrideOptions, answer_options: EntityOptions
) -> TaskEvaluation:
    """Entity precision, recall and F1 on a labelled file, as seqeval counts them: an EvaluationReport."""
    from neuronbert.tasks.token_classification.evaluation import TaggingEvaluation

    return TaggingEvaluation.of(data, limit, window_options)
