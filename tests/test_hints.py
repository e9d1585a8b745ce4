"""What a hint says can be pasted: no name of a file in it means anything else to a shell."""

import ast
import shlex
import subprocess
from pathlib import Path
from typing import Iterator, Tuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuronbert.checkpoint.weights import conversion_command
from neuronbert.errors import quoted

ROOT = Path(__file__).resolve().parents[1]
MODULES = [path for folder in ("neuronbert", "tools") for path in sorted((ROOT / folder).rglob("*.py"))]
# How the package calls what a user named, or a file of his.
NAMES = {"path", "folder", "file", "output", "target", "location", "directory", "parent", "log", "source", "model"}
# What a hint becomes before it is one.
HINTS = {"hint", "otherwise", "command", "mend"}


def raw_paths(tree: ast.AST) -> Iterator[str]:
    """The expressions of files in hints that no function puts in quotes."""
    for node in ast.walk(tree):
        text = None
        if isinstance(node, ast.keyword) and node.arg in HINTS:
            text = node.value
        elif isinstance(node, ast.Assign) and any(isinstance(to, ast.Name) and to.id in HINTS for to in node.targets):
            text = node.value
        for part in ast.walk(text) if text is not None else ():
            if isinstance(part, ast.FormattedValue) and named(part.value):
                yield f"line {part.lineno}: {ast.dump(part.value)}"


def named(value: ast.AST) -> bool:
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id in ("str", "repr"):
        return any(named(argument) for argument in value.args)
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        return value.func.id.endswith("_path")
    if isinstance(value, ast.BinOp):
        return named(value.left)
    last = value.attr if isinstance(value, ast.Attribute) else getattr(value, "id", "")
    return last in NAMES


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_hint_holds_a_raw_path(path: Path) -> None:
    assert list(raw_paths(ast.parse(path.read_bytes()))) == []


@pytest.mark.parametrize(
    "code", ["E('x', hint=f'rm {path}')", "hint = f'ls {self.folder / 1}'", "E(hint='a' + f'{str(log)}')"]
)
def test_a_raw_path_would_be_seen(code: str) -> None:
    assert list(raw_paths(ast.parse(code)))
    assert not list(raw_paths(ast.parse("E('x', hint=f'rm {quoted(path)} or {number}')")))


NASTY: Tuple[str, ...] = (
    "a b",
    "$(touch owned)",
    "`touch owned`",
    "'; touch owned; '",
    '"; touch owned; "',
    "-rf",
    "é\n",
)


@given(st.text(st.characters(blacklist_characters="\0", blacklist_categories=("Cs",)), min_size=1))
def test_a_quoted_path_is_one_word_and_no_option(text: str) -> None:
    (word,) = shlex.split(quoted(text))
    assert word in (text, f"./{text}") and not word.startswith("-")


@pytest.mark.parametrize("name", NASTY)
def test_the_command_that_converts_a_pickle_runs_nothing_else(tmp_path: Path, name: str) -> None:
    command = conversion_command(tmp_path / name).replace("python -c", "echo", 1)
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "import glob" in done.stdout
    assert not (tmp_path / "owned").exists()
