"""Sentence embeddings for compare_peers (base.PeerTask): sentence-transformers with each of its backends, and others.

The encoder is one of the caller's (--model), a folder of sentence-transformers' or a bare checkpoint, and BERT-base
with random weights; the mean of the tokens, made a length of 1, is its embedding of a text.
"""

import json
import shutil
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Tuple

from neuronbert_tools.peers import libraries, texts
from neuronbert_tools.peers.base import Answer, Contender, Export, Figure, Gold, Input, Job, Loaded, Model

NAME = "feature-extraction"
UNIT = "text"
DATA: Optional[Path] = None
COUNT = 1000
PARTS: Tuple[str, ...] = ("speed",)
MODELS: Mapping[str, Model] = {
    "model": Model("the encoder of --model; compiled through the gate"),
    "bert-base": Model("random weights: our gate means nothing on them and was skipped", is_trained=False),
}
MAIN_MODEL = "model"
BASELINE = "sentence-transformers-fp32"
# Of a contender's embeddings with the BASELINE's, on average.
FIGURES: Tuple[Figure, ...] = (Figure("cosine", "cosine with FP32", decimals=4),)
# Four times sentence-transformers as it is without a keyword, and 1.2 times the fastest of all.
_LEAST = {f"{BASELINE} batch-32": 4.0, "best peer": 1.2}
SPEED_TARGETS: Mapping[str, Mapping[str, float]] = {"model": _LEAST, "bert-base": _LEAST}
MOST_LOST = 0.01
HEAD_SIZES = 0

HEAD = "ForFeatureExtraction"
STATES = "last_hidden_state"
MODULES_FILE, POOLING_FILE, LENGTH_FILE = "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.onnx", "*.xml")
DECIMALS = 6  # of the numbers that are compared

Encode = Callable[[Sequence[str], int], Any]  # (texts, batch size) → an embedding for each


def read(data: Path, count: int) -> List[Input]:
    return texts.spaced(texts.read_texts(data), count)


def calibration(data: Optional[Path]) -> List[Input]:
    return texts.calibration_texts(data)


def start_commands(pythons: Mapping[str, Path], model: Path, artifact: Path) -> Dict[str, List[str]]:
    return {}


def make_model(name: str, folder: Path, source: Path, seed: int) -> None:
    """The checkpoint, and the files that make a sentence encoder of it where it has none.

    Written as sentence-transformers did before 6.0: every release reads that.
    """
    if name != MAIN_MODEL:
        libraries.make_random_bert(folder, source, "Model", seed)
    else:
        shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*WEIGHTS))
        libraries.copy_as_float32(folder, source, "")
    if not (folder / MODULES_FILE).exists():
        _write_modules(folder)


def _write_modules(folder: Path) -> None:
    kinds = (("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize"))
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for number, (kind, path) in enumerate(kinds)
    ]
    width = texts.config_of(folder)["hidden_size"]
    written: Dict[str, Any] = {
        MODULES_FILE: modules,
        POOLING_FILE: {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True},
        LENGTH_FILE: {"max_seq_length": texts.max_positions(folder), "do_lower_case": False},
    }
    for name, content in written.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def plain(answers: Any) -> List[Answer]:
    import numpy as np

    embeddings: List[Answer] = np.asarray(answers, dtype=np.float64).round(DECIMALS).tolist()
    return embeddings


def count_tokens(model: Path, inputs: Sequence[Input]) -> List[int]:
    return texts.count_tokens(model, inputs, max_length(model))


def golds(data: Path, count: int, model: Path) -> Optional[List[Gold]]:
    """None: the embeddings are compared with one another."""
    return None


def scores(golds: Optional[Sequence[Gold]], answers: Mapping[str, Sequence[Answer]]) -> Dict[str, float]:
    """The mean cosine of a contender's embeddings with those of the BASELINE, where that one was measured."""
    import numpy as np

    if BASELINE not in answers:
        return {}
    reference = _normalised(np.array(answers[BASELINE]))
    return {
        name: float((_normalised(np.array(given)) * reference).sum(axis=1).mean()) for name, given in answers.items()
    }


def _normalised(embeddings: Any) -> Any:
    import numpy as np

    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


def max_length(model: Path) -> int:
    """Tokens of a text that are read, special ones included."""
    return int(json.loads((model / LENGTH_FILE).read_text(encoding="utf-8"))["max_seq_length"])


# ---------------------------------------------------------------------------- exports


def _export_onnx(model: Path, folder: Path, rows: Sequence[Input]) -> None:
    _copy_small_files(model, folder)
    libraries.export_onnx(model, folder, rows, HEAD)


def _quantize_onnx(model: Path, folder: Path, rows: Sequence[Input]) -> None:
    _copy_small_files(model, folder)
    libraries.quantize_onnx(model, folder, rows, HEAD)


def _quantize_openvino(model: Path, folder: Path, rows: Sequence[Input]) -> None:
    _copy_small_files(model, folder)
    length = max_length(model)
    libraries.quantize_openvino(
        model, folder, rows, HEAD, lambda tokenizer, text: texts.tokenise(tokenizer, [text], length)
    )


