"""Availability, export, compile and load: with fakes for GPUs, and on the CPU through ``load_on``."""

import json
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Tuple

import numpy as np
import pytest
from fake_nvml import T4, Card, use_gpus
from packed_models import LABELS, TASKS, exported
from test_contract import EXPORTS_WITHOUT_ROOM, run_in_empty_home
from tiny_classifiers import write_classifier
from tiny_source import TinySource

from neuronbert import Engine, Runner
from neuronbert.artifact.manifest import Artifact
from neuronbert.backends import backend_module
from neuronbert.backends.cuda import backend
from neuronbert.cli.main import run
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.errors import ArtifactError, BackendFailed, BackendUnavailable, MissingLibrary
from neuronbert.hardware.requirements import unmet_requirements
from neuronbert.tasks.question_answering.task import OUTPUTS

torch = pytest.importorskip("torch", minversion="2.4")
pytest.importorskip("safetensors")

H100 = (9, 0)


def has_gpu(monkeypatch: pytest.MonkeyPatch, capability: Tuple[int, int]) -> None:
    """torch finds a GPU, and triton is installed."""
    triton = ModuleType("triton")
    triton.__spec__ = ModuleSpec("triton", None)
    monkeypatch.setitem(sys.modules, "triton", triton)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda *_: capability)
    monkeypatch.setattr(backend, "_try_fp8", lambda: None)


# ---------------------------------------------------------------------- what is there


@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_every_precision_is_there_on_a_new_gpu(monkeypatch: pytest.MonkeyPatch, precision: str) -> None:
    has_gpu(monkeypatch, H100)
    backend.check_available(precision)


@pytest.mark.parametrize(
    ("capability", "there"),
    [
        ((6, 1), []),
        ((7, 0), ["fp32", "fp16"]),
        ((7, 5), ["fp32", "fp16"]),
        ((8, 0), ["fp32", "tf32", "bf16", "fp16"]),
        ((8, 6), ["fp32", "tf32", "bf16", "fp16"]),
        ((8, 9), list(backend.PRECISIONS)),
        ((10, 0), list(backend.PRECISIONS)),
        ((12, 1), list(backend.PRECISIONS)),
    ],
)
def test_an_older_gpu_has_fewer(monkeypatch: pytest.MonkeyPatch, capability: Tuple[int, int], there: List[str]) -> None:
    has_gpu(monkeypatch, capability)
    for precision in backend.PRECISIONS:
        if precision in there:
            backend.check_available(precision)
            continue
        with pytest.raises(BackendUnavailable) as caught:
            backend.check_available(precision)
        least = ".".join(map(str, backend.CAPABILITIES[precision]))
        assert caught.value.message == (
            f"this GPU has compute capability {capability[0]}.{capability[1]}, and {precision} needs {least}"
        )
        # What helps: a precision that it has, or where it has none something that can be typed.
        named = [name for name in backend.PRECISIONS if name in str(caught.value.hint).replace(",", " ").split()]
        assert named == there and (there or "openvino" in str(caught.value.hint))


@pytest.mark.parametrize(
    ("built", "capability", "runs"),
    [
        (["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"], (7, 0), False),  # CUDA 13 left Volta out
        (["sm_70", "sm_75", "sm_80"], (7, 0), True),
        (["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"], (8, 9), True),
        (["sm_75", "sm_80", "sm_86", "sm_90a"], (9, 0), True),
        (["sm_80", "sm_90"], (12, 0), False),
        (["sm_80", "sm_90", "compute_90"], (12, 0), True),
        (["sm_100", "compute_120"], (9, 0), False),
        (["sm_100"], (10, 3), True),
        ([], (8, 0), True),  # it does not say
    ],
)
def test_a_torch_that_was_built_for_other_gpus_is_refused(
    monkeypatch: pytest.MonkeyPatch, built: List[str], capability: Tuple[int, int], runs: bool
) -> None:
    has_gpu(monkeypatch, capability)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: built)
    if runs:
        backend.check_available("fp32")
        return
    with pytest.raises(BackendUnavailable, match="has no kernels for this GPU of compute capability") as caught:
        backend.check_available("fp32")
    assert ", ".join(built) in caught.value.message and "--index-url" in str(caught.value.hint)


def test_fp8_that_the_libraries_refuse_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = backend._try_fp8
    has_gpu(monkeypatch, H100)
    monkeypatch.setattr(backend, "_try_fp8", tried)
    monkeypatch.setattr(torch, "zeros", lambda shape, device: torch.empty(shape).fill_(0.0))
    monkeypatch.setattr(torch, "ones", lambda shape, device: torch.empty(shape).fill_(1.0))

    def refuse(*_: Any, **__: Any) -> None:
        raise RuntimeError("CUDA error: CUBLAS_STATUS_NOT_SUPPORTED when calling `cublasLtMatmulAlgoGetHeuristic`")

    monkeypatch.setattr(torch, "_scaled_mm", refuse)
    with pytest.raises(BackendUnavailable, match="no FP8 product .* CUBLAS_STATUS_NOT_SUPPORTED"):
        backend.check_available("fp8")
    backend.check_available("bf16")


