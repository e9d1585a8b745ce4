"""CONTRIBUTING.md and docs/architecture.md name only what is there: folders in their order, paths, functions."""

import ast
import re
from pathlib import Path
from typing import Iterator, List, Tuple

import pytest
from test_architecture import FOLDERS

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "neuronbert"
PAGES = ["CONTRIBUTING.md", "docs/architecture.md"]

FUNCTION = re.compile(r"([\w./]+\.py):([A-Za-z_][\w.]*)")
# A word with a slash or a known suffix. One with <name> in it stands for something new.
PATH = re.compile(r"\.?[\w-][\w./-]*/[\w./-]*|[\w-]+\.(?:py|md|cfg|toml|txt)")
MADE_LATER = (".venv/", "qa-artifact")


def page_text(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def code_words(page: str) -> Iterator[str]:
    """The words of what is set as code: between backticks, and in blocks of shell commands without their comments."""
    text = page_text(page)
    for block in re.findall(r"^```sh\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL):
        yield from re.sub(r" #.*", "", block).split()
    prose = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    for span in re.findall(r"`([^`]+)`", prose):
        yield from span.split()


def named_functions(page: str) -> List[Tuple[str, str]]:
    matches = (FUNCTION.fullmatch(word) for word in code_words(page))
    return sorted({(match[1], match[2]) for match in matches if match})


def named_paths(page: str) -> List[str]:
    words = (word.rstrip(",;") for word in code_words(page))
    return sorted({word for word in words if PATH.fullmatch(word) and not word.startswith(MADE_LATER)})


def found(path: str) -> Path:
    """The file or folder, below the package or the repository; it may not be there."""
    return PACKAGE / path if (PACKAGE / path).exists() else ROOT / path


def names_in(body: List[ast.stmt]) -> Iterator[Tuple[str, List[ast.stmt]]]:
    """What statements define, each with the statements inside it."""
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.name, node.body
        elif isinstance(node, ast.Assign):
            yield from ((target.id, []) for target in node.targets if isinstance(target, ast.Name))
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            yield node.target.id, []


def defines(path: Path, dotted: str) -> bool:
    body = ast.parse(path.read_bytes()).body
    for part in dotted.split("."):
        inside = dict(names_in(body))
        if part not in inside:
            return False
        body = inside[part]
    return True


CASES = [(page, *named) for page in PAGES for named in named_functions(page)]


def test_both_pages_name_functions_and_paths() -> None:
    """What finds nothing would check nothing."""
    assert len(named_functions(PAGES[0])) >= 40 and len(named_functions(PAGES[1])) >= 10
    assert len(named_paths(PAGES[0])) >= 20 and len(named_paths(PAGES[1])) >= 5


@pytest.mark.parametrize(("page", "path", "name"), CASES)
def test_every_function_that_is_named_is_there(page: str, path: str, name: str) -> None:
    assert found(path).is_file(), f"{page} names {path}"
    assert defines(found(path), name), f"{page} names {path}:{name}"


@pytest.mark.parametrize("page", PAGES)
def test_every_path_that_is_named_is_there(page: str) -> None:
    assert [path for path in named_paths(page) if not found(path).exists()] == []


@pytest.mark.parametrize("page", PAGES)
def test_every_link_leads_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", page_text(page))
    assert links and [link for link in links if not ((ROOT / page).parent / link).exists()] == []


def tree_lines() -> List[Tuple[int, str]]:
    """How deep each entry of the tree stands, and its name."""
    block = re.search(r"^```text\nneuronbert/\n(.*?)^```", page_text(PAGES[0]), flags=re.MULTILINE | re.DOTALL)
    assert block is not None
    entries = [re.match(r"( +)(\S+) ", line) for line in block[1].splitlines()]
    return [(len(entry[1]) // 4, entry[2]) for entry in entries if entry is not None]


def tree_paths() -> List[str]:
    """The tree's entries as paths below the package."""
    trail: List[str] = []
    paths = []
    for depth, name in tree_lines():
        trail[depth - 1 :] = [name]
        paths.append("".join(trail))
    return paths


def test_the_tree_has_every_folder_and_no_other() -> None:
    folders = [path for path in PACKAGE.rglob("*") if path.is_dir() and path.name != "__pycache__"]
    there = [f"{path.relative_to(PACKAGE).as_posix()}/" for path in folders]
    assert sorted(path for path in tree_paths() if path.endswith("/")) == sorted(there)


def test_the_tree_is_in_the_order_of_imports() -> None:
    top = [name for depth, name in tree_lines() if depth == 1]
    assert [name.replace(".py", "").rstrip("/") for name in top] == list(FOLDERS)


def test_a_name_that_is_not_there_is_noticed() -> None:
    path = PACKAGE / "errors.py"
    assert defines(path, "UsageError.exit_code") and not defines(path, "UsageError.exit_status")
    assert not defines(path, "NoSuchError")
