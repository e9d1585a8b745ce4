"""Virtual environments with only some of the libraries that are installed here, made of links in a moment."""

import configparser
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Set

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def make_environment(folder: Path, *extras: str) -> Path:
    """The Python of a new environment that holds this checkout as pip would install it with ``extras``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    declared = [setup["options"]["install_requires"], *(setup["options.extras_require"][extra] for extra in extras)]
    names: Set[str] = set()
    for line in "\n".join(declared).split("\n"):
        if line and not line.startswith("#"):
            add_required(Requirement(line).name, names)
    for name in sorted(names):
        link(metadata.distribution(name), packages)
    (packages / "checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    return folder / "bin" / "python"


def add_required(name: str, found: Set[str]) -> None:
    """Add a distribution to ``found``, and all that it requires without extras."""
    found.add(canonicalize_name(name))
    for text in metadata.requires(name) or []:
        requirement = Requirement(text)
        wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if wanted and canonicalize_name(requirement.name) not in found:
            add_required(requirement.name, found)


def link(distribution: metadata.Distribution, packages: Path) -> None:
    """Link what the distribution has at the top of its site-packages into ``packages``."""
    for name in {file.parts[0] for file in distribution.files or []} - {".."}:
        if not (packages / name).exists():
            os.symlink(str(distribution.locate_file(name)), packages / name)
