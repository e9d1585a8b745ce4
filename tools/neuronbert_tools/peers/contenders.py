"""The contenders: how each loads a model in its own environment and answers a list of questions (run by worker.py).

Every peer is used as its documentation shows, through the transformers 4.57 ``question-answering`` pipeline, and is
given the same number of threads as we are. Heavy imports are inside the functions: the parent reads only the table.
"""

import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

from neuronbert_tools.questions import Pair, squad_pairs

MAX_TOKENS = 384  # the pipeline's own default


class Job(NamedTuple):
    """Where a contender finds what it needs."""

    model: Path  # a checkpoint folder, float32; for neuronbert an artifact
    prepared: Path  # where an export may be kept for the next run
    calibration: Path  # SQuAD-format questions for int8
    threads: int


class Loaded(NamedTuple):
    """A model ready to answer: ``answer(pairs, mode)`` gives the answers' texts in order."""

    answer: Callable[[Sequence[Pair], str], List[str]]
    facts: Dict[str, Any]


class Contender(NamedTuple):
    """One line of the table."""

    environment: str
    modes: Tuple[str, ...]
    load: Callable[[Job], Loaded]


def load_transformers_fp32(job: Job) -> Loaded:
    return _transformers_pipeline(_torch_model(job), job)


def load_transformers_int8(job: Job) -> Loaded:
    import torch

    model = torch.ao.quantization.quantize_dynamic(_torch_model(job), {torch.nn.Linear}, dtype=torch.qint8)
    return _transformers_pipeline(model, job)


def load_onnxruntime_fp32(job: Job) -> Loaded:
    return _onnxruntime_pipeline(job, "model.onnx")


def load_onnxruntime_int8(job: Job) -> Loaded:
    return _onnxruntime_pipeline(job, "model_quantized.onnx")


def load_openvino_fp32(job: Job) -> Loaded:
    return _openvino_pipeline(_prepare(job.prepared, lambda folder: _export_openvino(job, folder)), job, "f32")


def load_openvino_int8(job: Job) -> Loaded:
    return _openvino_pipeline(_prepare(job.prepared, lambda folder: _quantize_openvino(job, folder)), job, None)


def load_neuronbert(job: Job) -> Loaded:
    import neuronbert

    engine = neuronbert.Engine(str(job.model), threads=job.threads)
    qa = neuronbert.pipeline("question-answering", model=engine)

    def answer(pairs: Sequence[Pair], mode: str) -> List[str]:
        if mode == "one-by-one":
            return [qa(question=question, context=context)["answer"] for question, context in pairs]
        return _texts(qa(question=[q for q, _ in pairs], context=[c for _, c in pairs]))

    facts = {"variant": engine.variant["name"], "precision": engine.session.precision, "streams": engine.streams}
    return Loaded(answer, {**facts, "threads": engine.threads})


CONTENDERS: Mapping[str, Contender] = {
    "neuronbert": Contender("neuronbert", ("one-by-one", "list"), load_neuronbert),
    "transformers-fp32": Contender("transformers", ("batch-1", "batch-8"), load_transformers_fp32),
    "transformers-int8": Contender("transformers", ("batch-1", "batch-8"), load_transformers_int8),
    "onnxruntime-fp32": Contender("optimum-onnx", ("batch-1", "batch-8"), load_onnxruntime_fp32),
    "onnxruntime-int8": Contender("optimum-onnx", ("batch-1", "batch-8"), load_onnxruntime_int8),
    "openvino-fp32": Contender("optimum-intel", ("batch-1", "batch-8"), load_openvino_fp32),
    "openvino-int8": Contender("optimum-intel", ("batch-1", "batch-8"), load_openvino_int8),
}


def make_random_bert(folder: Path, tokenizer_from: Path, seed: int) -> None:
    """Write BERT-base (the default BertConfig) with random weights and a real tokenizer of the same vocabulary size."""
    import torch
    from transformers import AutoTokenizer, BertConfig, BertForQuestionAnswering

    torch.manual_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(tokenizer_from)
    BertForQuestionAnswering(BertConfig(vocab_size=len(tokenizer))).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copy_as_float32(folder: Path, source: Path) -> None:
    """Write ``source`` again in float32, so that every contender starts from the same numbers.

    Some of them would otherwise load float16 weights as float16 and run so.
    """
    import torch
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    AutoModelForQuestionAnswering.from_pretrained(source, dtype=torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)