def test_fp8_asks_for_a_newer_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    has_gpu(monkeypatch, H100)
    monkeypatch.setattr(backend, "library_version", lambda name: "2.6.0")
    backend.check_available("bf16")
    with pytest.raises(BackendUnavailable, match="torch 2.6.0 is installed, and fp8 on cuda needs >=2.7"):
        backend.check_available("fp8")


@pytest.mark.parametrize(
    ("build", "said"), [("12.8", "torch is built for CUDA 12.8, and finds none"), (None, "is built without CUDA")]
)
def test_torch_without_a_gpu_or_without_cuda(monkeypatch: pytest.MonkeyPatch, build: Any, said: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", build)
    with pytest.raises(BackendUnavailable, match=said) as caught:
        backend.check_available("fp32")
    assert "neuronbert doctor" in str(caught.value.hint)


@pytest.mark.parametrize("version", ["2.3.1", "1.13.1+cu117", "2.0.0"])
def test_an_older_torch_is_named_before_it_is_imported(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    has_gpu(monkeypatch, H100)
    monkeypatch.setattr(backend, "library_version", lambda name: version)
    with pytest.raises(BackendUnavailable, match=f"torch {version.replace('+', '.')} is installed") as caught:
        backend.check_available("fp32")
    assert '"torch>=2.4"' in str(caught.value.hint)


@pytest.mark.parametrize("name", ["torch", "safetensors"])
def test_a_library_that_is_missing_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingLibrary, match=f"{name} is not installed"):
        backend.check_available("fp32")


def test_torch_without_triton_is_told_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was a bug's message, of a model that could not be loaded."""
    has_gpu(monkeypatch, H100)
    monkeypatch.setitem(sys.modules, "triton", None)
    with pytest.raises(BackendUnavailable, match="triton is not installed") as caught:
        backend.check_available("bf16")
    assert caught.value.hint == "python -m pip install triton"


def test_the_module_itself_needs_no_torch() -> None:
    """The table of backends imports it, on any machine."""
    script = "import sys; sys.modules['torch'] = None; import neuronbert.backends.cuda.backend as b; print(b.DEVICE)"
    root = str(Path(__file__).parents[3])
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=root, timeout=100)
    assert done.stdout == "cuda\n", done.stderr


def test_loading_without_a_gpu_says_that_there_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match="no GPU can be used here"):
        backend.load(tmp_path, {"precision": "fp16"}, outputs=OUTPUTS, threads=1, streams=1)


# ---------------------------------------------------------------------- export


@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_what_export_requires_is_what_check_available_asks_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str
) -> None:
    result = backend.export(TinySource(), precision, {}, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"graph.json", "weights.safetensors"}
    assert result.batch_invariant and result.recipe == {} and "torch" in result.versions
    assert result.requires["device"] == backend.DEVICE == "cuda"
    json.dumps(result.requires)
    for capability in ((7, 0), (7, 5), (8, 0), (8, 6), (8, 9), (9, 0), (12, 0)):
        use_gpus(monkeypatch, Card("GPU-1", capability=capability))
        has_gpu(monkeypatch, capability)
        met = unmet_requirements(result.requires) == []
        assert met == (capability >= backend.CAPABILITIES[precision])
        try:
            backend.check_available(precision)
        except BackendUnavailable:
            assert not met
        else:
            assert met


@pytest.mark.parametrize(
    ("changes", "odd"),
    [({"intermediate_size": 72}, 72), ({"hidden_size": 40}, 120), ({"hidden_size": 8, "num_attention_heads": 2}, 24)],
)
def test_fp8_refuses_sizes_that_its_units_do_not_take(tmp_path: Path, changes: Dict[str, int], odd: int) -> None:
    source = TinySource(**changes)
    with pytest.raises(BackendFailed, match=f"multiples of 16, and this model has one of {odd}") as caught:
        backend.export(source, "fp8", {}, tmp_path)
    assert "bf16" in str(caught.value.hint) and list(tmp_path.iterdir()) == []
    exported(source, tmp_path, "bf16")


