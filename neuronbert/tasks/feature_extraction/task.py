"""Feature extraction as a Task (tasks/base.py), put together from the modules beside it, for the table of tasks."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from neuronbert.backends.outputs import PER_ROW, PER_TOKEN, Output
from neuronbert.checkpoint.families import Config, Family, Head, Modules, Shape, Tensor, TorchModel
from neuronbert.checkpoint.head_steps import INPUT, Linear, Normalize, Pool, Step, Steps
from neuronbert.checkpoint.tokenizer import Tokenizer
from neuronbert.hardware.libraries import optional_imports
from neuronbert.tasks.base import (
    Answerer,
    Column,
    Columns,
    ColumnType,
    Keywords,
    PathLike,
    Row,
    TaskEvaluation,
    TaskGate,
)
from neuronbert.tasks.feature_extraction import results
from neuronbert.tasks.feature_extraction.folder import FILES, MODULES_FILE, encoder_folder, read_modules
from neuronbert.tasks.feature_extraction.inputs import Example, encode_examples, modules_for, prompt_of, text_limit
from neuronbert.tasks.feature_extraction.lines import LINES as LINES
from neuronbert.tasks.feature_extraction.modules import Dense, Layer, hidden_size, modules_of
from neuronbert.tasks.feature_extraction.options import DECODE_OPTIONS as DECODE_OPTIONS
from neuronbert.tasks.feature_extraction.options import ENCODE_OPTIONS as ENCODE_OPTIONS
from neuronbert.tasks.feature_extraction.options import EmbeddingOptions, TextOptions
from neuronbert.tasks.rows import full_rows as rows_of_texts
from neuronbert.tasks.samples import gate_path, shipped_texts

NAME = "feature-extraction"


class FeatureExtractionOutput(NamedTuple):
    """Embeddings as float32, in a torch tensor where the input was one; None for those that the artifact has not.

    ``sentence_embedding`` is [rows, width], ``token_embeddings`` [rows, tokens, width], as wide as the input.
    """

    sentence_embedding: Any = None
    token_embeddings: Any = None


MODEL_OUTPUT = FeatureExtractionOutput
REDUCTION = None
ROW_SELECTION = None


def outputs(config: Config) -> Tuple[Output, ...]:
    """An embedding of each row, where the checkpoint pools; else of each token; both where a prompt may not count."""
    modules, hidden = modules_of(config), hidden_size(config)
    of_rows = Output(results.SENTENCE, PER_ROW, (modules.width(hidden),))
    of_tokens = Output(results.TOKENS, PER_TOKEN, (hidden,))
    if not modules.pooling:
        return (of_tokens,)
    return (of_rows, of_tokens) if modules.pools_on_host else (of_rows,)


def meaning(config: Config) -> Dict[str, str]:
    """How a text's embedding is made of its tokens', and whether all have one length."""
    modules = modules_of(config)
    return {"pooling": f"{modules.pooling_name}, {'to' if modules.normalizes else 'not to'} length 1"}


def _no_shapes(family: Family, hidden: int, labels: int) -> Dict[str, Shape]:
    return {}


def _dense_shapes(config: Config) -> Dict[str, Shape]:
    return {name: shape for layer in modules_of(config).dense for name, shape in layer.shapes.items()}


def _pooling(config: Config) -> str:
    return modules_of(config).pooling_name


@optional_imports()
def _build(encoder: TorchModel, name: str, config: Config) -> TorchModel:
    from neuronbert.tasks.feature_extraction import graph

    return graph.build(encoder, name, config)


@optional_imports()
def _head_forward(model: TorchModel, hidden: Tensor, attention_mask: Tensor) -> Tuple[Tensor, ...]:
    from neuronbert.tasks.feature_extraction import graph

    return graph.outputs_of(model, hidden, attention_mask)


def _head_steps(family: Family, config: Config) -> Tuple[Steps, ...]:
    modules = modules_of(config)
    of_tokens: Steps = ()
    if not modules.pooling:
        return (of_tokens,)
    of_rows: Steps = (Pool(modules.pooling), *map(_step, modules.layers))
    return (of_rows, of_tokens) if modules.pools_on_host else (of_rows,)


def _step(layer: Layer) -> Step:
    if not isinstance(layer, Dense):
        return Normalize()
    weight, bias = f"{layer.name}.linear.weight", f"{layer.name}.linear.bias"
    projected = f"{layer.name}.residual.weight" if layer.inputs != layer.outputs else INPUT
    return Linear(weight, bias if layer.bias else None, layer.activation, projected if layer.residual else None)


HEAD = Head(
    task=NAME,
    class_suffix="Model",
    labels=None,
    shapes=_no_shapes,
    forward=_head_forward,
    steps=_head_steps,
    training_command="sentence-transformers trains encoders such as {source}",
    place=f"{__name__}:HEAD",
    modules=Modules(FILES, MODULES_FILE, encoder_folder, read_modules, _pooling, _dense_shapes, _build),
)


# ---------------------------------------------------------------------------- inputs


def call_input(text: str, **keywords: Any) -> Tuple[str, Keywords]:
    """A text, and the other keywords."""
    return text, keywords


def call_arguments(asked: str) -> Sequence[Any]:
    """The text."""
    return (asked,)


def encode(tokenizer: Tokenizer, inputs: Sequence[str], options: TextOptions) -> List[Example]:
    """Every text as one row, or a long one as several if that is asked for."""
    return encode_examples(tokenizer, inputs, options)


def check_options(tokenizer: Tokenizer, encode: TextOptions, decode: EmbeddingOptions) -> None:
    """UsageError for a max_length that leaves no room for text, and for what the checkpoint has not.

    That is a prompt, or one embedding of a text, which could be cut or made of length 1.
    """
    modules = modules_for(tokenizer)
    text_limit(tokenizer, encode)
    prompt_of(modules, encode)
    results.refuse_of_tokens(modules, decode)


def bucket_options(tokens: Optional[int]) -> TextOptions:
    """Rows of ``tokens`` at most."""
    return TextOptions(max_length=tokens)


def read_inputs(path: Optional[PathLike]) -> List[str]:
    """The texts of a JSONL, CSV, TSV or SQuAD file, or the questions and the paragraphs in the package."""
    from neuronbert.tasks.feature_extraction.data import load_texts

    if path is None:
        return list(dict.fromkeys(text for pair in shipped_texts(gate_path()) for text in pair))
    return load_texts(path)


def full_rows(tokenizer: Tokenizer, inputs: Sequence[str], tokens: int, count: int) -> List[Row]:
    """Rows of ``tokens``, of the texts one after another."""
    return [*rows_of_texts(tokenizer, inputs, tokens, count)]


# ---------------------------------------------------------------------------- results


decode = results.decode


def is_slow_to_decode(example: Example, options: EmbeddingOptions) -> bool:
    """Never: a mean of its rows at most."""
    return False


def call_result(result: results.Result) -> Any:
    """A dictionary of the embedding, and of whether the text was cut."""
    return result


json_result = results.document


def columns(config: Config, options: EmbeddingOptions) -> Columns:
    """An embedding of the text, or where the checkpoint does not pool of its tokens; and whether the text was cut."""
    modules = modules_of(config)
    if not modules.pooling:
        embedding = {results.TOKENS: Column(ColumnType.VECTORS)}
    else:
        width = modules.width(hidden_size(config))
        embedding = {results.EMBEDDING: Column(ColumnType.VECTOR, min(width, results.kept(modules, options) or width))}
    return {**embedding, "truncated": Column(ColumnType.FLAG)}


result_text = results.result_text


# ---------------------------------------------------------------------------- objects of the task


def pipeline(model: Answerer, **keywords: Any) -> Any:
    """A FeatureExtractionPipeline."""
    from neuronbert.tasks.feature_extraction.pipeline import FeatureExtractionPipeline

    return FeatureExtractionPipeline(model, **keywords)


def gate(config: Config) -> TaskGate:
    """Cosine with the reference's embeddings, and how similarities of pairs rank."""
    from neuronbert.tasks.feature_extraction.gate import EmbeddingGate

    return EmbeddingGate.of(config)


def evaluation(
    data: PathLike, limit: Optional[int], window_options: TextOptions, answer_options: EmbeddingOptions
) -> TaskEvaluation:
    """Correlations with the scores of pairs, or how well queries find their texts: an EvaluationReport."""
    from neuronbert.tasks.feature_extraction.evaluation import EmbeddingEvaluation

    return EmbeddingEvaluation.of(data, limit, window_options, answer_options)
