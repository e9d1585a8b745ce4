"""The notebooks: stored with outputs, the same everywhere, of public names only, and they run from a clean state."""

import ast
import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

import neuronbert

nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).resolve().parents[1]
PATHS = sorted((ROOT / "tutorials").glob("*.ipynb"))
NAMES = [
    "01-compile-and-answer",
    "02-inferentia",
    "03-serve-many",
    "04-measure-and-plan",
    "05-your-own-model",
]
# With these a cell could do one thing on a laptop and another on an inf1 instance.
ASKS_WHERE_IT_IS = re.compile(
    r"\b(environ|getenv|putenv|platform|uname|gethostname|has_device|exists|is_dir|is_file|shutil|NEURONBERT_\w+)\b"
    r"|/dev/"
)
CELL_TIMEOUT_S = 800

each_notebook = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code_cells(path: Path) -> List[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> str:
    """The text of the markdown cells without their code and the targets of their links."""
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    text = re.sub(r"```.*?```|`[^`]*`", " ", text, flags=re.DOTALL)
    return re.sub(r"\[[^]]*\]\([^)]*\)|^#.*$", " ", text, flags=re.MULTILINE)


def output_texts(cell: Any) -> Iterator[str]:
    for output in cell.outputs:
        yield output.get("text", "")
        for kind, data in output.get("data", {}).items():
            if not kind.startswith("image/"):
                yield data


def tree_of(path: Path) -> ast.Module:
    return ast.parse("\n".join(cell.source for cell in code_cells(path)))


def test_there_are_these_five_and_the_index_names_them() -> None:
    assert [path.stem for path in PATHS] == NAMES
    index = (ROOT / "tutorials" / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"\(([\w-]+)\.ipynb\)", index) == NAMES


@each_notebook
def test_it_is_stored_as_one_whole_run_without_errors(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    cells = code_cells(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert kinds and "error" not in kinds
    ids = [cell.id for cell in notebook.cells]
    assert len(set(ids)) == len(ids)
    assert not any(cell.metadata for cell in notebook.cells)
    assert set(notebook.metadata) == {"kernelspec", "language_info"}


@each_notebook
def test_it_asserts_what_it_says(path: Path) -> None:
    assert sum(isinstance(node, ast.Assert) for node in ast.walk(tree_of(path))) >= 3


@each_notebook
def test_no_cell_asks_where_it_runs(path: Path) -> None:
    assert ASKS_WHERE_IT_IS.findall("\n".join(cell.source for cell in code_cells(path))) == []


@each_notebook
def test_no_branch_depends_on_the_twin(path: Path) -> None:
    branches = [node for node in ast.walk(tree_of(path)) if isinstance(node, (ast.If, ast.IfExp, ast.While))]
    assert [ast.unparse(node.test) for node in branches if re.search(r"twin|emulat", ast.unparse(node.test))] == []


def test_only_the_notebook_about_inf1_uses_the_twin_and_says_so() -> None:
    using = [
        path.stem for path in PATHS if re.search(r"\bemulator\.", "\n".join(cell.source for cell in code_cells(path)))
    ]
    assert using == ["02-inferentia"]
    first, *_ = code_cells(PATHS[1])
    assert 'use_if_no_device("inf1.xlarge")' in first.source
    assert "no Inferentia device is used" in " ".join(output_texts(first))


def dotted(node: ast.AST) -> str:
    """``neuronbert.cores.layout_for`` of such an expression, "" of another."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        before = dotted(node.value)
        return f"{before}.{node.attr}" if before else ""
    return ""


def names_used(tree: ast.Module) -> Iterator[Tuple[str, ...]]:
    """The names of neuronbert that code reaches for, as parts: ("cores", "layout_for")."""
    meaning: Dict[str, str] = {"neuronbert": "neuronbert"}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "neuronbert":
            for alias in node.names:
                meaning[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield tuple(f"{node.module}.{alias.name}".split(".")[1:])
        elif isinstance(node, ast.Import):
            yield from (
                tuple(alias.name.split(".")[1:]) for alias in node.names if alias.name.startswith("neuronbert.")
            )
    for node in ast.walk(tree):
        first, *rest = dotted(node).split(".")
        if isinstance(node, ast.Attribute) and first in meaning:
            yield (*meaning[first].split(".")[1:], *rest)


@each_notebook
def test_every_name_of_neuronbert_is_public_and_documented(path: Path) -> None:
    used = set(names_used(tree_of(path)))
    assert used
    for parts in used - {("__file__",)}:
        assert parts[0] in neuronbert.__all__
        found: Any = neuronbert
        for part in parts:
            assert not part.startswith("_")
            found = getattr(found, part)
            assert (found.__doc__ or "").strip()


@each_notebook
def test_nothing_private_of_any_object_is_used(path: Path) -> None:
    attributes = {node.attr for node in ast.walk(tree_of(path)) if isinstance(node, ast.Attribute)}
    assert {name for name in attributes if name.startswith("_")} <= {"__file__"}


@each_notebook
def test_every_picture_has_axis_titles_with_units(path: Path) -> None:
    plots = [cell for cell in code_cells(path) if "plt.subplots(" in cell.source]
    assert plots
    for cell in plots:
        for axis in ("x", "y"):
            labels = re.findall(rf'set_{axis}label\(\s*f?"([^"]*)"', cell.source)
            assert labels, (cell.id, axis)
            assert all(re.search(r"\(.+\)$", label) for label in labels), (cell.id, labels)
        assert any("image/png" in output.get("data", {}) for output in cell.outputs), cell.id


@each_notebook
def test_every_figure_in_the_text_is_of_this_notebook(path: Path) -> None:
    computed = " ".join(text for cell in code_cells(path) for text in (cell.source, *output_texts(cell)))
    figures = re.findall(r"(?<![\w.])\d[\d.,]*\d(?!\w)", prose(path))
    assert [figure for figure in figures if not re.search(rf"(?<![\d.]){re.escape(figure)}(?!\d)", computed)] == []


@each_notebook
def test_no_output_names_a_place_of_the_machine_it_ran_on(path: Path) -> None:
    places = {re.escape(place) for place in (str(Path.home()), str(ROOT), tempfile.gettempdir(), sys.prefix)}
    leaks = re.compile(r"(?<![\w.])/(root|home|Users|work|tmp|var|private|opt|usr)/|" + "|".join(places))
    assert [text for cell in code_cells(path) for text in output_texts(cell) if leaks.search(text)] == []


@each_notebook
def test_every_link_leads_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert [target for target in targets if not (path.parent / target).exists()] == []


@pytest.fixture()
def clean_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to run in; temporary files, caches and kernels of its own; no network, no twin asked for."""
    kernel = tmp_path / "jupyter" / "kernels" / "python3" / "kernel.json"
    for folder in ("run", "tmp", "cache"):
        (tmp_path / folder).mkdir()
    kernel.parent.mkdir(parents=True)
    # The interpreter that runs the tests, whatever kernels the user has installed.
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    for name in ("NEURONBERT_EMULATE", "NEURON_RT_VISIBLE_CORES", "NEURON_RT_NUM_CORES", "NEURONCORE_GROUP_SIZES"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "jupyter" / "runtime"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setenv("NEURONBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


@pytest.mark.slow
@each_notebook
def test_it_runs_from_a_clean_state_and_leaves_nothing(path: Path, clean_state: Path) -> None:
    from nbclient import NotebookClient

    notebook = read(path)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    where = {"metadata": {"path": str(clean_state / "run")}}
    NotebookClient(
        notebook, timeout=CELL_TIMEOUT_S, startup_timeout=CELL_TIMEOUT_S, kernel_name="python3", resources=where
    ).execute()
    assert list((clean_state / "run").iterdir()) == []
    # The twin's cores are shared by processes, and torch's own cache is torch's.
    left = [
        found.name
        for found in (clean_state / "tmp").iterdir()
        if not found.name.startswith(("neuronbert-twin-", "torchinductor_"))
    ]
    assert left == []
