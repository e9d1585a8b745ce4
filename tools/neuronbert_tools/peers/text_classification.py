"""Text classification for compare_peers (base.PeerTask): transformers' pipeline of that name, and the loop of texts.py.

The classifier is one of the caller's (--model), and BERT-base with random weights. Every peer is measured with the
pipeline and with the loop, each with the batch size that it is fastest with.
"""

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from neuronbert_tools.peers import libraries, texts
from neuronbert_tools.peers.base import Answer, Contender, Figure, Gold, Input, Job, Loaded, Model

NAME = "text-classification"
UNIT = "text"
DATA: Optional[Path] = None
COUNT = 1000
PARTS: Tuple[str, ...] = ("speed", "accuracy")
MODELS: Mapping[str, Model] = {
    "model": Model("the checkpoint of --model; compiled through the gate"),
    "bert-base": Model(
        "random weights: our gate means nothing on them and was skipped; labels mean nothing either", is_trained=False
    ),
}
MAIN_MODEL = "model"
FIGURES: Tuple[Figure, ...] = (
    Figure("accuracy", "accuracy", "%", scale=100, decimals=2),
    Figure("macro_f1", "macro F1", "%", scale=100, decimals=2),
    Figure("matthews", "Matthews × 100", scale=100, decimals=2),
)
# Four times the pipeline as it is without a keyword, and 1.2 times the fastest of all.
_LEAST = {"transformers-fp32 batch-1": 4.0, "best peer": 1.2}
SPEED_TARGETS: Mapping[str, Mapping[str, float]] = {"model": _LEAST, "bert-base": _LEAST}
MOST_LOST = 0.5
HEAD_SIZES = 0

HEAD = "ForSequenceClassification"
LOGITS = "logits"


def refuse_model(model: Path) -> None:
    """One that gives several labels, or a score, has no label to compare."""
    from neuronbert.errors import InputError
    from neuronbert.tasks.text_classification.problem import SINGLE_LABEL, problem_of

    problem = problem_of(texts.config_of(model))
    if problem.kind != SINGLE_LABEL:
        raise InputError(f"the checkpoint's problem is {problem.kind}", hint=f"a checkpoint for {SINGLE_LABEL}")


def read(data: Path, count: int) -> List[Input]:
    return texts.spaced(texts.read_texts(data), count)


def calibration(data: Optional[Path]) -> List[Input]:
    return texts.calibration_texts(data)


def start_commands(pythons: Mapping[str, Path], model: Path, artifact: Path) -> Dict[str, List[str]]:
    return {}


def make_model(name: str, folder: Path, source: Path, seed: int) -> None:
    if name == MAIN_MODEL:
        libraries.copy_as_float32(folder, source, HEAD)
    else:
        libraries.make_random_bert(folder, source, HEAD, seed)


def plain(answers: Any) -> List[Answer]:
    return [answer["label"] for answer in answers]


def count_tokens(model: Path, inputs: Sequence[Input]) -> List[int]:
    return texts.count_tokens(model, inputs, None)


def golds(data: Path, count: int, model: Path) -> Optional[List[Gold]]:
    """The labels' names. InputError for one that the checkpoint lacks."""
    from neuronbert.tasks.text_classification.data import labelled, load_raw
    from neuronbert.tasks.text_classification.problem import problem_of

    problem = problem_of(texts.config_of(model))
    found = [labelled(raw, problem, data).label for raw in texts.spaced(load_raw(data), count)]
    if None in found:
        return None
    return [problem.labels[number] for number in found if isinstance(number, int)]


def scores(golds: Optional[Sequence[Gold]], answers: Mapping[str, Sequence[Answer]]) -> Dict[str, float]:
    """Accuracy in percent."""
    if golds is None:
        return {}
    return {name: 100 * sum(map(str.__eq__, golds, given)) / len(golds) for name, given in answers.items()}


# ---------------------------------------------------------------------------- contenders


def load_transformers_fp32(job: Job) -> Loaded:
    return _torch(libraries.torch_model(job, HEAD), job)


def load_transformers_int8(job: Job) -> Loaded:
    return _torch(libraries.torch_int8(libraries.torch_model(job, HEAD)), job)


def load_onnxruntime_fp32(job: Job) -> Loaded:
    return _onnxruntime(job, libraries.ONNX_FP32)


def load_onnxruntime_int8(job: Job) -> Loaded:
    return _onnxruntime(job, libraries.ONNX_INT8)


