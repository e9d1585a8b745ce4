"""Encoders the whole way: from the folder through compile, the command line, a runner, and an emulated device."""

import io
import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest
from click.testing import CliRunner
from tiny_checkpoints import write_checkpoint
from tiny_encoders import WIDTH, compiled, modules_of, write_json, write_sentence_folder

import neuronbert
from neuronbert import Engine, Runner, load_checkpoint, run_job
from neuronbert.artifact.manifest import Artifact, load_artifact
from neuronbert.cli.main import cli
from neuronbert.cli.main import run as main
from neuronbert.compiler.compilation import compile_checkpoint
from neuronbert.engine.answering import answer_file, answer_input
from neuronbert.errors import ArtifactError, CheckpointError, GateRefused, InputError, UsageError
from neuronbert.tasks.feature_extraction.task import outputs

TEXTS = ["the nice puppet", "who was jim henson?", "a"]


def lines_of(texts: List[str], **keywords: Any) -> bytes:
    return b"".join(json.dumps({"text": text, **keywords}).encode() + b"\n" for text in texts)


# ---- checkpoints


def test_a_folder_is_read_with_its_layers(folders: Dict[str, Path]) -> None:
    found = load_checkpoint(str(folders["every"]))
    assert (found.head.task, found.architecture) == ("feature-extraction", "BertModel")
    assert found.pooling == "cls+max+mean+mean_sqrt_len+weightedmean+lasttoken"
    model = found.torch_model().model
    assert found.parameters == sum(parameter.numel() for parameter in model.parameters())
    assert "2_Dense.linear.weight" in dict(model.named_parameters())


def test_every_weight_of_a_layer_is_fingerprinted(folders: Dict[str, Path], tmp_path: Path) -> None:
    import shutil

    from safetensors.numpy import load_file, save_file

    changed = Path(shutil.copytree(folders["every"], tmp_path / "changed"))
    path = changed / "2_Dense" / "model.safetensors"
    weights = load_file(str(path))
    weights["linear.bias"][0] += 1
    save_file(weights, str(path))
    assert load_checkpoint(str(changed)).fingerprint != load_checkpoint(str(folders["every"])).fingerprint
    del weights["linear.bias"]
    save_file(weights, str(path))
    with pytest.raises(CheckpointError, match="lacks weights that .* asks for: 2_Dense.linear.bias"):
        load_checkpoint(str(changed))
    weights["linear.bias"] = np.full(20, np.nan, np.float32)
    save_file(weights, str(path))
    with pytest.raises(CheckpointError, match="2_Dense.linear.bias holds NaN or Inf"):
        load_checkpoint(str(changed))


@pytest.mark.parametrize("modules", [[{"path": "", "type": "open_clip.Vision"}], {"of": "another library"}])
def test_a_checkpoint_of_another_task_may_have_a_modules_file_of_its_own(tmp_path: Path, modules: Any) -> None:
    write_checkpoint(tmp_path / "classifier", "bert", "SequenceClassification")
    write_checkpoint(tmp_path / "encoder", "bert", "")
    for name in ("classifier", "encoder"):
        write_json(tmp_path / name / "modules.json", modules)
    assert load_checkpoint(str(tmp_path / "classifier")).head.task == "text-classification"
    with pytest.raises(CheckpointError, match="modules.json"):
        load_checkpoint(str(tmp_path / "encoder"))


def test_an_encoder_below_its_folder(folders: Dict[str, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(folders["bert"], tmp_path / "0_Transformer")
    entries = modules_of("Pooling", "Normalize")
    entries[0]["path"] = "0_Transformer"
    write_json(tmp_path / "modules.json", entries)
    shutil.copytree(folders["bert"] / "1_Pooling", tmp_path / "1_Pooling")
    found, expected = load_checkpoint(str(tmp_path)), load_checkpoint(str(folders["bert"]))
    assert (found.fingerprint, found.pooling) == (expected.fingerprint, "mean")


def test_an_encoder_in_memory(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    folder = str(write_checkpoint(tmp_path / "plain", "bert", head=""))
    pair = (transformers.AutoModel.from_pretrained(folder), transformers.AutoTokenizer.from_pretrained(folder))
    assert load_checkpoint(pair).fingerprint == load_checkpoint(folder).fingerprint
    assert load_checkpoint(pair, pooling="max").pooling == "max"


def test_a_checkpoints_own_word_of_its_modules_is_not_believed(tmp_path: Path) -> None:
    """The key is ours: in a config.json that somebody else wrote it says nothing."""
    folder = write_checkpoint(tmp_path / "plain", "bert", head="")
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", {**config, "neuronbert_embeddings": {"pooling": ["cls"]}})
    assert load_checkpoint(str(folder)).pooling == "mean"


# ---- artifacts


def test_the_manifest_says_what_the_model_returns(artifacts: Dict[str, Artifact]) -> None:
    def said(name: str) -> Any:
        manifest = load_artifact(artifacts[name].folder).manifest
        return [(each["name"], each["per"]) for each in manifest["outputs"]], manifest["pooling"]

    assert said("bert") == ([("sentence_embedding", "row")], "mean")
    assert said("tokens") == ([("token_embeddings", "token")], "none")
    assert said("unprompted") == ([("sentence_embedding", "row"), ("token_embeddings", "token")], "mean")


def test_outputs_have_the_width_that_the_config_says() -> None:
    (output,) = outputs({"hidden_size": 384})
    assert output.entry == (384,) and output.fits((2, 384), 2, 9) and not output.fits((2, 768), 2, 9)


def test_compile_tells_which_task_was_chosen(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "plain", "bert", head="MaskedLM")
    told: List[str] = []
    options: Dict[str, Any] = {"backend": "echo", "precision": "fp32", "skip_gate": True, "progress": told.append}
    compile_checkpoint(str(folder), tmp_path / "out", **options)
    assert "the weights have no head of another task: feature-extraction, pooling mean" in told
    compile_checkpoint(str(folder), tmp_path / "cls", task="feature-extraction", pooling="cls", **options)
    assert "feature-extraction, pooling cls" in told
    with pytest.raises(CheckpointError, match="has no question-answering head"):
        compile_checkpoint(str(folder), tmp_path / "qa", task="question-answering", **options)


def test_the_gate_compares_with_the_reference(folders: Dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(GateRefused, match="its embeddings differ from the FP32 reference's"):
        compile_checkpoint(str(folders["bert"]), tmp_path / "out", backend="echo", precision="fp32", threads=1)
    data = tmp_path / "pairs.jsonl"
    pairs = [{"text": f"the {word}", "text_pair": "jim", "score": number} for number, word in enumerate("abcdef")]
    data.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    made = compile_checkpoint(
        str(folders["bert"]), tmp_path / "out", backend="torchscript", precision="fp32", threads=1, gate_data=data
    )
    (variant,) = made.variants
    assert variant["agreement"]["mean_cosine"] > 0.999999 and variant["accuracy"]["scored"] == 6
    assert made.manifest["gate"]["limits"] == {"min_f1_ratio": 0.995, "min_answer_f1": 0.99}
    shown = CliRunner().invoke(cli, ["inspect", str(made.folder)])
    assert shown.exit_code == 0 and "Spearman (FP32)" in shown.output and "1.0000" in shown.output


# ---- answers


def test_the_model_class_returns_embeddings(artifacts: Dict[str, Artifact]) -> None:
    kind = neuronbert.NeuronBertForFeatureExtraction
    ids, mask = [[2, 7, 8, 3], [2, 9, 3, 0]], [[1, 1, 1, 1], [1, 1, 1, 0]]
    with kind.from_pretrained(artifacts["bert"], variant="torchscript", threads=1) as model:
        found = model(ids, mask)
        assert found.sentence_embedding.shape == (2, WIDTH) and found.token_embeddings is None
        alone = model([[2, 9, 3]])
        np.testing.assert_allclose(found.sentence_embedding[1], alone.sentence_embedding[0], atol=1e-5)
    with kind.from_pretrained(artifacts["tokens"], variant="torchscript", threads=1) as model:
        assert model(ids, mask).token_embeddings.shape == (2, 4, WIDTH)


def test_an_input_and_a_file_of_them(echo: Artifact) -> None:
    with Engine(echo, threads=1) as engine:
        expected = [engine.task.json_result(result, None) for result in engine.answer(TEXTS)]
    assert answer_input(echo.folder, TEXTS[0], threads=1).document == expected[0]
    results: List[Dict[str, Any]] = []
    assert answer_file(echo.folder, io.BytesIO(lines_of(TEXTS)), on_result=results.append, threads=1) == []
    assert results == [{"line": number, **result} for number, result in enumerate(expected, start=1)]


def test_a_line_sets_the_options_for_itself(echo: Artifact) -> None:
    lines = lines_of(["a"], truncate_dim=3) + lines_of(["a"], normalize=True) + lines_of(["the " * 99])
    results: List[Dict[str, Any]] = []
    answer_file(echo.folder, io.BytesIO(lines), on_result=results.append, threads=1)
    assert len(results[0]["embedding"]) == 3 and results[2]["truncated"] is True
    assert np.linalg.norm(results[1]["embedding"]) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ({"question": "who?"}, "the key 'text' is missing"),
        ({"text": ""}, "text is empty"),
        ({"text": 5}, "text is 5, not a string"),
        ({"text": "a", "normalize": "yes"}, 'normalize is "yes"'),
        ({"text": "a", "prompt_name": "title"}, "the checkpoint has no prompt 'title'"),
    ],
)
def test_a_broken_line_is_named(echo: Artifact, line: Dict[str, Any], reason: str) -> None:
    with pytest.raises(InputError, match=f"line 1: {reason}"):
        answer_file(echo.folder, io.BytesIO(json.dumps(line).encode()), on_result=print, threads=1)


def test_the_command_line(echo: Artifact, tmp_path: Path) -> None:
    shown = CliRunner().invoke(cli, ["embed", str(echo.folder), "--text", "a", "--truncate-dim", "3", "--threads", "1"])
    assert shown.exit_code == 0 and len(shown.output.split()) == 3
    as_json = CliRunner().invoke(cli, ["embed", str(echo.folder), "--text", "a", "--json", "--threads", "1"])
    assert len(json.loads(as_json.output)["embedding"]) == WIDTH
    (tmp_path / "in.jsonl").write_bytes(lines_of(TEXTS))
    options = ["--input", str(tmp_path / "in.jsonl"), "--normalize", "--threads", "1"]
    lines = CliRunner().invoke(cli, ["embed", str(echo.folder), *options]).output.splitlines()
    assert [json.loads(line)["line"] for line in lines] == [1, 2, 3]
    refused = CliRunner().invoke(cli, ["embed", str(echo.folder), "--text", "a", "--long-texts", "split"])
    assert refused.exit_code == 2 and "'split' is not one of 'cut', 'pooled'" in refused.output


def test_the_verb_of_another_task_is_refused_with_the_right_one(echo: Artifact) -> None:
    refused = CliRunner().invoke(cli, ["answer", str(echo.folder), "--question", "q", "--context", "c"]).exception
    assert isinstance(refused, ArtifactError) and refused.hint == f"neuronbert embed {echo.folder} --text ..."


def test_the_runner_and_a_job(echo: Artifact, tmp_path: Path) -> None:
    with Engine(echo, threads=1) as engine:
        expected = engine.answer(TEXTS)
    with Runner(echo, workers=1, threads=1) as runner:
        found = [runner.submit(TEXTS[0]).result(), *runner.map(TEXTS[1:])]
        encoded = runner.submit_encoded([[2, 7, 8, 3], [2, 9, 3, 0]]).result()
        with pytest.raises(UsageError, match="no prompt 'title'"):
            runner.submit("a", prompt_name="title")
    assert encoded.sentence_embedding.shape == (2, WIDTH)
    for ours, theirs in zip(found, expected):
        np.testing.assert_allclose(ours["embedding"], theirs["embedding"], atol=1e-6)
    (tmp_path / "in.jsonl").write_bytes(lines_of(TEXTS))
    report = run_job(echo, tmp_path / "in.jsonl", tmp_path / "out.jsonl", workers=1, threads=1, truncate_dim=2)
    assert report.answered == 3
    written = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    np.testing.assert_allclose(
        [line["embedding"] for line in written], [each["embedding"][:2] for each in expected], atol=1e-6
    )


def test_a_job_writes_arrays(echo: Artifact, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A table in, and .npy and Parquet out: what an encoder gives; NaN or an error where a row is broken."""
    rows = ["id,text,max_length", "a,the nice puppet,", "b,,", 'c,"a\nthe nice puppet",4']
    (tmp_path / "in.csv").write_text("\n".join(rows) + "\n")
    with neuronbert.SentenceEncoder(echo.folder, threads=1) as encoder:
        expected = encoder.encode(["the nice puppet"])[0]
        cut = encoder.encode("a the")
    run = ["run", str(echo.folder), "--input", str(tmp_path / "in.csv"), "--on-error", "skip", "--threads", "1"]
    assert main([*run, "--output", str(tmp_path / "out.npy")]) == 0
    assert "line 4: the text is longer than the model reads" in capfd.readouterr().err
    first, second, third = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(first, expected, atol=1e-6)
    np.testing.assert_allclose(third, cut, atol=1e-6)
    assert np.isnan(second).all() and first.dtype == np.float32
    parquet = pytest.importorskip("pyarrow.parquet")
    assert main([*run, "--output", str(tmp_path / "out.parquet")]) == 0
    assert "longer" not in capfd.readouterr().err
    table = parquet.read_table(tmp_path / "out.parquet").to_pylist()
    assert [(row["line"], row["id"], row["truncated"]) for row in table] == [
        (2, "a", None),
        (3, "b", None),
        (4, "c", True),
    ]
    assert table[1]["error"] == "the key 'text' is missing" and table[1]["embedding"] is None
    np.testing.assert_array_equal([table[0]["embedding"], table[2]["embedding"]], [first, third])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.csv", "out.npy", "out.parquet"]


@pytest.mark.parametrize(("options", "width"), [({}, WIDTH), ({"truncate_dim": 3}, 3)])
def test_an_array_has_one_width(echo: Artifact, tmp_path: Path, options: Dict[str, Any], width: int) -> None:
    source, output = tmp_path / "in.jsonl", tmp_path / "out.npy"
    source.write_bytes(lines_of(["a"]) + lines_of(["a"], truncate_dim=2))
    with pytest.raises(InputError, match=f"^line 2: its embedding would have 2 numbers, and a row .* has {width}"):
        run_job(echo, source, output, threads=1, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]
    run_job(echo, source, output, threads=1, on_error="skip", **options)
    assert np.load(output).shape == (2, width)
    assert np.isnan(np.load(output)).all(axis=1).tolist() == [False, True]


def test_options_that_embeddings_of_tokens_have_not_are_refused_by_their_line(
    artifacts: Dict[str, Artifact], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines_of(["a"]) + lines_of(["a"], normalize=True))
    with pytest.raises(InputError, match="^line 2: truncate_dim and normalize are for one embedding of a text"):
        run_job(artifacts["tokens"], tmp_path / "in.jsonl", tmp_path / "out.jsonl", threads=1, variant="torchscript")
    report = run_job(
        artifacts["tokens"],
        tmp_path / "in.jsonl",
        tmp_path / "out.jsonl",
        threads=1,
        variant="torchscript",
        on_error="skip",
    )
    assert (report.answered, report.skipped) == (1, 1)
    with pytest.raises(UsageError, match="compile with --pooling mean"):
        run_job(
            artifacts["tokens"],
            tmp_path / "in.jsonl",
            tmp_path / "new.jsonl",
            threads=1,
            variant="torchscript",
            normalize=True,
        )


def test_an_array_is_no_output_of_a_terminal_or_of_tokens(
    echo: Artifact, artifacts: Dict[str, Artifact], tmp_path: Path
) -> None:
    (tmp_path / "in.jsonl").write_bytes(lines_of(TEXTS))
    source = ["--input", str(tmp_path / "in.jsonl")]
    shown = CliRunner().invoke(cli, ["embed", str(echo.folder), *source, "--output-format", "npy"]).exception
    assert isinstance(shown, UsageError)
    assert shown.hint == f"neuronbert run {echo.folder} {' '.join(source)} --output RESULTS.npy"
    out = str(tmp_path / "out.npy")
    of_tokens = CliRunner().invoke(cli, ["run", str(artifacts["tokens"].folder), *source, "--output", out]).exception
    assert isinstance(of_tokens, UsageError) and "these results have token_embeddings, truncated" in str(of_tokens)
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


# ---- the other backends


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize(
    ("backend", "precision"),
    [("onnxruntime", "fp32"), ("onnxruntime", "int8"), ("openvino", "fp32"), ("openvino", "int8")],
)
@pytest.mark.parametrize("name", ["every", "unprompted"])
def test_every_backend_pools_in_its_graph(
    folders: Dict[str, Path], artifacts: Dict[str, Artifact], tmp_path: Path, backend: str, precision: str, name: str
) -> None:
    pytest.importorskip(backend)
    pytest.importorskip("nncf" if (backend, precision) == ("openvino", "int8") else backend)
    made = compile_checkpoint(
        str(folders[name]), tmp_path / "out", backend=backend, precision=precision, threads=1,
        min_f1_ratio=0.3, min_answer_f1=0.7,
    )  # fmt: skip
    with Engine(made, threads=1) as engine, Engine(artifacts[name], variant="torchscript", threads=1) as reference:
        options = engine.task.ENCODE_OPTIONS(prompt_name="query")
        pairs = list(zip(engine.answer(TEXTS, options), reference.answer(TEXTS, options)))
    for ours, theirs in pairs:
        a, b = ours["embedding"], theirs["embedding"]
        assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > (0.99999 if precision == "fp32" else 0.8)


@pytest.mark.slow
@pytest.mark.usefixtures("short_gate")
@pytest.mark.parametrize("name", ["every", "tokens"])
def test_an_emulated_device_pools_in_its_graph(
    folders: Dict[str, Path], artifacts: Dict[str, Artifact], tmp_path: Path, name: str
) -> None:
    """Compiled in a child, which finds the layers in config.json; asked by the gate in another."""
    from neuronbert import emulator

    folder = folders["bert" if name == "tokens" else name]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NEURONBERT_CACHE", str(tmp_path / "cache"))
        emulator.use("inf1.xlarge", directory=str(tmp_path / "device"))
        try:
            made = compile_checkpoint(
                str(folder), tmp_path / "out", backend="neuron", sequence_length="32", threads=1,
                pooling="none" if name == "tokens" else None, min_f1_ratio=0.3, min_answer_f1=0.7,
            )  # fmt: skip
            with Engine(made, threads=1) as engine, Engine(artifacts[name], variant="torchscript", threads=1) as other:
                pairs = list(zip(engine.answer(TEXTS), other.answer(TEXTS)))
        finally:
            emulator.stop()
    for ours, theirs in pairs:
        (a,), (b,) = (list(each.values()) for each in (ours, theirs))
        np.testing.assert_allclose(a, b, atol=0.1)


def test_lower_case_and_a_default_prompt_survive_compile(tmp_path: Path) -> None:
    folder = write_sentence_folder(tmp_path / "own", default_prompt_name="query")
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 9, "do_lower_case": True})
    with Engine(compiled(folder, tmp_path / "out", "echo"), threads=1) as engine:
        (example,) = engine.encode(["JIM"])
        (expected,) = engine.encode(["the puppet: jim"], engine.task.ENCODE_OPTIONS(prompt=""))
        assert example.windows[0].input_ids.tolist() == expected.windows[0].input_ids.tolist()
