"""The artifact: a folder of variants, with a manifest that vouches for every byte; compiler writes, engine loads it."""

import hashlib
import json
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Dict, Iterator, List, Mapping, Optional, Sequence, Union

from neuronbert import __version__
from neuronbert.artifact.manifest_schema import MANIFEST, SHAPE, SHAPED_ON_CORES, SHAPED_ON_CPU, WITH_OUTPUTS
from neuronbert.artifact.signatures import SIGNATURE_NAME, PublicKey, TrustedKey, trusted_keys, verify_signature
from neuronbert.backends import BACKENDS, backend_module
from neuronbert.errors import (
    ArtifactChanged,
    ArtifactError,
    UsageError,
    is_path,
    quoted,
    refuse_no_path,
    shown_value,
)
from neuronbert.hardware.schema import shown
from neuronbert.hardware.untrusted import (
    Refusal,
    json_object,
    open_regular,
    read_file,
    readable,
    refuse_irregular,
    refuse_large,
    sha256_of,
    sha256_of_stream,
)
from neuronbert.tasks import TASKS

MANIFEST_NAME = "neuronbert.json"
SELFTEST_NAME = "selftest.npz"

# 1 (0.1.0): the first. 2: ``outputs``, which say what the model returns, and ``pooling``, where there is one.
SCHEMA_VERSION = 2

NO_DIGEST = "0" * 64
# A variant in FP32 has four bytes for each parameter, and two copies of the weights at most.
BYTES_PER_PARAMETER = 16
FILE_BYTES = 1 << 30
DAMAGED = Refusal(
    ArtifactError, "copy the artifact again, or remove it and compile it again: neuronbert compile CHECKPOINT OUTPUT"
)

PathLike = Union[str, "os.PathLike[str]"]
Manifest = Mapping[str, Any]  # the content of neuronbert.json
Variant = Mapping[str, Any]  # an entry of its ``variants``, as in backends.base, which takes longer to import


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: its folder and its manifest.

    ``signed_by`` is the trusted key with which its signature was verified; None: none was asked for.
    """

    folder: Path
    manifest: Manifest
    signed_by: Optional[PublicKey] = None

    @property
    def task(self) -> str:
        """What its model is for: a name in the table of tasks."""
        return str(self.manifest["task"])

    @property
    def first_rows(self) -> int:
        """How many rows of a long input are read at first, where a caller does not say; 0: all."""
        return int(self.manifest.get("row_selection", {"first_rows": 0})["first_rows"])

    @property
    def variants(self) -> List[Variant]:
        return list(self.manifest["variants"])

    def variant_folder(self, variant: Variant) -> Path:
        return self.folder / "variants" / str(variant["name"])


def load_artifact(folder: PathLike, *, trusted_key: TrustedKey = None) -> Artifact:
    """The artifact in ``folder``, every byte of it verified. Its own ``folder`` is absolute, wherever one goes later.

    ``trusted_key``: a file of public keys, or several, one of whose keys must have signed it (``signatures``); by
    default the one that $NEURONBERT_TRUSTED_KEY names, if it is set. Nothing is parsed before that is verified.

    Raises ArtifactError, naming the file, if the manifest is missing, truncated, altered or from a newer schema, or if
    any file was changed, added, removed, or replaced by a symbolic link; SignatureError for a signature that is not
    there or not good, UsageError for a file that holds no key.
    """
    return signed_artifact(folder, trusted_keys(trusted_key))


def is_artifact(folder: PathLike) -> bool:
    """Whether ``folder`` is to be taken for an artifact, and for nothing else: it has a manifest, be it an odd one."""
    return os.path.lexists(os.path.join(folder, MANIFEST_NAME))


def artifact_of(artifact: Union[Artifact, PathLike], trusted_key: TrustedKey = None) -> Artifact:
    """``artifact`` itself, unless a signature is asked for that it was not loaded with, or the one in that folder."""
    if not isinstance(artifact, Artifact):
        return load_artifact(artifact, trusted_key=trusted_key)
    if trusted_key is None or artifact.signed_by in trusted_keys(trusted_key):
        return artifact
    return load_artifact(artifact.folder, trusted_key=trusted_key)


def task_of(artifact: Union[Artifact, PathLike], trusted_key: TrustedKey = None) -> str:
    """The name of an artifact's task, from its manifest alone: its files are verified when it is loaded."""
    if isinstance(artifact, Artifact):
        return artifact.task
    refuse_no_path("artifact", artifact)
    return str(read_manifest(Path(artifact), trusted_keys(trusted_key))["task"])