def test_an_unknown_activation_leaves_nothing_behind(tmp_path: Path) -> None:
    source = TinySource(hidden_act="quick_gelu")
    with pytest.raises(BackendFailed, match="the model's activation is 'quick_gelu'"):
        backend.export(source, "fp32", {}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_export_leaves_the_reference_as_it_was(tmp_path: Path) -> None:
    """Weights that it shares with it, and converted in place, would be compared with themselves."""
    source = TinySource("electra", TASKS["token-classification"], **LABELS)
    before = {name: value.clone() for name, value in source.torch_model().model.state_dict().items()}
    for number, precision in enumerate(backend.PRECISIONS):
        folder = tmp_path / str(number)
        folder.mkdir()
        exported(source, folder, precision)
    for name, value in source.torch_model().model.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("precision", ["fp8"])
def test_no_room_for_the_files_is_an_error_of_the_output(tmp_path: Path, precision: str) -> None:
    output = tmp_path / "out" / "variant"
    here = str(Path(__file__).parents[1])
    stdout = run_in_empty_home(tmp_path / "home", EXPORTS_WITHOUT_ROOM, "cuda", precision, str(output), here)
    assert stdout == f"cannot write {output}: a file would be larger than this process may write\n"
    assert not output.parent.exists()


# ---------------------------------------------------------------------- an artifact, here and elsewhere


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """A classifier in each precision, compiled where a GPU is: its model runs on the CPU."""
    base = tmp_path_factory.mktemp("cuda")

    def load(folder: Path, variant: Any, *, outputs: Any, threads: int, streams: int) -> Any:
        return backend.load_on(torch.device("cpu"), folder, variant["precision"], outputs, streams)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(backend, "check_available", lambda precision: None)
        patch.setattr(backend, "load", load)
        return compile_checkpoint(
            write_classifier(base / "checkpoint", "electra", intermediate_size=64),
            base / "artifact",
            backend="cuda",
            precision=list(backend.PRECISIONS),
            threads=1,
            skip_gate=True,
        )


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(folder: Path, variant: Any, *, outputs: Any, threads: int, streams: int) -> Any:
        return backend.load_on(torch.device("cpu"), folder, variant["precision"], outputs, streams)

    pytest.importorskip("pynvml")
    use_gpus(monkeypatch, Card("GPU-1"))
    monkeypatch.setattr(backend, "load", load)


@pytest.mark.parametrize("precision", backend.PRECISIONS)
def test_an_artifact_is_self_tested_and_answers(compiled: Artifact, on_a_gpu: None, precision: str) -> None:
    with Engine(compiled, variant=f"cuda-{precision}", threads=1, streams=2) as engine:
        assert engine.session.precision == precision and engine.session.concurrency == 2
        texts = ["the puppet was nice", "who was jim henson ?", "a"] * 5
        together = engine.answer(texts)
        alone = [engine.answer([text])[0] for text in texts[:3]]
    for one, other in zip(together, alone * 5):
        assert one[0]["label"] == other[0]["label"]
        np.testing.assert_allclose(one[0]["score"], other[0]["score"], atol=1e-5)


def test_no_program_is_in_an_artifact_s_variant(compiled: Artifact) -> None:
    for variant in compiled.variants:
        assert set(variant["files"]) == {
            f"variants/{variant['name']}/{name}" for name in ("graph.json", "weights.safetensors")
        }
    assert backend_module("cuda").BY_NAME_ONLY is False


LACKS = r"has no variant for this machine: .*cuda-fp32 needs an NVIDIA GPU \(.+\)"


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without a GPU."""
    pytest.importorskip("pynvml")
    use_gpus(monkeypatch)


@pytest.mark.parametrize("kind", [Engine, Runner])
@pytest.mark.parametrize("variant", [None, "cuda", "cuda-fp32"])
def test_without_a_gpu_it_is_refused_in_words(compiled: Artifact, nowhere: None, kind: Any, variant: Any) -> None:
    with pytest.raises(ArtifactError, match=LACKS) as caught:
        kind(compiled, variant=variant)
    assert "neuronbert doctor" in str(caught.value.hint)


def test_an_older_gpu_is_given_what_it_can(compiled: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    from neuronbert.artifact.variants import choose_variants

    pytest.importorskip("pynvml")
    use_gpus(monkeypatch, T4)
    (chosen,) = choose_variants(compiled)
    assert chosen["precision"] in ("fp32", "fp16")
    with pytest.raises(ArtifactError, match=r"cuda-bf16 needs a GPU of compute capability >=8.0 \(there is .*T4"):
        choose_variants(compiled, "cuda-bf16")


def test_the_command_says_so_too_and_inspect_shows_it(
    compiled: Artifact, nowhere: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["classify", str(compiled.folder), "--text", "It is me."]) == 1
    said = capsys.readouterr()
    assert said.out == "" and "needs an NVIDIA GPU" in said.err and "neuronbert doctor" in said.err
    assert "Traceback" not in said.err
    assert run(["inspect", str(compiled.folder)]) == 0
    shown = capsys.readouterr().out
    assert all(f"cuda-{precision}" in shown for precision in backend.PRECISIONS)
    assert "compute capability >=8.9, torch >=2.7" in shown
    assert run(["inspect", str(compiled.folder), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert "compute_capability" in json.dumps(document)


def test_compiling_without_a_gpu_is_refused_before_any_work(
    tmp_path: Path, nowhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    checkpoint = write_classifier(tmp_path / "checkpoint")
    with pytest.raises(BackendUnavailable, match="no GPU can be used here"):
        compile_checkpoint(checkpoint, tmp_path / "artifact", backend="cuda", precision="fp16", skip_gate=True)
    assert not (tmp_path / "artifact").exists()