def _texts(results: Any) -> List[str]:
    return [result["answer"] for result in (results if isinstance(results, list) else [results])]


def _hugging_face_answer(model: Any, job: Job) -> Callable[[Sequence[Pair], str], List[str]]:
    from transformers import AutoTokenizer, pipeline

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    qa = pipeline("question-answering", model=model, tokenizer=tokenizer, device="cpu")

    def answer(pairs: Sequence[Pair], mode: str) -> List[str]:
        batch_size = int(mode.rpartition("-")[2])
        return _texts(qa(question=[q for q, _ in pairs], context=[c for _, c in pairs], batch_size=batch_size))

    return answer


def _torch_model(job: Job) -> Any:
    import torch
    from transformers import AutoModelForQuestionAnswering

    torch.set_num_threads(job.threads)
    return AutoModelForQuestionAnswering.from_pretrained(job.model, dtype=torch.float32).eval()


def _transformers_pipeline(model: Any, job: Job) -> Loaded:
    import torch

    return Loaded(_hugging_face_answer(model, job), {"threads": torch.get_num_threads()})


def _prepare(folder: Path, make: Callable[[Path], None]) -> Path:
    """``folder``, made under another name first so that a half-made one is never used."""
    if not folder.exists():
        unfinished = folder.with_name(folder.name + ".unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        make(unfinished)
        unfinished.rename(folder)
    return folder


def _onnxruntime_pipeline(job: Job, file_name: str) -> Loaded:
    import onnxruntime
    from optimum.onnxruntime import ORTModelForQuestionAnswering

    quantized = "quantized" in file_name
    folder = _prepare(job.prepared, lambda unfinished: _export_onnx(job, unfinished, quantized))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    model = ORTModelForQuestionAnswering.from_pretrained(folder, file_name=file_name, session_options=options)
    return Loaded(_hugging_face_answer(model, job), {"threads": job.threads})


def _export_onnx(job: Job, folder: Path, quantized: bool) -> None:
    from optimum.onnxruntime import ORTModelForQuestionAnswering, ORTQuantizer
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    model = ORTModelForQuestionAnswering.from_pretrained(job.model, export=True)
    if not quantized:
        model.save_pretrained(folder)
        return
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    ORTQuantizer.from_pretrained(model).quantize(save_dir=folder, quantization_config=config)


def _openvino_pipeline(folder: Path, job: Job, precision: Any) -> Loaded:
    from optimum.intel import OVModelForQuestionAnswering

    options = {"INFERENCE_NUM_THREADS": job.threads}
    if precision is not None:  # its default depends on the machine: bf16 where the CPU has it
        options["INFERENCE_PRECISION_HINT"] = precision
    model = OVModelForQuestionAnswering.from_pretrained(folder, ov_config=options)
    answer = _hugging_face_answer(model, job)
    compiled = model.request
    names = ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT")
    return Loaded(answer, {name.lower(): str(compiled.get_property(name)) for name in names})


def _export_openvino(job: Job, folder: Path) -> None:
    from optimum.intel import OVModelForQuestionAnswering

    OVModelForQuestionAnswering.from_pretrained(job.model, export=True, compile=False).save_pretrained(folder)


def _quantize_openvino(job: Job, folder: Path) -> None:
    """NNCF post-training quantisation as optimum-intel does it by default for transformers, calibrated as ours is."""
    import nncf
    from optimum.intel import OVConfig, OVModelForQuestionAnswering, OVQuantizationConfig, OVQuantizer
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.model)
    model = OVModelForQuestionAnswering.from_pretrained(job.model, export=True, compile=False)
    rows = [
        dict(tokenizer(question, context, truncation="only_second", max_length=MAX_TOKENS, return_tensors="np"))
        for question, context in squad_pairs(job.calibration)
    ]
    config = OVConfig(quantization_config=OVQuantizationConfig(num_samples=len(rows)))
    OVQuantizer.from_pretrained(model).quantize(nncf.Dataset(rows), save_directory=folder, ov_config=config)