def signed_artifact(folder: PathLike, keys: Sequence[PublicKey]) -> Artifact:
    """As ``load_artifact``: signed by one of ``keys``, if there are any."""
    if not is_path(folder):
        raise UsageError(
            f"an artifact is a folder, not {shown_value(folder)}", hint="the path of one, or load_artifact"
        )
    path = Path(folder)
    raw = read_manifest_bytes(path)
    signed_by = verify_signature(path, raw, keys) if keys else None
    return verified(path, parse_manifest(path, raw), signed_by)


def verified(path: Path, manifest: Manifest, signed_by: Optional[PublicKey] = None) -> Artifact:
    """The artifact in ``path``, with every file that ``manifest`` lists verified."""
    expected = listed_files(manifest)
    refuse_unsafe_paths(path, expected)
    refuse_unlisted_files(path, expected)
    verify_checksums(path, expected, most_file_bytes(manifest))
    return Artifact(Path(os.path.abspath(path)), manifest, signed_by)


def load_same_artifact(folder: PathLike, digest: str, signed_by: Optional[PublicKey] = None) -> Artifact:
    """The artifact in ``folder`` again; ArtifactChanged if it is no longer the one of this digest.

    ``signed_by`` is the trusted key with which its signature was verified, and is once more.
    """
    artifact = signed_artifact(folder, () if signed_by is None else (signed_by,))
    if artifact.manifest["digest"] != digest:
        raise ArtifactChanged(
            f"{folder} holds another artifact than before: its digest was {digest[:12]}…, and is "
            f"{artifact.manifest['digest'][:12]}…",
            hint="for the new one make a new Runner (a new version belongs in a new folder); or put the old one back",
        )
    return artifact


def verified_again(artifact: Artifact) -> Artifact:
    """What lies in its folder by now, where some time has passed: the same artifact, or ArtifactChanged."""
    return load_same_artifact(artifact.folder, artifact.manifest["digest"], artifact.signed_by)


def read_manifest(folder: Path, keys: Sequence[PublicKey] = ()) -> Manifest:
    """The manifest of ``folder``, signed by one of ``keys`` if there are any; no other file is looked at."""
    raw = read_manifest_bytes(folder)
    if keys:
        verify_signature(folder, raw, keys)
    return parse_manifest(folder, raw)


def read_manifest_bytes(folder: Path) -> bytes:
    """The manifest of ``folder`` as it is on the disk; ArtifactError says what else the folder is."""
    try:
        return read_file(folder / MANIFEST_NAME, DAMAGED, links=False)
    except (FileNotFoundError, NotADirectoryError):
        raise _no_artifact(folder) from None


def parse_manifest(folder: Path, raw: bytes) -> Manifest:
    """The manifest in ``raw``, checked against its own digest and its schema."""
    manifest = json_object(raw, str(folder / MANIFEST_NAME), DAMAGED)
    digest = str(manifest.get("digest"))
    # Checked before the schema: a damaged number must not read as a newer one. A newer schema may lack such a digest.
    signed = re.fullmatch("[0-9a-f]{64}", digest) is not None
    if signed and _digest(raw, digest) != digest:
        raise _damaged(folder, f"{MANIFEST_NAME} does not match its own digest: it was changed after it was written")
    _refuse_newer_schema(folder, manifest)
    if not signed:
        raise _damaged(folder, f"{MANIFEST_NAME} has no digest of its own: it was changed after it was written")
    _refuse_malformed(folder, manifest)
    return manifest


def _no_artifact(folder: Path) -> ArtifactError:
    if not os.path.lexists(folder):
        return ArtifactError(
            f"there is no artifact at {folder}",
            hint="the path of a folder that neuronbert compile wrote: neuronbert compile CHECKPOINT FOLDER",
        )
    if os.path.exists(folder / "config.json"):
        what, hint = (
            "it is a checkpoint that was not compiled yet",
            f"neuronbert compile {quoted(folder)} OUTPUT",
        )
    else:
        what, hint = f"it has no {MANIFEST_NAME}", "name the folder that neuronbert compile wrote"
    return ArtifactError(f"{folder} is not an artifact: {what}", hint=hint)


