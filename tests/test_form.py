"""The form of the code: short functions and files, few arguments, no mocks, no sleeping unit tests."""

from __future__ import annotations

import ast
import gc
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "plexus_detect").rglob("*.py"))
TESTS = sorted(p for p in (ROOT / "tests").rglob("*.py"))
FUNCTION_LINES_MAX = 50
FILE_LINES_MAX = 400
ARGUMENTS_MAX = 6
TOP_LEVEL = {"pyproject.toml", "README.md", "LICENSE", "plexus_detect", "tests", "monitors", "examples"}
VAGUE = {"utils", "helpers", "common", "core", "manager", "misc"}


def parsed(path: Path) -> ast.Module:
    """The file's syntax tree. CPython's ast.parse fails when a garbage collection inside it runs Python code
    (gh-106905), as other tests' callbacks may."""
    gc.disable()
    try:
        return ast.parse(path.read_text("utf-8"))
    finally:
        gc.enable()


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """Every function of a file."""
    return [
        node for node in ast.walk(parsed(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_and_functions_are_short(path: Path) -> None:
    """No file over 400 lines, no function over 50, none with more than six arguments (self aside)."""
    assert len(path.read_text("utf-8").splitlines()) <= FILE_LINES_MAX
    for function in functions(path):
        name = f"{path.name}:{function.lineno} {function.name}"
        assert (function.end_lineno or 0) - function.lineno < FUNCTION_LINES_MAX, name
        arguments = [
            a.arg for a in (*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs)
        ]
        assert len([a for a in arguments if a not in ("self", "cls")]) <= ARGUMENTS_MAX, name


def test_module_names_say_what_they_do() -> None:
    """No module is called by a word that fits anything."""
    assert not {path.stem for path in SOURCES} & VAGUE


def test_no_mocks() -> None:
    """Tests use fakes with a name and the sandbox, not mocks."""
    for path in TESTS:
        for node in ast.walk(parsed(path)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            assert not any("mock" in name.lower() for name in [*names, module]), path


def test_every_test_has_its_promise() -> None:
    """Each test function's docstring says what it promises."""
    for path in TESTS:
        for function in functions(path):
            if function.name.startswith("test_"):
                assert ast.get_docstring(function), f"{path.name}:{function.lineno} {function.name}"


def test_top_level_is_fixed() -> None:
    """Nothing stands at the top level but the agreed names and dot-files."""
    import subprocess

    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    names = {line.split("/", 1)[0] for line in listed.splitlines()}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL
