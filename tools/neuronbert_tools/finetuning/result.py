"""Writes the trained checkpoint as transformers saves one, with a README that says what it was made of."""

import json
from pathlib import Path
from typing import Any, Dict, Sequence

from neuronbert.checkpoint.families import Head
from neuronbert.checkpoint.loading import BaseCheckpoint

DEFAULT_ATTRIBUTION = "The terms of the base checkpoint and of the data apply to these weights: pass them on."


def write_checkpoint(folder: Path, base: BaseCheckpoint, head: Head, model: Any, dtype: str) -> None:
    """config.json, model.safetensors and the tokenizer, as transformers saves them."""
    import torch
    from safetensors.torch import save

    kind = getattr(torch, dtype)
    prefix = "model."  # of the transformers object inside the reference model
    tensors = {
        name[len(prefix) :]: parameter.detach().to("cpu", kind).contiguous()
        for name, parameter in model.named_parameters()
    }
    # Not save_file, which makes the file readable for its owner only.
    (folder / "model.safetensors").write_bytes(save(tensors, metadata={"format": "pt"}))
    config = {key: value for key, value in base.config.items() if key not in ("dtype", "_name_or_path", "auto_map")}
    config.update(architectures=[base.family.architecture(head)], model_type=base.family.model_type, torch_dtype=dtype)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    (folder / "config.json").write_text(text, encoding="utf-8")
    for name, content in base.tokenizer.items():
        (folder / name).write_bytes(content)


def write_readme(
    folder: Path, name: str, identity: Dict[str, Any], losses: Sequence[float], attribution: Sequence[str]
) -> None:
    """What the checkpoint was made of and how, with the attribution that its sources ask for."""
    last = losses[-50:]
    lines = [
        f"# {name}",
        "",
        f"Fine-tuned for {identity['task']} with neuronbert's tools/finetune.py from `{identity['base']}`"
        + (f" (revision {identity['revision']})" if identity["revision"] else "")
        + f", weights sha256 {identity['base_fingerprint']}"
        + (f", imitating weights sha256 {teacher}." if (teacher := identity["teacher_fingerprint"]) else "."),
        "",
        "Data:",
        *[f"- {file}, sha256 {digest}" for file, digest in identity["data"]],
        "",
        f"{len(losses)} steps; mean loss of last {len(last)}: {sum(last) / len(last):.4f} (all: training_log.json).",
        "",
        "Options: " + ", ".join(f"{name} {value}" for name, value in sorted(identity["options"].items())) + ".",
        "",
        "## Attribution",
        "",
        *(attribution or [DEFAULT_ATTRIBUTION]),
        "",
    ]
    (folder / "README.md").write_text("\n".join(lines), encoding="utf-8")
    (folder / "training_log.json").write_text(json.dumps({**identity, "losses": list(losses)}) + "\n", encoding="utf-8")
