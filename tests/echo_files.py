"""The echo artifact with more in its file."""

import json
from pathlib import Path

from neuronbert.artifact.manifest import Artifact, load_artifact, write_manifest
from neuronbert.backends.echo import FILE_NAME


def with_echo(folder: Path, **more) -> Artifact:
    """The echo artifact in ``folder`` with more in its file, and its checksums made good."""
    manifest = load_artifact(folder).manifest
    path = folder / "variants" / manifest["variants"][0]["name"] / FILE_NAME
    path.write_text(json.dumps({**json.loads(path.read_text()), **more}))
    write_manifest(folder, {key: value for key, value in manifest.items() if key != "digest"})
    return load_artifact(folder)
