"""Loads thousands of changed artifacts and checkpoints: each must load, or be refused with an error that is documented.

    tools/attack_files                                         # 20,000 artifacts and 5,000 checkpoints
    tools/attack_files --artifacts 300 --checkpoints 100 --seed 7
    tools/attack_files --checkpoints 0 --first 4711 --artifacts 1 --keep /tmp/found    # one of them again

A change is of structure (types, names, nesting, numbers), of bytes, of what kind of file it is, or of an archive. Most
artifacts get checksums and a digest that fit again, so that what lies behind them is reached. Loading is all that
`inspect` and `answer` do of an artifact (the manifest, tokenizer, engine, self-test, a question), and all that
`compile` reads of a checkpoint before it traces; with --reference the FP32 model is made too. Children do it, with a
limit of time and of memory for each. The exit code is 1 if one raised anything else, hung, died, took more memory or
printed to stdout.

What an engine's own parser does with a graph file that somebody changed AND listed again is counted apart (`engine`):
the digest is integrity, and only a signature says who wrote a file.
"""

import hashlib
import json
import os
import random
import resource
import select
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from neuronbert.artifact.manifest import MANIFEST_NAME, NO_DIGEST, checksums, load_artifact, write_manifest
from neuronbert.backends.child import python_environment
from neuronbert.errors import NeuronBertError
from neuronbert.hardware.machine import library_version
from neuronbert_tools.console import add_report_option, new_parser, print_document, print_message
from neuronbert_tools.file_mutations import changed
from neuronbert_tools.paths import ROOT
from neuronbert_tools.processes import module_command

RELEASED = ROOT / "tests" / "data" / "artifacts" / "schema-1"
BACKENDS = {"echo": None, "onnxruntime": "onnxruntime"}  # each with the library that it needs
FIGURES = {
    "agreement": {"max_abs_diff": 0.0, "top1_agreement": 1.0, "n": 600},
    "accuracy": {"f1": 85.0, "reference_f1": 85.0, "answer_f1": 1.0, "f1_ratio": 1.0},
}
GRAPHS = ("variants/onnxruntime-fp32/",)
RESEALED = 0.85  # of the artifacts
QUESTION = ("who was jim henson?", "jim henson was a nice puppet.")
KINDS = ("artifact", "checkpoint")
FIRST_S = 120.0  # until a child has imported everything


class Limits(NamedTuple):
    """What one load may take."""

    seconds: float
    memory_bytes: int


# ---------------------------------------------------------------------- what is changed


def base_artifact(folder: Path) -> Path:
    """A tiny artifact of the backends that ``BACKENDS`` names."""
    shutil.copytree(RELEASED, folder)
    manifest = json.loads((folder / MANIFEST_NAME).read_bytes())
    installed = [name for name, library in BACKENDS.items() if library is None or library_version(library)]
    kept = [{**variant, **FIGURES} for variant in manifest["variants"] if variant["backend"] in installed]
    for variant in manifest["variants"]:
        if variant["backend"] not in installed:
            shutil.rmtree(folder / "variants" / variant["name"])
    (folder / MANIFEST_NAME).unlink()
    write_manifest(folder, {**{key: manifest[key] for key in manifest if key != "digest"}, "variants": kept})
    if library_version("cryptography"):
        sign(folder)
    load_artifact(folder)
    return folder


