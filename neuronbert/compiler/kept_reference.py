"""Keeps what the FP32 reference said to the gate's rows, for later compiles of the same checkpoint (gate.py).

A file is the digest of what follows, and the outputs of all rows one after the other, as float32. How many there are
follows from the rows, so nothing in it is parsed. The name says by what checkpoint, libraries and kind of CPU they were
computed; and some are computed again before any is believed.
"""

import hashlib
import json
import math
import os
import random
from contextlib import suppress
from pathlib import Path
from typing import Callable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from neuronbert.artifact.files import replace_file
from neuronbert.backends.outputs import PER_TOKEN, Output, Outputs
from neuronbert.checkpoint.loading import Checkpoint
from neuronbert.errors import NeuronBertError, in_words
from neuronbert.hardware.machine import cpu_model, library_versions
from neuronbert.hardware.own_places import cache_path, open_own, own_folder
from neuronbert.tasks.base import Row

VERSION = 1  # of the file's form, and of how the reference computes
MOST_BYTES = 64 << 20  # of one file
FOLDER_BYTES = 512 << 20  # of all of them: the demo's has 0.9 MiB
ASKED_AGAIN = 8  # rows, others each time
SAME = 1e-5  # of logits: a hundredth of what the gate takes for the same

Infer = Callable[[Sequence[int]], List[Outputs]]  # what the reference says now to the rows of these numbers


class KeptReference(NamedTuple):
    """The answers of one checkpoint's reference to one set of rows."""

    name: str
    rows: Sequence[Row]
    specs: Sequence[Output]
    progress: Callable[[str], None]

    @classmethod
    def of(
        cls,
        checkpoint: Checkpoint,
        specs: Sequence[Output],
        rows: Sequence[Row],
        progress: Callable[[str], None] = lambda line: None,
    ) -> "KeptReference":
        """Those of ``checkpoint`` to ``rows``, on a machine as this one."""
        facts = {
            "version": VERSION,
            "fingerprint": checkpoint.fingerprint,
            "config": dict(checkpoint.config),
            "head": checkpoint.head.task,
            "outputs": [tuple(spec) for spec in specs],
            "libraries": library_versions(("torch", "transformers")),
            "cpu": cpu_model(),
        }
        digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        for row in rows:
            digest.update(f"\n{len(row.input_ids)}\n".encode())
            for array in (row.input_ids, row.token_type_ids):
                digest.update(np.ascontiguousarray(array).data)
        return cls(f"{digest.hexdigest()}.f32", rows, specs, progress)

    @property
    def shapes(self) -> Optional[List[List[Tuple[int, ...]]]]:
        """Of each row the shapes of its outputs, in order; None where only the model knows them."""
        if any(spec.entry is None for spec in self.specs):
            return None
        return [[_shape(spec, len(row.input_ids)) for spec in self.specs] for row in self.rows]

    def read(self, infer: Infer) -> Optional[List[Outputs]]:
        """What is kept, if there is something and the reference still says the same to some of the rows."""
        found = self._read()
        if found is None:
            return None
        numbers = random.SystemRandom().sample(range(len(self.rows)), min(ASKED_AGAIN, len(self.rows)))
        for number, now in zip(numbers, infer(numbers)):
            for name, array in now.items():
                if not np.abs(array - found[number][name]).max(initial=0) <= SAME:
                    self.progress("what an earlier compile kept is not what the reference says: all is asked again")
                    return None
        self.progress("they are those of an earlier compile of this checkpoint")
        return found

    def _read(self) -> Optional[List[Outputs]]:
        shapes = self.shapes
        if shapes is None or not self.rows:
            return None
        digest_bytes = hashlib.sha256().digest_size
        expected = 4 * sum(math.prod(shape) for row in shapes for shape in row)
        try:
            with open(open_own(own_folder(cache_path("reference")) / self.name, os.O_RDONLY), "rb") as file:
                content = file.read(digest_bytes + expected + 1)
        except (OSError, NeuronBertError):  # nothing is kept, or where others could have changed it
            return None
        data = content[digest_bytes:]
        if len(data) != expected or not content.startswith(hashlib.sha256(data).digest()):
            return None
        return list(_cut(np.frombuffer(data, dtype=np.float32), shapes, self.specs))

    def keep(self, outputs: Sequence[Outputs]) -> None:
        """Keep the outputs of all rows, if they are not too large and there is a place for them."""
        if self.shapes is None:
            return
        arrays = [np.ascontiguousarray(row[spec.name], dtype=np.float32) for row in outputs for spec in self.specs]
        if sum(array.nbytes for array in arrays) > MOST_BYTES:
            return
        data = b"".join(array.tobytes() for array in arrays)
        try:
            folder = own_folder(cache_path("reference"))
            replace_file(folder / self.name, hashlib.sha256(data).digest() + data)
            _forget_oldest(folder, FOLDER_BYTES)
        except (OSError, NeuronBertError) as error:
            self.progress(f"the reference's answers are not kept for a later compile: {in_words(error)}")


def _forget_oldest(folder: Path, most_bytes: int) -> None:
    """Remove the files that were written first, so that the others have ``most_bytes`` at most."""
    found = []
    for path in folder.iterdir():  # what a kill left half written too
        with suppress(FileNotFoundError):  # another compile forgets too
            stat = path.stat()
            found.append((stat.st_mtime_ns, stat.st_size, path))
    total_bytes = 0
    for _, size_bytes, path in sorted(found, reverse=True):
        total_bytes += size_bytes
        if total_bytes > most_bytes:
            path.unlink(missing_ok=True)


def _shape(spec: Output, tokens: int) -> Tuple[int, ...]:
    entry = tuple(spec.entry or ())
    return (tokens, *entry) if spec.per == PER_TOKEN else entry


def _cut(values: np.ndarray, shapes: Sequence[Sequence[Tuple[int, ...]]], specs: Sequence[Output]) -> Iterator[Outputs]:
    first = 0
    for row in shapes:
        outputs: Outputs = {}
        for spec, shape in zip(specs, row):
            size = math.prod(shape)
            outputs[spec.name] = values[first : first + size].reshape(shape)
            first += size
        yield outputs