def _refuse_malformed(folder: Path, manifest: Manifest) -> None:
    """Raise ArtifactError for a manifest that compile never wrote, though its digest is right."""
    fault = MANIFEST.fault(manifest) or (WITH_OUTPUTS.fault(manifest) if manifest["schema_version"] >= 2 else None)
    if fault is not None:
        raise _damaged(folder, f"{MANIFEST_NAME}: {fault}")
    if manifest["task"] not in TASKS:
        raise ArtifactError(
            f"{folder} has the task {shown(manifest['task'])}, and neuronbert {__version__} knows {', '.join(TASKS)}",
            hint="pip install --upgrade neuronbert",
        )
    names = [variant["name"] for variant in manifest["variants"]]
    for variant in manifest["variants"]:
        name = variant["name"]
        if names.count(name) > 1:
            raise _damaged(folder, f"{MANIFEST_NAME} has two variants called {name!r}")
        for path in variant["files"]:
            if not path.startswith(f"variants/{name}/"):
                raise _damaged(
                    folder, f"{MANIFEST_NAME}: variant {name} lists {shown(path)}, which is not in its folder"
                )
        if "cascade" in variant.get("cascade", {}).get("variant", {}):
            raise _damaged(folder, f"{MANIFEST_NAME}: variant {name} is a cascade of a cascade")
        fault = _fault_of_shape(variant)
        if fault is not None:
            raise _damaged(folder, f"{MANIFEST_NAME}: variant {name}: {fault}")


def _fault_of_shape(variant: Variant) -> Optional[str]:
    """What is wrong with a variant of one shape: its fields, or that it runs on cores which its backend knows not."""
    cores, backend = variant["pipeline_cores"], variant["backend"]
    if cores is not None and backend in BACKENDS and backend_module(backend).DEVICE != "neuron":
        return f"pipeline_cores is {cores}, and {backend} runs on no NeuronCores"
    form = SHAPED_ON_CPU if cores is None else SHAPED_ON_CORES
    return form.fault(variant) if any(variant[key] is not None for key in SHAPE) else None


def _refuse_newer_schema(folder: Path, manifest: Manifest) -> None:
    schema = manifest.get("schema_version")
    if isinstance(schema, bool) or not isinstance(schema, int) or schema < 1:
        raise _damaged(folder, f"{MANIFEST_NAME} has the schema version {shown(schema)}")
    if schema > SCHEMA_VERSION:
        writer = str(manifest.get("neuronbert_version"))
        # Two repeats that match the same would take hours over a long text.
        known = re.fullmatch("[0-9][0-9a-z.+]{0,40}", writer) is not None
        upgrade = f"'neuronbert>={writer}' (the version that wrote it)" if known else "--upgrade neuronbert"
        raise ArtifactError(
            f"{folder} has schema version {schema}, and neuronbert {__version__} reads up to {SCHEMA_VERSION}",
            hint=f"pip install {upgrade}, or compile the checkpoint again",
        )


def _digest(raw: bytes, digest: str) -> str:
    return hashlib.sha256(raw.replace(digest.encode(), NO_DIGEST.encode(), 1)).hexdigest()


def _damaged(folder: Path, what: str) -> ArtifactError:
    return ArtifactError(f"{folder}: {what}", hint=DAMAGED.hint)


def listed_files(manifest: Manifest) -> Dict[str, str]:
    """Every path that the manifest vouches for, with its SHA-256."""
    files = dict(manifest["files"])
    for variant in manifest["variants"]:
        files.update(variant["files"])
    return files


def refuse_unsafe_paths(folder: Path, paths: Mapping[str, str]) -> None:
    """Raise ArtifactError for a listed path that may lead out of the folder."""
    for name in paths:
        parts = name.split("/")
        if (
            not name.isprintable()
            or not name
            or "\\" in name
            or os.path.isabs(name)
            or any(part in ("", ".", "..") for part in parts)
        ):
            raise _damaged(
                folder, f"{MANIFEST_NAME} lists the path {shown(name)}, which is odd, or may lead out of the artifact"
            )