def sign(folder: Path) -> None:
    """Sign the artifact, with a new key beside it."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    from neuronbert.artifact.signing import sign_artifact

    key = Ed25519PrivateKey.generate()
    openssh, plain = serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    private = public_key_of(folder).with_suffix("")
    private.write_bytes(key.private_bytes(serialization.Encoding.PEM, openssh, plain))
    private.chmod(0o600)
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    public_key_of(folder).write_bytes(public + b"\n")
    sign_artifact(folder, private)


def public_key_of(base: Path) -> Path:
    """The key that a base artifact was signed with; not there where nothing was signed."""
    return base.parent / "key.pub"


def base_checkpoint(folder: Path) -> Path:
    """A tiny BERT with every kind of file that a checkpoint may have, and weights in one file and in shards."""
    from neuronbert.checkpoint.families import FAMILIES, expected_shapes
    from neuronbert.tasks.question_answering.task import HEAD

    folder.mkdir()
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        shutil.copyfile(RELEASED / name, folder / name)
    config = json.loads((folder / "config.json").read_bytes())
    shapes = expected_shapes(config, FAMILIES["bert"], HEAD)
    (folder / "special_tokens_map.json").write_text(
        json.dumps({"cls_token": "[CLS]", "mask_token": {"content": "[MASK]"}})
    )
    (folder / "added_tokens.json").write_text("{}")
    names = sorted(shapes)
    write_safetensors(folder / "model.safetensors", {name: shapes[name] for name in names})
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        write_safetensors(folder / shard, {name: shapes[name] for name in held})
    weight_map = {name: shard for shard, held in shards.items() for name in held}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def write_safetensors(path: Path, shapes: Dict[str, Sequence[int]]) -> None:
    """Tensors of zeros, in float32."""
    header, end = {}, 0
    for name, shape in shapes.items():
        size = 4
        for length in shape:
            size *= length
        header[name] = {"dtype": "F32", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    raw = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + bytes(end))


def chosen_form(folder: Path, choice: random.Random) -> None:
    """A checkpoint has its weights in one file or in shards, and a tokenizer.json or only a vocabulary."""
    if choice.random() < 0.3:
        (folder / "model.safetensors").unlink()
    else:
        for name in ("model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"):
            (folder / name).unlink()
    if choice.random() < 0.4:
        (folder / "tokenizer.json").unlink()


def reseal(folder: Path, changed_manifest: bool) -> None:
    """Give the artifact checksums and a digest that fit, as whoever changed it on purpose would."""
    path = folder / MANIFEST_NAME
    if path.is_symlink() or not path.is_file():
        return
    raw = path.read_bytes()
    try:
        manifest = json.loads(raw)
        digest = str(manifest["digest"])
        if not changed_manifest:
            sums = checksums(folder)
            for files in [manifest["files"], *(variant["files"] for variant in manifest["variants"])]:
                files.update({name: sums[name] for name in files if name in sums})
            raw = json.dumps(manifest).encode()
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, OSError):
        digest = json.loads((RELEASED / MANIFEST_NAME).read_bytes())["digest"]
    unsigned = raw.replace(digest.encode("utf-8", "replace"), NO_DIGEST.encode(), 1)
    path.write_bytes(unsigned.replace(NO_DIGEST.encode(), hashlib.sha256(unsigned).hexdigest().encode(), 1))


# ---------------------------------------------------------------------- one load


def attack(kind: str, base: Path, folder: Path, seed: str, reference: bool) -> Dict[str, str]:
    """Change a copy of ``base`` at ``folder`` as ``seed`` says, and load it; what was done and what came of it."""
    choice = random.Random(seed)
    shutil.copytree(base, folder, symlinks=True)
    if kind == "checkpoint":
        chosen_form(folder, choice)
    done = changed(folder, choice)
    if kind == "artifact" and choice.random() < RESEALED:
        reseal(folder, MANIFEST_NAME in done)
    try:
        trusted = public_key_of(base) if public_key_of(base).exists() and choice.random() < 0.2 else None
        use_artifact(folder, choice, trusted) if kind == "artifact" else use_checkpoint(folder, reference)
        outcome = "loaded"
    except NeuronBertError as error:
        outcome = type(error).__name__ if error.message else "an error without a message"
    except BaseException:
        return {"done": done, "outcome": "FAULT", "traceback": traceback.format_exc()}
    return {"done": done, "outcome": outcome}


def use_artifact(folder: Path, choice: random.Random, trusted_key: Optional[Path] = None) -> None:
    """All that inspect and answer do; with ``trusted_key`` it must be signed."""
    from neuronbert.cli.tables import manifest_table
    from neuronbert.engine.engine import Engine

    artifact = load_artifact(folder, trusted_key=trusted_key)
    manifest_table(artifact)
    names: List[Optional[str]] = [None, None, None, "echo-fp32", "onnxruntime-fp32"]  # the first is echo's
    with Engine(artifact, variant=choice.choice(names), threads=1, streams=1) as engine:
        engine.answer([QUESTION])


def use_checkpoint(folder: Path, reference: bool) -> None:
    """All that compile reads before it traces; with ``reference`` it makes the FP32 model too."""
    from neuronbert.tasks.checkpoints import load_checkpoint

    checkpoint = load_checkpoint(folder)
    checkpoint.tokenizer()
    if reference:
        checkpoint.torch_model()


# ---------------------------------------------------------------------- children


def work(kind: str, base: Path, first: int, count: int, seed: int, reference: bool, memory_bytes: int) -> None:
    """In a child: attack number after number, a line of JSON before each and one after it."""
    warm_up(kind, base, reference)
    used = _address_space_bytes()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, resource.RLIM_INFINITY))
    for number in range(first, first + count):
        with tempfile.TemporaryDirectory(prefix="attack-") as parent:
            os.chdir(parent)
            print(json.dumps({"begins": number}), flush=True)
            began = time.perf_counter()
            found = attack(kind, base, Path(parent, "it"), f"{seed}/{kind}/{number}", reference)
            print(json.dumps({**found, "number": number, "seconds": time.perf_counter() - began}), flush=True)
            os.chdir("/")


def warm_up(kind: str, base: Path, reference: bool) -> None:
    """Import all that is used, so that the limit of memory is about files alone."""
    use_artifact(base, random.Random(2)) if kind == "artifact" else use_checkpoint(base, reference)


def _address_space_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Child:
    """A process that works through numbers; killed and started again behind the number that it died of."""

    def __init__(self, kind: str, base: Path, first: int, count: int, seed: int, reference: bool, limits: Limits):
        self._facts = (kind, base, seed, reference)
        self._next, self._end = first, first + count
        self._limits = limits

    def results(self) -> Iterator[Dict[str, Any]]:
        """What came of each number."""
        while self._next < self._end:
            yield from self._one_life()

    def _one_life(self) -> Iterator[Dict[str, Any]]:
        kind, base, seed, reference = self._facts
        first = self._next
        facts = [kind, str(base), self._next, self._end - self._next, seed, reference, self._limits.memory_bytes]
        command = module_command("attack_files", "--child", json.dumps(facts))
        with tempfile.TemporaryFile() as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=python_environment())
            assert process.stdout is not None
            begun: Optional[int] = None
            printed = b""
            try:
                for line in _lines(process.stdout.fileno(), FIRST_S, self._limits.seconds):
                    strange, ours, rest = line.partition(b'{"')
                    printed += strange
                    if not ours:
                        continue
                    found = json.loads(ours + rest)
                    if "begins" in found:
                        begun = found["begins"]
                        continue
                    begun, self._next = None, found["number"] + 1
                    if printed:
                        found.update(outcome="PRINTED", traceback=printed.decode("utf-8", "replace"))
                        printed = b""
                    yield found
                outcome = "DIED"
            except TimeoutError:
                outcome = "HUNG"
            finally:
                process.kill()
                process.wait()
                process.stdout.close()
            errors.seek(0)
            said = errors.read().decode("utf-8", "replace")[-2000:]
        if begun is not None:
            self._next = begun + 1
            yield {"number": begun, "outcome": outcome, "traceback": f"exit {process.returncode}\n{said}", "done": "?"}
        elif self._next == first < self._end:
            raise RuntimeError(f"a child ended before its first load: {said}")


def _lines(descriptor: int, first_s: float, limit_s: float) -> Iterator[bytes]:
    """The lines of a pipe; TimeoutError when none comes for so long."""
    waiting, patience_s = b"", first_s
    while True:
        if not select.select([descriptor], [], [], patience_s)[0]:
            raise TimeoutError
        block = os.read(descriptor, 1 << 16)
        if not block:
            return
        *lines, waiting = (waiting + block).split(b"\n")
        patience_s = limit_s if lines else patience_s
        yield from lines


# ---------------------------------------------------------------------- all of them


def describe(kind: str, base: Path, number: int, seed: int, keep: Optional[Path]) -> Dict[str, str]:
    """What number does to the files, without loading them; ``keep`` gets the changed folder."""
    choice = random.Random(f"{seed}/{kind}/{number}")
    with tempfile.TemporaryDirectory() as parent:
        folder = Path(parent, "it")
        shutil.copytree(base, folder)
        if kind == "checkpoint":
            chosen_form(folder, choice)
        before = os.getcwd()
        os.chdir(parent)
        done = changed(folder, choice)
        os.chdir(before)
        resealed = kind == "artifact" and choice.random() < RESEALED
        if resealed:
            reseal(folder, MANIFEST_NAME in done)
        if keep is not None:
            keep.mkdir(parents=True, exist_ok=True)
            # Pipes and sockets too, over which shutil stumbles.
            subprocess.run(["cp", "-a", str(folder), str(keep / f"{kind}-{number}")], check=True)
    return {"done": done, "resealed": str(resealed)}


def is_of_an_engine(found: Dict[str, Any]) -> bool:
    """Whether a native parser died or hung over a graph file that was changed and listed again."""
    changes = str(found["done"]).split("; ")
    return found["outcome"] in ("DIED", "HUNG") and all(change.startswith(GRAPHS) for change in changes)


def run(kind: str, base: Path, first: int, count: int, seed: int, reference: bool, limits: Limits) -> Dict[str, Any]:
    """Attack ``count`` times; outcomes by number of times, and the findings."""
    outcomes: Counter[str] = Counter()
    findings: List[Dict[str, Any]] = []
    began, slowest = time.perf_counter(), 0.0
    for done, found in enumerate(Child(kind, base, first, count, seed, reference, limits).results(), start=1):
        if found["outcome"] in ("DIED", "HUNG"):
            found.update(describe(kind, base, found["number"], seed, None))
        outcome = "engine" if is_of_an_engine(found) else found["outcome"]
        outcomes[outcome] += 1
        slowest = max(slowest, found.get("seconds", 0.0))
        if outcome in ("FAULT", "DIED", "HUNG", "PRINTED", "an error without a message"):
            findings.append(found)
            print_message(f"{kind} {found['number']} {outcome}: {found['done']}\n{found.get('traceback', '')}")
        if done % 500 == 0:
            print_message(f"{done:,} of {count:,} {kind}s in {time.perf_counter() - began:.0f} s: {dict(outcomes)}")
    return {"kind": kind, "seed": seed, "first": first, "count": count, "outcomes": dict(sorted(outcomes.items())),
            "slowest_s": round(slowest, 3), "seconds": round(time.perf_counter() - began, 1),
            "findings": findings}  # fmt: skip


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """The command line."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["--child"]:
        kind, base, first, count, seed, reference, memory_bytes = json.loads(given[1])
        work(kind, Path(base), first, count, seed, reference, memory_bytes)
        return 0
    parser = new_parser(__doc__)
    parser.add_argument("--artifacts", type=int, default=20_000, help="how many artifacts (default: 20,000)")
    parser.add_argument("--checkpoints", type=int, default=5_000, help="how many checkpoints (default: 5,000)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives other changes (default: 0)")
    parser.add_argument("--first", type=int, default=0, help="the number to begin with (default: 0)")
    parser.add_argument("--seconds", type=float, default=30.0, help="limit for one load (default: 30)")
    parser.add_argument("--memory-mib", type=int, default=2048, help="limit for one load (default: 2048)")
    parser.add_argument("--reference", action="store_true", help="also make the FP32 model of a checkpoint")
    parser.add_argument("--keep", type=Path, help="a folder for copies of the changed folders; nothing is loaded")
    add_report_option(parser)
    options = parser.parse_args(given)
    limits = Limits(options.seconds, options.memory_mib << 20)
    counts = dict(zip(KINDS, (options.artifacts, options.checkpoints)))
    reports = []
    with tempfile.TemporaryDirectory(prefix="attack-files-") as scratch:
        bases = {
            "artifact": base_artifact(Path(scratch, "artifact")),
            "checkpoint": base_checkpoint(Path(scratch, "c")),
        }
        for kind, count in counts.items():
            if options.keep is not None:
                for number in range(options.first, options.first + count):
                    print_message(f"{kind} {number}: {describe(kind, bases[kind], number, options.seed, options.keep)}")
            elif count:
                reports.append(run(kind, bases[kind], options.first, count, options.seed, options.reference, limits))
    print_document({"attacks": reports}, options.json, indent=1)
    return 1 if any(report["findings"] for report in reports) else 0


if __name__ == "__main__":
    sys.exit(main())