def _copy_small_files(model: Path, folder: Path) -> None:
    """The tokenizer and the files of sentence-transformers."""
    shutil.copytree(model, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*WEIGHTS))


ONNX_FP32 = Export("onnx-fp32", "optimum-onnx", _export_onnx)
ONNX_INT8 = Export("onnx-int8", "optimum-onnx", _quantize_onnx)
# infinity writes an optimised model beside the one that it finds.
ONNX_OF_INFINITY = Export("infinity-onnx", "optimum-onnx", _quantize_onnx)
OPENVINO_INT8 = Export("openvino-int8", "optimum-intel", _quantize_openvino, is_calibrated=True)


# ---------------------------------------------------------------------------- contenders


def load_neuronbert(job: Job) -> Loaded:
    import neuronbert

    encoder = neuronbert.SentenceEncoder(str(job.model), threads=job.threads)

    def answer(asked: Sequence[Input], mode: str) -> Any:
        return [encoder.encode(text) for text in asked] if mode == "one-by-one" else encoder.encode(list(asked))

    engine = encoder.engine
    facts = {"variant": engine.variant["name"], "precision": engine.session.precision, "streams": engine.streams}
    return Loaded(answer, {**facts, "threads": engine.threads})


def load_sentence_transformers(job: Job) -> Loaded:
    return _encoder_of_torch(job)


def load_sentence_transformers_int8(job: Job) -> Loaded:
    return _encoder_of_torch(job, libraries.torch_int8)


def load_sentence_transformers_onnx_fp32(job: Job) -> Loaded:
    return _encoder_of_onnx(job, libraries.ONNX_FP32)


def load_sentence_transformers_onnx_int8(job: Job) -> Loaded:
    return _encoder_of_onnx(job, libraries.ONNX_INT8)


def load_sentence_transformers_openvino_int8(job: Job) -> Loaded:
    options = {"file_name": "openvino_model.xml", "ov_config": {"INFERENCE_NUM_THREADS": job.threads}}
    encoder = _sentence_transformer(job.prepared, backend="openvino", model_kwargs=options)
    return Loaded(_answer(_encode(encoder)), libraries.openvino_facts(encoder[0].auto_model))


def load_onnxruntime_fp32(job: Job) -> Loaded:
    return _onnxruntime(job, libraries.ONNX_FP32)


def load_onnxruntime_int8(job: Job) -> Loaded:
    return _onnxruntime(job, libraries.ONNX_INT8)


def load_openvino_int8(job: Job) -> Loaded:
    model = libraries.openvino_model(job, HEAD)
    run = texts.loop(libraries.tokenizer_of(job), texts.forward_of(model, STATES), mean_of, max_length(job.model))
    return Loaded(_answer(run), libraries.openvino_facts(model))


def load_openvino_int8_streams(job: Job) -> Loaded:
    """What optimum-intel compiled, used as OpenVINO's documentation advises for throughput."""
    model = libraries.openvino_model(job, HEAD, PERFORMANCE_HINT="THROUGHPUT")
    run = texts.openvino_streams(libraries.tokenizer_of(job), model.request, mean_of, max_length(job.model))
    return Loaded(_answer(run), libraries.openvino_facts(model))


def load_fastembed_fp32(job: Job) -> Loaded:
    return _fastembed(job, libraries.ONNX_FP32)


def load_fastembed_int8(job: Job) -> Loaded:
    return _fastembed(job, libraries.ONNX_INT8)


def load_infinity_torch(job: Job) -> Loaded:
    import torch

    torch.set_num_threads(job.threads)
    return _infinity(job.model, "torch", job.threads)


def load_infinity_onnx(job: Job) -> Loaded:
    return _infinity(job.prepared, "optimum", job.threads)


def mean_of(states: Any, tokens: texts.Tokens) -> Any:
    """The mean of the tokens' states [texts, tokens, width], padding left out, with a length of 1."""
    import numpy as np

    mask = tokens["attention_mask"][:, :, None].astype(np.float32)
    return _normalised((states * mask).sum(axis=1) / mask.sum(axis=1))


def _answer(encode: Encode) -> Callable[[Sequence[Input], str], Any]:
    return lambda asked, mode: encode(asked, texts.batch_size(mode))


def _sentence_transformer(folder: Path, **keywords: Any) -> Any:
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(folder), device="cpu", **keywords)


def _encode(encoder: Any) -> Encode:
    return lambda asked, size: encoder.encode(list(asked), batch_size=size, show_progress_bar=False)


def _encoder_of_torch(job: Job, changed: Callable[[Any], Any] = lambda encoder: encoder) -> Loaded:
    import torch

    torch.set_num_threads(job.threads)
    return Loaded(_answer(_encode(changed(_sentence_transformer(job.model)))), libraries.torch_facts())