def refuse_unlisted_files(folder: Path, expected: Mapping[str, str]) -> None:
    """Raise ArtifactError for what is no regular file or folder, is not listed, or is listed and not there."""
    present = set(_files_below(folder))
    extra = sorted(present - set(expected) - {MANIFEST_NAME, SIGNATURE_NAME})
    if extra:
        raise ArtifactError(
            f"{folder}: {extra[0]} is not listed in {MANIFEST_NAME}"
            + (f" (and {len(extra) - 1} more)" if extra[1:] else ""),
            hint=f"remove {quoted(folder / extra[0])} if you do not know what it is",
        )
    missing = sorted(set(expected) - present)
    if missing:
        raise _damaged(folder, f"{missing[0]} is missing")


def _files_below(root: Path) -> Iterator[str]:
    """The path, relative to ``root``, of every regular file below it; ArtifactError for anything else."""
    waiting = [root]
    while waiting:
        folder = waiting.pop()
        with readable(folder, DAMAGED):
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        for entry in entries:
            path = Path(entry.path)
            if not entry.name.isprintable():  # a line break in it would let an error say what the name does
                raise _damaged(root, f"{shown(entry.name)} is no name that compile gives")
            with readable(path, DAMAGED):
                found = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                waiting.append(path)
            else:
                refuse_irregular(path, found, DAMAGED)
                yield path.relative_to(root).as_posix()


def most_file_bytes(manifest: Manifest) -> int:
    """What no file of such a model has more of; without it, one that was replaced by a hole of terabytes is hashed."""
    return FILE_BYTES + BYTES_PER_PARAMETER * int(manifest["checkpoint"]["parameters"])


def verify_checksums(folder: Path, expected: Mapping[str, str], most_bytes: int) -> None:
    """Raise ArtifactError for the first listed file whose bytes cannot be read, or are not those that were written.

    So is one of more than ``most_bytes``, of which nothing is read.
    """
    with ThreadPoolExecutor(max_workers=min(4, len(expected) or 1)) as pool:
        actual = dict(zip(expected, pool.map(lambda name: _sha256_inside(folder / name, most_bytes), expected)))
    for name in sorted(expected):
        if actual[name] != expected[name]:
            raise _damaged(
                folder, f"{name} was changed: its SHA-256 is {actual[name][:12]}…, not {expected[name][:12]}…"
            )


def _sha256_inside(path: Path, most_bytes: int) -> str:
    with open_regular(path, DAMAGED, links=False) as file, readable(path, DAMAGED):
        refuse_large(path, file, most_bytes, DAMAGED)
        return sha256_of_stream(file)


def checksums(folder: Path) -> Dict[str, str]:
    """path → SHA-256 of every file below ``folder``, the paths relative to it."""
    return {
        path.relative_to(folder).as_posix(): sha256_of(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def manifest_of(
    task: str,
    checkpoint: Mapping[str, Any],
    variants: Sequence[Variant],
    environment: Mapping[str, Any],
    **more: Any,
) -> Manifest:
    """A new manifest with ``more`` entries, still without the checksums of the files and its own digest."""
    return {
        "schema_version": SCHEMA_VERSION,
        "neuronbert_version": __version__,
        "created_at": datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "task": task,
        "checkpoint": dict(checkpoint),
        "variants": list(variants),
        **more,
        "files": {},
        "environment": dict(environment),
    }


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write the manifest last: with the checksum of every file that is in ``folder`` by then, and its own digest."""
    sums = checksums(folder)

    def below(prefix: str) -> Dict[str, str]:
        return {path: sha for path, sha in sums.items() if path.startswith(prefix)}

    variants = [{**variant, "files": below(f"variants/{variant['name']}/")} for variant in manifest["variants"]]
    in_variants = {path for variant in variants for path in variant["files"]}
    shared = {
        path: sha
        for path, sha in sums.items()
        if path not in in_variants and path not in (MANIFEST_NAME, SIGNATURE_NAME)
    }
    body = {**manifest, "variants": variants, "files": shared, "digest": NO_DIGEST}
    raw = (json.dumps(body, indent=2, allow_nan=False) + "\n").encode()
    digest = hashlib.sha256(raw).hexdigest()
    at = raw.rindex(NO_DIGEST.encode())
    (folder / MANIFEST_NAME).write_bytes(raw[:at] + digest.encode() + raw[at + len(NO_DIGEST) :])
