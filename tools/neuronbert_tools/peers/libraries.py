"""How the peers' libraries load, export and quantise a model, for the contenders of every task (see base.py).

``head`` is the end of the names of their classes, such as ``ForQuestionAnswering``. Each is used as its documentation
shows, and is given the same number of threads as we are.
"""

from functools import partial
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Sequence

from neuronbert_tools.peers import texts
from neuronbert_tools.peers.base import Export, Input, Job
from neuronbert_tools.random_weights import told_apart

ONNX_FP32, ONNX_INT8 = "model.onnx", "model_quantized.onnx"

Tokenise = Callable[[Any, Input], Mapping[str, Any]]  # (tokenizer, an input to calibrate with) → its arrays


def make_random_bert(folder: Path, tokenizer_from: Path, head: str, seed: int) -> None:
    """Write BERT-base (the default BertConfig) with random weights and a real tokenizer of the same vocabulary size."""
    import torch
    import transformers

    torch.manual_seed(seed)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tokenizer_from)
    model = getattr(transformers, f"Bert{head}")(transformers.BertConfig(vocab_size=len(tokenizer)))
    told_apart(model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def copy_as_float32(folder: Path, source: Path, head: str) -> None:
    """Write ``source`` again in float32, so that every contender starts from the same numbers.

    Some of them would otherwise load float16 weights as float16 and run so.
    """
    import torch
    import transformers

    model = getattr(transformers, f"AutoModel{head}").from_pretrained(source, dtype=torch.float32)
    model.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    # Pipelines cut where the tokenizer says, and many do not say.
    tokenizer.model_max_length = min(tokenizer.model_max_length, texts.max_positions(folder))
    tokenizer.save_pretrained(folder)


def tokenizer_of(job: Job) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(job.model)


def torch_model(job: Job, head: str) -> Any:
    import torch
    import transformers

    torch.set_num_threads(job.threads)
    return getattr(transformers, f"AutoModel{head}").from_pretrained(job.model, dtype=torch.float32).eval()


def torch_int8(model: Any) -> Any:
    """Dynamic quantisation of every linear layer."""
    import torch

    return torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, dtype=torch.qint8)


def torch_facts() -> Dict[str, Any]:
    import torch

    return {"threads": torch.get_num_threads()}


def session_options(threads: int) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return options


def onnx_model(job: Job, head: str, file_name: str) -> Any:
    import optimum.onnxruntime

    kind = getattr(optimum.onnxruntime, f"ORTModel{head}")
    return kind.from_pretrained(job.prepared, file_name=file_name, session_options=session_options(job.threads))


def exports(head: str, tokenise: Tokenise) -> Dict[str, Export]:
    """What optimum-onnx and optimum-intel make of a checkpoint, by name."""
    return {
        export.name: export
        for export in (
            Export("onnx-fp32", "optimum-onnx", partial(export_onnx, head=head)),
            Export("onnx-int8", "optimum-onnx", partial(quantize_onnx, head=head)),
            Export("openvino-fp32", "optimum-intel", partial(export_openvino, head=head)),
            Export("openvino-int8", "optimum-intel", partial(quantize_openvino, head=head, tokenise=tokenise), True),
        )
    }


def export_onnx(model: Path, folder: Path, rows: Sequence[Input], head: str) -> None:
    import optimum.onnxruntime

    kind = getattr(optimum.onnxruntime, f"ORTModel{head}")
    kind.from_pretrained(model, export=True).save_pretrained(folder)


def quantize_onnx(model: Path, folder: Path, rows: Sequence[Input], head: str) -> None:
    import optimum.onnxruntime
    from optimum.onnxruntime.configuration import AutoQuantizationConfig

    exported = getattr(optimum.onnxruntime, f"ORTModel{head}").from_pretrained(model, export=True)
    config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
    quantizer = optimum.onnxruntime.ORTQuantizer.from_pretrained(exported)
    quantizer.quantize(save_dir=folder, quantization_config=config)


def openvino_model(job: Job, head: str, **options: str) -> Any:
    """The exported model; ``options`` are OpenVINO's properties beside the number of threads."""
    import optimum.intel

    config = {"INFERENCE_NUM_THREADS": job.threads, **options}
    return getattr(optimum.intel, f"OVModel{head}").from_pretrained(job.prepared, ov_config=config)


def openvino_facts(model: Any) -> Dict[str, Any]:
    names = ("INFERENCE_PRECISION_HINT", "INFERENCE_NUM_THREADS", "PERFORMANCE_HINT", "NUM_STREAMS")
    return {name.lower(): str(model.request.get_property(name)) for name in names}


def export_openvino(model: Path, folder: Path, rows: Sequence[Input], head: str) -> None:
    import optimum.intel

    kind = getattr(optimum.intel, f"OVModel{head}")
    kind.from_pretrained(model, export=True, compile=False).save_pretrained(folder)


def quantize_openvino(model: Path, folder: Path, rows: Sequence[Input], head: str, tokenise: Tokenise) -> None:
    """NNCF post-training quantisation as optimum-intel does it by default for transformers, calibrated as ours is."""
    import nncf
    import optimum.intel
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    exported = getattr(optimum.intel, f"OVModel{head}").from_pretrained(model, export=True, compile=False)
    dataset = nncf.Dataset([dict(tokenise(tokenizer, row)) for row in rows])
    quantization = optimum.intel.OVQuantizationConfig(num_samples=len(rows))
    config = optimum.intel.OVConfig(quantization_config=quantization)
    quantizer = optimum.intel.OVQuantizer.from_pretrained(exported)
    quantizer.quantize(dataset, save_directory=folder, ov_config=config)