def _encoder_of_onnx(job: Job, file_name: str) -> Loaded:
    session = libraries.session_options(job.threads)
    options = {"file_name": file_name, "provider": "CPUExecutionProvider", "session_options": session}
    encoder = _sentence_transformer(job.prepared, backend="onnx", model_kwargs=options)
    return Loaded(_answer(_encode(encoder)), {"threads": job.threads})


def _onnxruntime(job: Job, file_name: str) -> Loaded:
    model = libraries.onnx_model(job, HEAD, file_name)
    run = texts.loop(libraries.tokenizer_of(job), texts.forward_of(model, STATES), mean_of, max_length(job.model))
    return Loaded(_answer(run), {"threads": job.threads})


def _fastembed(job: Job, file_name: str) -> Loaded:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="measured",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="measured"),  # not asked where a path is given
        dim=texts.config_of(job.model)["hidden_size"],
        model_file=file_name,
    )
    encoder = TextEmbedding("measured", threads=job.threads, specific_model_path=str(job.prepared))

    def answer(asked: Sequence[Input], mode: str) -> Any:
        # It takes texts as they come: in their order, or in that of their lengths.
        order = [0] if not asked else [number for batch in texts.batches(asked, len(asked)) for number in batch]
        numbers = order if mode.startswith("loop-") else range(len(asked))
        found = encoder.embed([asked[number] for number in numbers], batch_size=texts.batch_size(mode))
        by_number = dict(zip(numbers, found))
        return [by_number[number] for number in range(len(asked))]

    return Loaded(answer, {"threads": job.threads})


def _infinity(folder: Path, engine: str, threads: int) -> Loaded:
    import asyncio

    from infinity_emb import AsyncEmbeddingEngine, EngineArgs

    runner, engines = asyncio.Runner(), {}

    async def embed(asked: Sequence[Input], size: int) -> Any:
        if size not in engines:
            options = {"engine": engine, "device": "cpu", "batch_size": size, "model_warmup": False}
            engines[size] = AsyncEmbeddingEngine.from_args(
                EngineArgs(model_name_or_path=str(folder), pooling_method="mean", bettertransformer=False, **options)
            )
            await engines[size].astart()
        embeddings, _ = await engines[size].embed(sentences=list(asked))
        return embeddings

    return Loaded(_answer(lambda asked, size: runner.run(embed(asked, size))), {"threads": threads})


_OF_ENCODERS = texts.modes("batch", (8, 16, 64, 128))  # beside their default, 32
_LOOP = (texts.modes("loop", (8, 32, 128)),)
_TRANSFORMERS, _ONNX, _OPENVINO = (f"sentence-transformers{kind}" for kind in ("", "-onnx", "-openvino"))
CONTENDERS: Mapping[str, Contender] = {
    "neuronbert": Contender("neuronbert", ("one-by-one", "list"), load_neuronbert),
    "neuronbert-fp32": Contender("neuronbert", ("list",), load_neuronbert, compile_options=("--precision", "fp32")),
    BASELINE: Contender(_TRANSFORMERS, ("batch-32",), load_sentence_transformers, (_OF_ENCODERS,)),
    "sentence-transformers-int8": Contender(
        _TRANSFORMERS, ("batch-32",), load_sentence_transformers_int8, (_OF_ENCODERS,)
    ),
    "sentence-transformers-onnx-fp32": Contender(
        _ONNX, ("batch-32",), load_sentence_transformers_onnx_fp32, (_OF_ENCODERS,), ONNX_FP32
    ),
    "sentence-transformers-onnx-int8": Contender(
        _ONNX, ("batch-32",), load_sentence_transformers_onnx_int8, (_OF_ENCODERS,), ONNX_INT8
    ),
    "sentence-transformers-openvino-int8": Contender(
        _OPENVINO, ("batch-32",), load_sentence_transformers_openvino_int8, (_OF_ENCODERS,), OPENVINO_INT8
    ),
    "onnxruntime-fp32": Contender("optimum-onnx", (), load_onnxruntime_fp32, _LOOP, ONNX_FP32),
    "onnxruntime-int8": Contender("optimum-onnx", (), load_onnxruntime_int8, _LOOP, ONNX_INT8),
    "openvino-int8": Contender("optimum-intel", (), load_openvino_int8, _LOOP, OPENVINO_INT8),
    "openvino-int8-streams": Contender(
        "optimum-intel", (), load_openvino_int8_streams, (texts.modes("loop", (4, 8, 16, 32)),), OPENVINO_INT8
    ),
    "fastembed-fp32": Contender("fastembed", ("batch-256",), load_fastembed_fp32, _LOOP, ONNX_FP32),
    "fastembed-int8": Contender("fastembed", ("batch-256",), load_fastembed_int8, _LOOP, ONNX_INT8),
    "infinity-torch": Contender("infinity", ("batch-32",), load_infinity_torch, (_OF_ENCODERS,)),
    "infinity-onnx": Contender("infinity", ("batch-32",), load_infinity_onnx, (_OF_ENCODERS,), ONNX_OF_INFINITY),
}
