"""Question answering for compare_peers (base.PeerTask): every peer through transformers' pipeline of that name."""

from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from neuronbert_tools.paths import SAMPLES, XQUAD
from neuronbert_tools.peers import libraries, texts
from neuronbert_tools.peers.base import Answer, Contender, Figure, Gold, Input, Job, Loaded, Model
from neuronbert_tools.questions import squad_pairs

NAME = "question-answering"
UNIT = "question"
DATA: Optional[Path] = XQUAD
COUNT = 100
PARTS = ("speed", "start", "accuracy")
MODELS = {
    "demo": Model("the shipped checkpoint; compiled through the gate"),
    "bert-base": Model(
        "random weights: our gate means nothing on them and was skipped; answers and F1 mean nothing either",
        is_trained=False,
    ),
}
MAIN_MODEL = "demo"
FIGURES: Tuple[Figure, ...] = (Figure("f1", "F1"), Figure("exact_match", "exact match"))
# The least that was asked of each model: ratios of speeds, and the share of the int8 GEMM rate.
SPEED_TARGETS: Mapping[str, Mapping[str, float]] = {
    "bert-base": {"best peer": 1.2, "transformers-fp32": 5.0, "int8 GEMM": 0.84},
    "demo": {"best peer": 1.4, "int8 GEMM": 0.70},
}
MOST_LOST = 1.0
HEAD_SIZES = 2  # start and end

CALIBRATION = SAMPLES / "calibration.json"
MAX_TOKENS = 384  # the pipeline's own default
HEAD = "ForQuestionAnswering"


def refuse_model(model: Path) -> None:
    """None is: the models are fixed."""


def read(data: Path, count: int) -> List[Input]:
    return [list(pair) for pair in texts.spaced(list(squad_pairs(data)), count)]


def calibration(data: Optional[Path]) -> List[Input]:
    return [list(pair) for pair in squad_pairs(data or CALIBRATION)]


def start_commands(pythons: Mapping[str, Path], model: Path, artifact: Path) -> Dict[str, List[str]]:
    """The same question asked of both: our command, and a script with the transformers pipeline."""
    question, context = "Who was Jim Henson?", "Jim Henson was a nice puppet"
    script = Path(__file__).with_name("first_answer.py")
    return {
        "neuronbert": [
            str(pythons["neuronbert"].with_name("neuronbert")),
            *("answer", str(artifact), "--question", question, "--context", context),
        ],
        "transformers-fp32": [str(pythons["transformers"]), str(script), str(model), question, context],
    }


def make_model(name: str, folder: Path, source: Path, seed: int) -> None:
    if name == MAIN_MODEL:
        libraries.copy_as_float32(folder, source, HEAD)
    else:
        libraries.make_random_bert(folder, source, HEAD, seed)


def plain(answers: Any) -> List[Answer]:
    return list(answers)


def count_tokens(model: Path, inputs: Sequence[Input]) -> List[int]:
    """Tokens of every window of the workload, without padding."""
    from neuronbert.checkpoint.tokenizer import Tokenizer
    from neuronbert.tasks.question_answering.options import WindowOptions
    from neuronbert.tasks.question_answering.windows import encode_examples

    examples = encode_examples(Tokenizer.from_files(model), [tuple(pair) for pair in inputs], WindowOptions())
    return [len(window.input_ids) for example in examples for window in example.windows]


def golds(data: Path, count: int, model: Path) -> Optional[List[Gold]]:
    from neuronbert.tasks.question_answering.squad import load_squad

    return [list(question.answers) for question in load_squad(data)[:count]]


def scores(golds: Optional[Sequence[Gold]], answers: Mapping[str, Sequence[Answer]]) -> Dict[str, float]:
    """F1 in percent."""
    from neuronbert.tasks.question_answering.metrics import mean_f1

    assert golds is not None, "a SQuAD-format file has answers"
    return {name: 100 * mean_f1(list(given), list(golds)) for name, given in answers.items()}


# ---------------------------------------------------------------------------- contenders


