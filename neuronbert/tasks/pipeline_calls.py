"""What the stand-ins for transformers' pipelines share: keywords that mean nothing here, and inputs that never end."""

import os
import sys
import types
import warnings
from itertools import count, islice
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterable, Iterator, List

import neuronbert
from neuronbert.errors import InputError
from neuronbert.tasks.base import Input, Keywords, Result
from neuronbert.tasks.encoding import named_place

# Keywords of transformers' pipelines that change no result here, and why.
IGNORED = {
    "config": "the artifact holds the config it was compiled with",
    "device": "an artifact was compiled for its device; compile another variant to use another device",
    "device_map": "an artifact was compiled for its device; compile another variant to use another device",
    "dtype": "the precision is that of the compiled variant; choose one with variant=",
    "feature_extractor": "the inputs are text",
    "framework": "the engine of the compiled variant runs the model",
    "image_processor": "the inputs are text",
    "model_kwargs": "the model was compiled already",
    "modelcard": "the artifact's manifest describes the model",
    "num_workers": "text is prepared in this process",
    "processor": "the inputs are text",
    "revision": "the artifact holds one revision of the checkpoint; `neuronbert compile --revision` chooses it",
    "token": "an artifact is a local folder; `neuronbert compile --token` reads private checkpoints",
    "tokenizer": "the artifact holds the tokenizer of its checkpoint",
    "torch_dtype": "the precision is that of the compiled variant; choose one with variant=",
    "trust_remote_code": "remote code never runs",
    "use_fast": "the tokenizer is always the fast one",
}
# Those that have no effect on a result in transformers either: nothing is lost, so there is no warning.
WITHOUT_EFFECT = ("padding", "truncation", "args_parser", "binary_output", "task")


def known_keywords(keywords: Keywords, own: Collection[str], task: str) -> Dict[str, Any]:
    """The keywords among ``own`` that have a value; warns of those that have no effect on a pipeline of ``task``."""
    known = {}
    for name, value in keywords.items():
        if value is None or name in WITHOUT_EFFECT or (name == "device" and value in (-1, "cpu")):
            continue
        if name in own:
            known[name] = value
        else:
            reason = IGNORED.get(name, f"the {task} pipeline has no such keyword")
            warn(f"{name}={value!r} is ignored: {reason}")
    return known


def warn(text: str) -> None:
    """Warn at the line that called the pipeline, from however deep in the package."""
    package = str(Path(neuronbert.__file__).parent) + os.sep
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(package):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(text, UserWarning, stacklevel=depth)


def is_stream(items: Any) -> bool:
    """Whether inputs come as a generator or as a torch Dataset, and results are to come one after another too."""
    # A torch Dataset can only have been made where its module is imported already.
    data = sys.modules.get("torch.utils.data")
    return isinstance(items, types.GeneratorType) or (data is not None and isinstance(items, data.Dataset))


def iterate(stream: Any) -> Iterator[Any]:
    """The items of a generator or Dataset."""
    if isinstance(stream, Iterable):
        return iter(stream)
    return (stream[index] for index in range(len(stream)))


def call_each(function: Callable[[Any], Any], items: Iterable[Any], first: int = 0) -> List[Any]:
    """What ``function`` gives for each item; an InputError of its names the item's place, counted from ``first``."""
    given = []
    for number, item in enumerate(items, first):
        with named_place(number):
            given.append(function(item))
    return given


def stream_results(
    items: Iterator[Any],
    batch_size: int,
    read: Callable[[Any], Input],
    answer: Callable[[List[Input]], List[Result]],
) -> Iterator[Result]:
    """The results of a stream's items, of which ``batch_size`` are taken at once; an InputError names its item's place.

    ``read`` makes an input of an item, ``answer`` results of inputs.
    """
    for first in count(0, batch_size):
        inputs = call_each(read, islice(items, batch_size), first)
        if not inputs:
            return
        try:
            results = answer(inputs)
        except InputError:
            # Its place counts from the beginning of the batch.
            call_each(lambda asked: answer([asked]), inputs, first)
            raise
        yield from results
