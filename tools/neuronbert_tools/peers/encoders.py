"""How each library is used to embed texts, and what it needs for it: the contenders of feature_extraction.py."""

from pathlib import Path
from typing import Any, Callable, Mapping, Sequence

from neuronbert_tools.peers import encoder_folders, libraries, texts
from neuronbert_tools.peers.base import Contender, Export, Input, Job, Loaded

BASELINE = "sentence-transformers-fp32"  # whose embeddings are right
HEAD = "ForFeatureExtraction"
STATES = "last_hidden_state"

Encode = Callable[[Sequence[str], int], Any]  # (texts, batch size) → an embedding for each


# ---------------------------------------------------------------------------- exports


def _export_onnx(model: Path, folder: Path, rows: Sequence[Input]) -> None:
    encoder_folders.copy_small_files(model, folder)
    libraries.export_onnx(model, folder, rows, HEAD)


def _quantize_onnx(model: Path, folder: Path, rows: Sequence[Input]) -> None:
    encoder_folders.copy_small_files(model, folder)
    libraries.quantize_onnx(model, folder, rows, HEAD)


def _quantize_openvino(model: Path, folder: Path, rows: Sequence[Input]) -> None:
    encoder_folders.copy_small_files(model, folder)
    length = encoder_folders.max_length(model)
    libraries.quantize_openvino(
        model, folder, rows, HEAD, lambda tokenizer, text: texts.tokenise(tokenizer, [text], length)
    )


ONNX_FP32 = Export("onnx-fp32", "optimum-onnx", _export_onnx)
ONNX_INT8 = Export("onnx-int8", "optimum-onnx", _quantize_onnx)
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
    return Loaded(_loop(model, job), libraries.openvino_facts(model))


def load_openvino_int8_streams(job: Job) -> Loaded:
    """What optimum-intel compiled, used as OpenVINO's documentation advises for throughput."""
    model = libraries.openvino_model(job, HEAD, PERFORMANCE_HINT="THROUGHPUT")
    run = texts.openvino_streams(
        libraries.tokenizer_of(job), model.request, mean_of, encoder_folders.max_length(job.model)
    )
    return Loaded(_answer(run), libraries.openvino_facts(model))


def load_fastembed_fp32(job: Job) -> Loaded:
    return _fastembed(job, libraries.ONNX_FP32)


def load_fastembed_int8(job: Job) -> Loaded:
    return _fastembed(job, libraries.ONNX_INT8)


def load_infinity_torch(job: Job) -> Loaded:
    import torch

    torch.set_num_threads(job.threads)
    return Loaded(_infinity(job.model, "torch"), libraries.torch_facts())


def load_infinity_onnx(job: Job) -> Loaded:
    """It takes all cores, and reads as much of a text as the model has positions for: neither can be told to it.

    Its own rewriting of the graph asks optimum-onnx 0.1 for an option that is gone; it says so in its log, and goes on.
    """
    from infinity_emb.transformer.embedder import optimum

    # In a folder it finds the file with its whole path, where optimum-onnx 0.1 wants the name, as of a hub id.
    optimum.get_onnx_files = lambda **_: Path(libraries.ONNX_INT8)
    return Loaded(_infinity(job.prepared, "optimum"), {})


def mean_of(states: Any, tokens: texts.Tokens) -> Any:
    """The mean of the tokens' states [texts, tokens, width], padding left out, with a length of 1."""
    import numpy as np

    mask = tokens["attention_mask"][:, :, None].astype(np.float32)
    return normalised((states * mask).sum(axis=1) / mask.sum(axis=1))


def normalised(embeddings: Any) -> Any:
    """Embeddings [texts, width] with a length of 1."""
    import numpy as np

    return embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)


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
    return Loaded(_loop(libraries.onnx_model(job, HEAD, file_name), job), {"threads": job.threads})


def _loop(model: Any, job: Job) -> Callable[[Sequence[Input], str], Any]:
    length = encoder_folders.max_length(job.model)
    return _answer(texts.loop(libraries.tokenizer_of(job), texts.forward_of(model, STATES), mean_of, length))


def _fastembed(job: Job, file_name: str) -> Loaded:
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    TextEmbedding.add_custom_model(
        model="measured",
        pooling=PoolingType.MEAN,
        normalization=True,
        sources=ModelSource(hf="measured"),  # not asked where a path is given
        dim=texts.width(job.model),
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


def _infinity(folder: Path, engine: str) -> Callable[[Sequence[Input], str], Any]:
    """A batch size is an engine's for good, so each that is tried has one, and a model, of its own."""
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

    return _answer(lambda asked, size: runner.run(embed(asked, size)))


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
    "infinity-onnx": Contender("infinity", ("batch-32",), load_infinity_onnx, (_OF_ENCODERS,), ONNX_INT8),
}
