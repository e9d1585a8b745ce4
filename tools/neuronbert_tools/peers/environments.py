"""Makes one virtual environment per peer, with exact versions, and keeps it for the next run."""

import configparser
import hashlib
import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path
from typing import Dict, List, NamedTuple, Tuple

from neuronbert_tools.console import print_message
from neuronbert_tools.paths import ROOT, TOOLS

CONSTRAINTS = TOOLS / "constraints-current.txt"


class Environment(NamedTuple):
    """What is installed, and what is taken out again."""

    requirements: Tuple[str, ...]
    removed: Tuple[str, ...] = ()


# transformers 4.57 is the last line with the question-answering pipeline for which optimum-onnx and optimum-intel
# have a release (0.1.0 asks for < 4.58).
TORCH = ("torch==2.13.0", "numpy==2.4.6")
BASE = (*TORCH, "transformers==4.57.6")
ONNX = ("optimum-onnx[onnxruntime]==0.1.0", "optimum==2.1.0", "onnxruntime==1.31.1", "onnx==1.23.2")
OPENVINO = ("optimum-intel[openvino]==2.2.0", "optimum==2.3.0", "openvino==2026.4.1", "nncf==3.4.0")
# A dependency that nothing here uses; built for CUDA, its import fails beside a CPU build of torch.
UNUSED = ("torchvision",)
ENVIRONMENTS = {
    "transformers": Environment(BASE),
    "transformers-5": Environment((*TORCH, "transformers==5.23.0")),
    "optimum-onnx": Environment((*BASE, *ONNX)),
    "optimum-intel": Environment((*BASE, *OPENVINO), removed=UNUSED),
    "sentence-transformers": Environment((*TORCH, "transformers==5.23.0", "sentence-transformers==6.2.0")),
    # From 6.0 on it asks for transformers 5, which optimum-onnx does not take.
    "sentence-transformers-onnx": Environment((*BASE, *ONNX, "sentence-transformers==5.7.0")),
    "sentence-transformers-openvino": Environment(
        (*TORCH, *OPENVINO, "transformers==5.5.4", "sentence-transformers==6.2.0"), removed=UNUSED
    ),
    "fastembed": Environment(("fastembed==0.9.1", "onnxruntime==1.31.1", "numpy==2.4.6")),
    # It asks for numpy < 2 and sentence-transformers < 4.
    "infinity": Environment(
        (
            *("torch==2.13.0", "numpy==1.26.4", "transformers==4.57.6", *ONNX),
            *("infinity-emb[torch,optimum]==0.0.78", "sentence-transformers==3.4.1"),
        )
    ),
    "neuronbert": Environment(("-c", str(CONSTRAINTS), "-e", f"{ROOT}[compile]")),
}


def ensure_environment(name: str, root: Path) -> Path:
    """The Python of environment ``name`` under ``root``, which is made if it is not there whole."""
    environment = ENVIRONMENTS[name]
    folder = root / f"{name}-{_digest(environment)}"
    python = folder / "bin" / "python"
    complete = folder / "complete"  # written last
    if not complete.exists():
        print_message(f"making the environment {folder.name} (a few minutes)")
        shutil.rmtree(folder, ignore_errors=True)
        venv.create(folder, with_pip=True)
        _pip(python, "install", *environment.requirements)
        if environment.removed:
            _pip(python, "uninstall", "--yes", *environment.removed)
        complete.touch()
    return python


def installed_versions(python: Path) -> Dict[str, str]:
    """Name → version of every distribution that ``python`` sees."""
    code = "from importlib.metadata import distributions as d\nfor x in d(): print(x.metadata['Name'], x.version)"
    listing = subprocess.run([str(python), "-I", "-c", code], check=True, capture_output=True, text=True).stdout
    return dict(sorted(line.rsplit(" ", 1) for line in listing.splitlines()))


def child_environment(threads: int) -> Dict[str, str]:
    """The variables of every measured process: the same threads for all, and no network."""
    dropped = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    keep = {name: value for name, value in os.environ.items() if name not in dropped}
    return {
        **keep,
        "PYTHONPATH": str(TOOLS),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }


def _digest(environment: Environment) -> str:
    described = f"{sys.version_info[:3]} {environment}"
    if "-e" in environment.requirements:
        described += CONSTRAINTS.read_text(encoding="utf-8") + _own_requirements()
    return hashlib.sha256(described.encode()).hexdigest()[:12]


def _own_requirements() -> str:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    return setup["options"]["install_requires"] + str(sorted(setup["options.extras_require"].items()))


def _pip(python: Path, *arguments: str) -> None:
    command: List[str] = [str(python), "-I", "-m", "pip", "--disable-pip-version-check", "-qq", *arguments]
    subprocess.run(command, check=True, stdout=sys.stderr, stdin=subprocess.DEVNULL)
