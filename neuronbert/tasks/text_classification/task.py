"""Text classification as a Task (tasks/base.py), put together from the modules beside it, for the table of tasks."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends.outputs import PER_ROW, Output
from neuronbert.checkpoint.families import Config, Family, Head, Shape, Tensor, TorchModel
from neuronbert.checkpoint.head_steps import FIRST_TOKEN, Steps, linear
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.tasks.base import Answerer, Columns, Document, Keywords, PathLike, Row, TaskEvaluation, TaskGate
from neuronbert.tasks.rows import full_rows as rows_of_texts
from neuronbert.tasks.rows import row_limit
from neuronbert.tasks.samples import gate_path, shipped_texts
from neuronbert.tasks.text_classification import results
from neuronbert.tasks.text_classification.inputs import Asked, Example, Ranking, encode_examples, of_call
from neuronbert.tasks.text_classification.lines import LINES as LINES
from neuronbert.tasks.text_classification.options import DECODE_OPTIONS as DECODE_OPTIONS
from neuronbert.tasks.text_classification.options import ENCODE_OPTIONS as ENCODE_OPTIONS
from neuronbert.tasks.text_classification.options import LabelOptions, RowOptions
from neuronbert.tasks.text_classification.problem import problem_of

NAME = "text-classification"
OUTPUTS = (Output(results.LOGITS, PER_ROW),)


class SequenceClassifierOutput(NamedTuple):
    """Logits of each row: float32 [rows, labels], in a torch tensor where the input was one."""

    logits: Any


MODEL_OUTPUT = SequenceClassifierOutput
REDUCTION = None
ROW_SELECTION = None


def outputs(config: Config) -> Tuple[Output, ...]:
    """The logits, whatever the checkpoint."""
    return OUTPUTS


def meaning(config: Config) -> Dict[str, str]:
    """The labels, and how their scores are made of logits."""
    problem = problem_of(config)
    scores = f"{problem.kind}: {problem.function}, and {problem.ranking_function} where texts are ranked"
    return {"labels": ", ".join(problem.labels), "scores": scores}


class _Layers(NamedTuple):
    """The head's two linear layers, as a family's transformers class names them, and the activation between them."""

    inner: str
    outer: str
    activation: str


_LAYERS = {
    "bert": _Layers("bert.pooler.dense", "classifier", "tanh"),
    "distilbert": _Layers("pre_classifier", "classifier", "relu"),
    "roberta": _Layers("classifier.dense", "classifier.out_proj", "tanh"),
    "electra": _Layers("classifier.dense", "classifier.out_proj", "gelu"),
}


def _head_shapes(family: Family, hidden: int, labels: int) -> Dict[str, Shape]:
    inner, outer, _ = _LAYERS[family.model_type]
    return {
        f"{inner}.weight": (hidden, hidden),
        f"{inner}.bias": (hidden,),
        f"{outer}.weight": (labels, hidden),
        f"{outer}.bias": (labels,),
    }


def _head_forward(model: TorchModel, hidden: Tensor, attention_mask: Tensor) -> Tuple[Tensor, ...]:
    """Logits from the first token's state: BERT's pooler, DistilBERT's layer, or the head's own, as in transformers.

    The dropout is for fine-tuning; it does nothing in eval mode.
    """
    if hasattr(model, "pre_classifier"):
        return (model.classifier(model.dropout(model.pre_classifier(hidden[:, 0]).relu())),)
    if hasattr(model, "bert"):
        return (model.classifier(model.dropout(model.bert.pooler(hidden))),)
    return (model.classifier(hidden),)


def _head_steps(family: Family, config: Config) -> Tuple[Steps, ...]:
    inner, outer, activation = _LAYERS[family.model_type]
    return ((FIRST_TOKEN, linear(inner, activation), linear(outer)),)


HEAD = Head(
    task=NAME,
    class_suffix="ForSequenceClassification",
    labels=None,
    shapes=_head_shapes,
    forward=_head_forward,
    steps=_head_steps,
    training_command="python tools/finetune.py --base {source} --data train.csv --output classifier",
    place=f"{__name__}:HEAD",
)


# ---------------------------------------------------------------------------- inputs


def call_input(
    text: Any = None,
    text_pair: Any = None,
    *,
    query: Optional[str] = None,
    texts: Optional[Sequence[str]] = None,
    **keywords: Any,
) -> Tuple[Asked, Keywords]:
    """A text, a pair, or a query and its texts (or ``text`` and a list as ``text_pair``), and the other keywords."""
    return of_call(text, text_pair, query, texts), keywords


def call_arguments(asked: Asked) -> Sequence[Any]:
    """A text; both texts of a pair; or a query and the list of its texts."""
    if isinstance(asked, Ranking):
        return asked.query, list(asked.texts)
    return (asked,) if isinstance(asked, str) else asked


def encode(tokenizer: Tokenizer, inputs: Sequence[Any], options: RowOptions) -> List[Example]:
    """Every text or pair as one row, every ranking as a row for each of its texts."""
    return encode_examples(tokenizer, inputs, options)


def check_options(tokenizer: Tokenizer, encode: RowOptions, decode: LabelOptions) -> None:
    """UsageError for a max_length that leaves no room for text."""
    row_limit(tokenizer, encode.max_length)


def bucket_options(tokens: Optional[int]) -> RowOptions:
    """Rows of ``tokens`` at most."""
    return RowOptions(max_length=tokens)


def read_inputs(path: Optional[PathLike]) -> List[Asked]:
    """The inputs of a JSONL, CSV or TSV file, or the questions and the paragraphs in the package."""
    from neuronbert.tasks.text_classification.data import load_texts

    if path is None:
        shipped = shipped_texts(gate_path())
        return list(dict.fromkeys(text for pair in shipped for text in pair))
    return load_texts(path)


def full_rows(tokenizer: Tokenizer, inputs: Sequence[Asked], tokens: int, count: int) -> List[Row]:
    """Rows of ``tokens``, of the inputs' texts one after another."""
    rows: List[Row] = [*rows_of_texts(tokenizer, map(_words, inputs), tokens, count)]
    return rows