def load_transformers_fp32(job: Job) -> Loaded:
    return Loaded(_pipeline(libraries.torch_model(job, HEAD), job), libraries.torch_facts())


def load_transformers_int8(job: Job) -> Loaded:
    model = libraries.torch_int8(libraries.torch_model(job, HEAD))
    return Loaded(_pipeline(model, job), libraries.torch_facts())


def load_onnxruntime_fp32(job: Job) -> Loaded:
    return _onnxruntime(job, libraries.ONNX_FP32)


def load_onnxruntime_int8(job: Job) -> Loaded:
    return _onnxruntime(job, libraries.ONNX_INT8)


def load_openvino_fp32(job: Job) -> Loaded:
    # Its default depends on the machine: bf16 where the CPU has it.
    return _openvino(job, INFERENCE_PRECISION_HINT="f32")


def load_openvino_int8(job: Job) -> Loaded:
    return _openvino(job)


def load_neuronbert(job: Job) -> Loaded:
    import neuronbert

    engine = neuronbert.Engine(str(job.model), threads=job.threads)
    engine.tokenizer.recent.resize(0)  # every pass is over the same contexts: each is to cost what the first does
    qa = neuronbert.pipeline(NAME, model=engine)

    def answer(pairs: Sequence[Input], mode: str) -> List[str]:
        if mode == "one-by-one":
            return [qa(question=question, context=context)["answer"] for question, context in pairs]
        return _texts(qa(question=[q for q, _ in pairs], context=[c for _, c in pairs]))

    facts = {"variant": engine.variant["name"], "precision": engine.session.precision, "streams": engine.streams}
    return Loaded(answer, {**facts, "threads": engine.threads})


def _pipeline(model: Any, job: Job) -> Callable[[Sequence[Input], str], List[str]]:
    from transformers import pipeline

    qa = pipeline(NAME, model=model, tokenizer=libraries.tokenizer_of(job), device="cpu")

    def answer(pairs: Sequence[Input], mode: str) -> List[str]:
        batch_size = int(mode.rpartition("-")[2])
        return _texts(qa(question=[q for q, _ in pairs], context=[c for _, c in pairs], batch_size=batch_size))

    return answer


def _texts(results: Any) -> List[str]:
    return [result["answer"] for result in (results if isinstance(results, list) else [results])]


def _onnxruntime(job: Job, file_name: str) -> Loaded:
    return Loaded(_pipeline(libraries.onnx_model(job, HEAD, file_name), job), {"threads": job.threads})


def _openvino(job: Job, **options: str) -> Loaded:
    model = libraries.openvino_model(job, HEAD, **options)
    return Loaded(_pipeline(model, job), libraries.openvino_facts(model))


def _tokenise(tokenizer: Any, pair: Input) -> Mapping[str, Any]:
    tokenised: Mapping[str, Any] = tokenizer(
        *pair, truncation="only_second", max_length=MAX_TOKENS, return_tensors="np"
    )
    return tokenised


BATCHES = ("batch-1", "batch-8")
EXPORTS = libraries.exports(HEAD, _tokenise)
CONTENDERS: Mapping[str, Contender] = {
    "neuronbert": Contender("neuronbert", ("one-by-one", "list"), load_neuronbert),
    "transformers-fp32": Contender("transformers", BATCHES, load_transformers_fp32),
    "transformers-int8": Contender("transformers", BATCHES, load_transformers_int8),
    "onnxruntime-fp32": Contender("optimum-onnx", BATCHES, load_onnxruntime_fp32, export=EXPORTS["onnx-fp32"]),
    "onnxruntime-int8": Contender("optimum-onnx", BATCHES, load_onnxruntime_int8, export=EXPORTS["onnx-int8"]),
    "openvino-fp32": Contender("optimum-intel", BATCHES, load_openvino_fp32, export=EXPORTS["openvino-fp32"]),
    "openvino-int8": Contender("optimum-intel", BATCHES, load_openvino_int8, export=EXPORTS["openvino-int8"]),
}
