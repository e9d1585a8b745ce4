"""The folders are the data path: imports point one way, and nothing imports what imports it."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, Set

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "neuronbert"

# From the bottom up: a folder imports only itself and what stands before it.
FOLDERS = (
    "errors", "hardware", "emulator", "checkpoint", "backends", "tasks", "artifact", "engine", "compiler", "runner",
    "benchmark", "planner", "server", "cli", "__main__",
)  # fmt: skip


TOP_LEVEL = {path.stem for path in PACKAGE.iterdir()}


def imported_by_module() -> Dict[str, Set[str]]:
    """Each module and the package's modules that it imports anywhere, inside functions too."""
    paths = {name_of(path): path for path in PACKAGE.rglob("*.py")}
    return {name: set(imports_of(path, set(paths))) - {name} for name, path in paths.items()}


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path, modules: Set[str]) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module == PACKAGE.name:
            # The public names are at the top of the house, whatever module resolves them.
            assert {alias.name for alias in node.names} <= {"__version__", *TOP_LEVEL}, f"{path} imports a public name"
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            assert node.level == 0, f"{path} imports relatively"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from ([full] if full in modules else [node.module] if node.module in modules else [])


IMPORTED = imported_by_module()


def folder_of(module: str) -> str:
    """The part below the package. Every module may ask the package itself for its version: it stands at the bottom."""
    return module.split(".")[1] if "." in module else "errors"


def test_every_folder_has_its_place_in_the_order() -> None:
    assert {folder_of(module) for module in IMPORTED} == set(FOLDERS)


def test_no_folder_imports_a_higher_one() -> None:
    place = {folder: number for number, folder in enumerate(FOLDERS)}
    upward = [
        f"{module} imports {target}"
        for module, targets in sorted(IMPORTED.items())
        for target in sorted(targets)
        if module != "neuronbert" and place[folder_of(target)] > place[folder_of(module)]
    ]
    assert upward == []


def circle_through(module: str) -> List[str]:
    """The shortest way from ``module`` along imports back to it; empty when there is none."""
    trails = [[module]]
    seen: Set[str] = set()
    while trails:
        trail = trails.pop(0)
        for target in sorted(IMPORTED[trail[-1]]):
            if target == module:
                return [*trail, module]
            if target not in seen:
                seen.add(target)
                trails.append([*trail, target])
    return []


@pytest.mark.parametrize("module", sorted(IMPORTED))
def test_no_module_imports_what_imports_it(module: str) -> None:
    assert circle_through(module) == []


# What Python itself asks for.
PYTHON_FILES = {"__init__.py", "__main__.py", "py.typed", "__pycache__"}


def test_the_package_has_room_for_every_stage_and_no_more() -> None:
    rooms = [path.name for path in PACKAGE.iterdir() if path.name not in PYTHON_FILES]
    assert len(rooms) <= 14, sorted(rooms)


@pytest.mark.parametrize("folder", sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py")))
def test_every_folder_says_what_lives_in_it(folder: str) -> None:
    said = ast.get_docstring(ast.parse((PACKAGE / folder / "__init__.py").read_bytes()))
    assert said and "import" in said.lower(), f"{folder}/__init__.py must say what lives there and what may import it"
