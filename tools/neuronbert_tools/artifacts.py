"""Artifacts of the backend that only hashes, told to take time or to fail: a runner without a model."""

import gc
import json
import os
from pathlib import Path
from typing import Any

from neuronbert import compile_checkpoint
from neuronbert.artifact.manifest import Artifact, load_artifact, write_manifest
from neuronbert.backends.echo import FAULTS_VARIABLE, FILE_NAME


def echo_artifact(folder: Path, **settings: Any) -> Artifact:
    """The demo's tokenizer with the echo backend, in the new folder ``folder``.

    ``settings`` go to the backend's file: ``batch_s``, the seconds a batch takes, and ``faults``, token → what happens.
    """
    artifact: Artifact = compile_checkpoint("demo", folder, backend="echo", precision="fp32", skip_gate=True)
    # Compiling has loaded torch, of which a service has nothing: its 380,000 objects would be a pause of 0.3 s whenever
    # Python looks for garbage among them.
    gc.collect()
    gc.freeze()
    if not settings:
        return artifact
    os.environ[FAULTS_VARIABLE] = "1"  # for the workers too
    path = artifact.variant_folder(artifact.variants[0]) / FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    # The manifest's digest covers that file: written again, it is computed again.
    write_manifest(folder, {key: value for key, value in artifact.manifest.items() if key != "digest"})
    return load_artifact(folder)