def _words(asked: Asked) -> str:
    texts = call_arguments(asked)
    return " ".join(text if isinstance(text, str) else " ".join(text) for text in texts)


# ---------------------------------------------------------------------------- results


decode = results.decode


def is_slow_to_decode(example: Example, options: LabelOptions) -> bool:
    """Never: a softmax over the labels."""
    return False


def json_result(result: results.Result, options: LabelOptions) -> Document:
    """One label's own keys where one was asked for, else a list under ``labels`` or ``ranking``."""
    return results.document(result, options)


def columns(config: Config, options: LabelOptions) -> Columns:
    """The keys of a label, of several and of a ranking: a line may be any of them, with a top_k of its own."""
    return results.COLUMNS


call_result = results.single
result_text = results.result_text


# ---------------------------------------------------------------------------- objects of the task


def pipeline(model: Answerer, **keywords: Any) -> Any:
    """A TextClassificationPipeline."""
    from neuronbert.tasks.text_classification.pipeline import TextClassificationPipeline

    return TextClassificationPipeline(model, **keywords)


def gate(config: Config) -> TaskGate:
    """Accuracy where there are labels, and agreement with the reference's labels or scores."""
    from neuronbert.tasks.text_classification.gate import ClassificationGate

    return ClassificationGate.of(config)


def evaluation(
    data: PathLike, limit: Optional[int], window_options: RowOptions, answer_options: LabelOptions
) -> TaskEvaluation:
    """Accuracy, macro F1 and Matthews' correlation, or the correlation of scores: an EvaluationReport."""
    from neuronbert.tasks.text_classification.evaluation import ClassificationEvaluation

    return ClassificationEvaluation.of(data, limit, window_options, answer_options)
