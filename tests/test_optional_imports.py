"""An optional library is imported where its absence is explained, and nowhere else: a missing one is never a bug."""

import ast
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set

import pytest

import neuronbert
from neuronbert import runner
from neuronbert.backends import BACKENDS
from neuronbert.hardware.libraries import LIBRARIES
from neuronbert.tasks import OBJECT_CLASSES, TASKS, load_task

PACKAGE = Path(neuronbert.__file__).parent
GUARD = "optional_imports"
# They import by a table of names: those of modules that themselves need no optional library to be imported.
TABLES = {
    "neuronbert": {*neuronbert._MODULES.values(), *neuronbert._PUBLIC.values()},
    "neuronbert.backends": set(BACKENDS.values()),
    "neuronbert.backends.child_main": {
        "neuronbert.backends.isolated",
        "neuronbert.backends.neuron.compile_job",
        "neuronbert.runner.worker_process",
    },
    "neuronbert.checkpoint.families": {load_task(name).HEAD.place.partition(":")[0] for name in TASKS},
    "neuronbert.engine.objects": set(OBJECT_CLASSES.values()),
    "neuronbert.runner": set(runner._EXPORTED.values()),
    "neuronbert.tasks": {f"{folder}.{module}" for folder in TASKS.values() for module in ("task", "figures")},
}

# What is imported on use only, by the backend's export and load.
CUDA_MODEL = ("attention", "encoder", "head", "kernels", "lanes", "layers", "session", "weights")


class Import(NamedTuple):
    """One import statement: what it names, and whether its failure is seen to."""

    line: int
    target: str  # a library, a module of the package, or "?" for a name that is only known at run time
    guarded: bool  # within `with optional_imports():`, or a try that catches ImportError
    at_top: bool  # done when the module is imported


class Imports(ast.NodeVisitor):
    """The imports of one module that may need an optional library."""

    def __init__(self, path: Path) -> None:
        self.found: List[Import] = []
        self._guarded = self._inside = False
        self.visit(ast.parse(path.read_bytes()))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self._add(node.lineno, alias.name)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self._add(node.lineno, f"{node.module}.{alias.name}")

    def visit_Call(self, node: ast.Call) -> None:
        if getattr(node.func, "attr", getattr(node.func, "id", None)) in ("import_module", "__import__"):
            name = node.args[0]
            self._add(node.lineno, name.value if isinstance(name, ast.Constant) else "?")
        self.generic_visit(node)

    def visit_With(self, node: ast.With) -> None:
        self._visit_body(node, guarded=any(is_guard(item.context_expr) for item in node.items))

    def visit_Try(self, node: ast.Try) -> None:
        caught = {
            name.id
            for handler in node.handlers
            for name in ast.walk(handler.type or node)
            if isinstance(name, ast.Name)
        }
        self._visit_body(node, guarded=not caught.isdisjoint({"ImportError", "ModuleNotFoundError"}))

    def visit_If(self, node: ast.If) -> None:
        if getattr(node.test, "id", None) != "TYPE_CHECKING":
            self.generic_visit(node)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before, self._inside = self._inside, True
        # What a decorator guards of a generator is only that it is made.
        generator = any(isinstance(one, (ast.Yield, ast.YieldFrom)) for one in ast.walk(node))
        self._visit_body(node, guarded=not generator and any(is_guard(one) for one in node.decorator_list))
        self._inside = before

    def _visit_body(self, node: ast.AST, guarded: bool) -> None:
        before, self._guarded = self._guarded, self._guarded or guarded
        self.generic_visit(node)
        self._guarded = before

    def _add(self, line: int, target: str) -> None:
        self.found.append(Import(line, target, self._guarded, not self._inside))


def is_guard(node: ast.expr) -> bool:
    return isinstance(node, ast.Call) and getattr(node.func, "id", None) == GUARD


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


IMPORTS = {name_of(path): Imports(path).found for path in PACKAGE.rglob("*.py")}


def module_of(target: str) -> str:
    """The module of the package that an import names, if it names one: the target itself or what has the name."""
    return target if target in IMPORTS else target.rpartition(".")[0]


def needed_at_once() -> Dict[str, Set[str]]:
    """For each module the optional libraries without which it cannot be imported."""
    needed: Dict[str, Set[str]] = {name: set() for name in IMPORTS}
    changed = True
    while changed:
        changed = False
        for name, found in IMPORTS.items():
            libraries = set().union(
                *(libraries_of(one.target, needed) for one in found if one.at_top and not one.guarded)
            )
            changed |= libraries != needed[name]
            needed[name] = libraries
    return needed


def libraries_of(target: str, needed: Dict[str, Set[str]]) -> Set[str]:
    top = target.partition(".")[0]
    return {top} if top in LIBRARIES else needed.get(module_of(target), set())


NEEDED = needed_at_once()


def unexplained(name: str) -> Iterator[str]:
    for one in IMPORTS[name]:
        more = libraries_of(one.target, NEEDED) - NEEDED[name]
        if more and not one.guarded:
            yield f"{name}:{one.line} imports {one.target}, which needs {', '.join(sorted(more))}"
        if one.target == "?" and not one.guarded and name not in TABLES:
            yield f"{name}:{one.line} imports by a name that is only known at run time"


@pytest.mark.parametrize("name", sorted(IMPORTS))
def test_the_absence_of_a_library_is_explained_where_it_is_imported(name: str) -> None:
    assert list(unexplained(name)) == []


@pytest.mark.parametrize("name", sorted(TABLES))
def test_what_is_imported_from_a_table_needs_no_optional_library(name: str) -> None:
    assert {module: NEEDED[module] for module in TABLES[name] if NEEDED[module]} == {}


def test_only_what_stands_behind_a_guard_needs_a_library_to_be_imported() -> None:
    """So that every folder but the emulator's can be imported in a service that only answers."""
    heavy = {name for name, libraries in NEEDED.items() if libraries}
    assert {name for name in heavy if not name.startswith("neuronbert.emulator.")} == {
        "neuronbert.checkpoint.importance",
        "neuronbert.checkpoint.pruning",
        "neuronbert.checkpoint.reconstruction",
        "neuronbert.checkpoint.reference_model",
        "neuronbert.tasks.feature_extraction.graph",
        *(f"neuronbert.backends.cuda.{name}" for name in CUDA_MODEL),
    }
