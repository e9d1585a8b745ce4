"""What the tasks of single texts share: which texts are asked, and batches of similar length for every library.

transformers' pipelines take texts in the order they are given; who wants more from a library writes the loop that is
here: sorted by length, tokenised a batch at a time, and with OpenVINO several batches at once.
"""

import json
from pathlib import Path
from typing import Any, Callable, Iterator, List, Mapping, Optional, Sequence, Tuple, TypeVar

from neuronbert_tools.peers.base import Input
from neuronbert_tools.questions import squad_pairs

Item = TypeVar("Item")
Tokens = Mapping[str, Any]  # arrays [texts, tokens] by name
Forward = Callable[[Tokens], Any]  # the model's output, an array
Decode = Callable[[Any, Tokens], Sequence[Any]]  # the model's output → a result for each text
Batched = Callable[[Sequence[str], int], List[Any]]  # (texts, batch size) → results in order

CALIBRATION_TEXTS = 128  # as many as neuronbert reads


def spaced(items: Sequence[Item], count: int) -> List[Item]:
    """``count`` items (or all, if fewer) spread evenly: the labelled files that people publish are sorted by label."""
    count = min(count, len(items))
    return [items[number * len(items) // count] for number in range(count)]


def calibration_texts(data: Optional[Path]) -> List[Input]:
    """Texts of a data file, or questions and paragraphs that neuronbert ships (needs neuronbert)."""
    from neuronbert.tasks.samples import calibration_path, shipped_texts

    if data is not None:
        return spaced(read_texts(data), CALIBRATION_TEXTS)
    shipped = spaced(shipped_texts(calibration_path()), CALIBRATION_TEXTS)
    return [sample.question if number % 2 else sample.paragraph for number, sample in enumerate(shipped)]


def read_texts(data: Path) -> List[str]:
    """The texts of a labelled file, or the paragraphs of a SQuAD-format one (needs neuronbert).

    InputError for one that cannot be read, and for pairs of texts.
    """
    from neuronbert.errors import InputError
    from neuronbert.tasks.text_classification.data import load_raw

    if data.suffix == ".json":
        return list(dict.fromkeys(context for _, context in squad_pairs(data)))
    texts = [raw.asked for raw in load_raw(data)]
    pairs = [text for text in texts if not isinstance(text, str)]
    if pairs:
        raise InputError(f"{data} holds pairs of texts", hint="a file with one text in each line")
    return [text for text in texts if isinstance(text, str)]


def count_tokens(model: Path, inputs: Sequence[Input], max_length: Optional[int]) -> List[int]:
    """Tokens of the row of each text, without padding (needs neuronbert)."""
    from neuronbert.checkpoint.tokenizer import Tokenizer
    from neuronbert.tasks.rows import encode_rows

    return [len(cut.row.input_ids) for cut in encode_rows(Tokenizer.from_files(model), inputs, max_length)]


def batches(texts: Sequence[str], size: int) -> Iterator[List[int]]:
    """The numbers of the texts, ``size`` at a time, longest first."""
    order = sorted(range(len(texts)), key=lambda number: -len(texts[number]))
    for first in range(0, len(order), size):
        yield order[first : first + size]


def batch_size(mode: str) -> int:
    """Of a mode such as "loop-32"."""
    return int(mode.rpartition("-")[2])


def modes(kind: str, sizes: Sequence[int]) -> Tuple[str, ...]:
    return tuple(f"{kind}-{size}" for size in sizes)


def loop(tokenizer: Any, forward: Forward, decode: Decode, max_length: int) -> Batched:
    """One batch after another."""

    def run(texts: Sequence[str], size: int) -> List[Any]:
        results: List[Any] = [None] * len(texts)
        for numbers in batches(texts, size):
            tokens = tokenise(tokenizer, [texts[number] for number in numbers], max_length)
            for number, result in zip(numbers, decode(forward(tokens), tokens)):
                results[number] = result
        return results

    return run


def openvino_streams(tokenizer: Any, compiled: Any, decode: Decode, max_length: int) -> Batched:
    """As many batches at once as OpenVINO has requests for; ``compiled``'s first output is decoded."""
    import openvino

    names = [each.get_any_name() for each in compiled.inputs]
    queue = openvino.AsyncInferQueue(compiled)

    def run(texts: Sequence[str], size: int) -> List[Any]:
        results: List[Any] = [None] * len(texts)

        def done(request: Any, job: Tuple[List[int], Tokens]) -> None:
            numbers, tokens = job
            for number, result in zip(numbers, decode(request.get_output_tensor(0).data, tokens)):
                results[number] = result

        queue.set_callback(done)
        for numbers in batches(texts, size):
            tokens = tokenise(tokenizer, [texts[number] for number in numbers], max_length)
            queue.start_async({name: tokens[name] for name in names}, (numbers, tokens))
        queue.wait_all()
        return results

    return run


def tokenise(tokenizer: Any, texts: Sequence[str], max_length: int) -> Tokens:
    """Arrays of int64, padded to the longest text."""
    tokens: Tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=max_length, return_tensors="np")
    return tokens


def torch_forward(model: Any, output: str) -> Forward:
    """The output called so of a model of torch's."""
    import torch

    def forward(tokens: Tokens) -> Any:
        with torch.inference_mode():
            return model(**{name: torch.from_numpy(array) for name, array in tokens.items()})[output].numpy()

    return forward


def forward_of(model: Any, output: str) -> Forward:
    """The output called so of a model of optimum's, which takes and gives numpy's arrays."""
    return lambda tokens: model(**tokens)[output]


def config_of(model: Path) -> Any:
    """A checkpoint's config.json."""
    return json.loads((model / "config.json").read_text(encoding="utf-8"))


def max_positions(model: Path) -> int:
    """The longest row that a checkpoint of BERT's family reads, in tokens."""
    config = config_of(model)
    # RoBERTa counts positions from behind that of its padding.
    unused = int(config["pad_token_id"]) + 1 if config["model_type"] == "roberta" else 0
    return int(config["max_position_embeddings"]) - unused


def width(model: Path) -> int:
    """Numbers in a token's embedding."""
    config = config_of(model)
    return int(config["dim"] if config["model_type"] == "distilbert" else config["hidden_size"])