def load_openvino_int8(job: Job) -> Loaded:
    model = libraries.openvino_model(job, HEAD)
    return Loaded(_answer(model, job, texts.forward_of(model, LOGITS)), libraries.openvino_facts(model))


def load_openvino_int8_streams(job: Job) -> Loaded:
    """What optimum-intel compiled, used as OpenVINO's documentation advises for throughput."""
    model = libraries.openvino_model(job, HEAD, PERFORMANCE_HINT="THROUGHPUT")
    tokenizer = libraries.tokenizer_of(job)
    run = texts.openvino_streams(tokenizer, model.request, _labels_of(model), texts.max_positions(job.model))
    return Loaded(lambda asked, mode: run(asked, texts.batch_size(mode)), libraries.openvino_facts(model))


def load_neuronbert(job: Job) -> Loaded:
    import neuronbert

    engine = neuronbert.Engine(str(job.model), threads=job.threads)
    classify = neuronbert.pipeline(NAME, model=engine)

    def answer(asked: Sequence[Input], mode: str) -> List[Any]:
        if mode == "one-by-one":
            return [classify(text)[0] for text in asked]
        results: List[Any] = classify(list(asked))
        return results

    facts = {"variant": engine.variant["name"], "precision": engine.session.precision, "streams": engine.streams}
    return Loaded(answer, {**facts, "threads": engine.threads})


def _torch(model: Any, job: Job) -> Loaded:
    return Loaded(_answer(model, job, texts.torch_forward(model, LOGITS)), libraries.torch_facts())


def _onnxruntime(job: Job, file_name: str) -> Loaded:
    model = libraries.onnx_model(job, HEAD, file_name)
    return Loaded(_answer(model, job, texts.forward_of(model, LOGITS)), {"threads": job.threads})


def _answer(model: Any, job: Job, forward: texts.Forward) -> Callable[[Sequence[Input], str], Any]:
    """The modes "batch-N", transformers' pipeline, and "loop-N"."""
    from transformers import pipeline

    tokenizer = libraries.tokenizer_of(job)
    classify = pipeline(NAME, model=model, tokenizer=tokenizer, device="cpu")
    run = texts.loop(tokenizer, forward, _labels_of(model), texts.max_positions(job.model))

    def answer(asked: Sequence[Input], mode: str) -> Any:
        if mode.startswith("loop-"):
            return run(asked, texts.batch_size(mode))
        return classify(list(asked), batch_size=texts.batch_size(mode), truncation=True)

    return answer


def _labels_of(model: Any) -> texts.Decode:
    """What the pipeline gives for logits [texts, labels]."""
    import numpy as np

    names = model.config.id2label

    def labels_of(logits: Any, tokens: texts.Tokens) -> List[Dict[str, Any]]:
        powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
        shares = powers / powers.sum(axis=-1, keepdims=True)
        best = shares.argmax(axis=-1).tolist()
        return [{"label": names[label], "score": float(shares[row, label])} for row, label in enumerate(best)]

    return labels_of


def _tokenise(tokenizer: Any, text: Input) -> texts.Tokens:
    return texts.tokenise(tokenizer, [text], tokenizer.model_max_length)


EXPORTS = libraries.exports(HEAD, _tokenise)
PIPELINE, LOOP = texts.modes("batch", (8, 32, 64)), texts.modes("loop", (8, 32, 128))
PROBED = (PIPELINE, LOOP)
CONTENDERS: Mapping[str, Contender] = {
    "neuronbert": Contender("neuronbert", ("one-by-one", "list"), load_neuronbert),
    "neuronbert-fp32": Contender("neuronbert", ("list",), load_neuronbert, compile_options=("--precision", "fp32")),
    "transformers-fp32": Contender("transformers-5", ("batch-1",), load_transformers_fp32, PROBED),
    "transformers-int8": Contender("transformers-5", (), load_transformers_int8, PROBED),
    "onnxruntime-fp32": Contender("optimum-onnx", (), load_onnxruntime_fp32, PROBED, EXPORTS["onnx-fp32"]),
    "onnxruntime-int8": Contender("optimum-onnx", (), load_onnxruntime_int8, PROBED, EXPORTS["onnx-int8"]),
    "openvino-int8": Contender("optimum-intel", (), load_openvino_int8, PROBED, EXPORTS["openvino-int8"]),
    "openvino-int8-streams": Contender(
        "optimum-intel", (), load_openvino_int8_streams,
        (texts.modes("loop", (4, 8, 16, 32)),), EXPORTS["openvino-int8"],
    ),
}  # fmt: skip
