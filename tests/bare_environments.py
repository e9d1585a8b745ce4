"""Virtual environments with only some of the libraries that are installed here, made of links in a moment."""

import configparser
import os
import subprocess
import sys
import sysconfig
from importlib import metadata
from pathlib import Path
from typing import Iterator, Set

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]


def make_environment(folder: Path, *extras: str) -> Path:
    """The Python of a new environment that holds this checkout as pip would install it with ``extras``."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder)}))
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    names: Set[str] = set()
    for requirement in declared(setup, *extras):
        add_required(requirement.name, names)
    for name in sorted(names):
        link(metadata.distribution(name), packages)
    (packages / "checkout.pth").write_text(f"{ROOT}\n", encoding="utf-8")
    return folder / "bin" / "python"


def declared(setup: configparser.ConfigParser, *extras: str) -> Iterator[Requirement]:
    """What setup.cfg requires, and its extras, those of extras too."""
    of_extras = [setup["options.extras_require"][extra] for extra in extras]
    for line in "\n".join([setup["options"]["install_requires"], *of_extras]).split("\n"):
        if not line or line.startswith("#"):
            continue
        requirement = Requirement(line)
        if requirement.name == setup["metadata"]["name"]:
            yield from declared(setup, *requirement.extras)
        else:
            yield requirement


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
