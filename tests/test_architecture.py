"""What import-linter can't see: scripts, and how long functions are (docs/architecture.md)."""

import ast
import re

import pytest
from conftest import LONG_FILES, ROOT

SCRIPTS = [
    *(ROOT / "data").glob("*.py"),
    *(ROOT / "train").glob("*.py"),
    *(ROOT / "evaluate").rglob("*.py"),
    *(ROOT / "scripts").glob("*.py"),
]
FOLDERS = ("growth", "data", "train", "evaluate", "scripts", "tests", "benchmarks")
SOURCES = [
    path
    for folder in FOLDERS
    for path in sorted((ROOT / folder).rglob("*.py"))
    if "growth/sample" not in path.as_posix()
]
LONGEST = 60  # lines of a function


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))]


def test_the_files_of_tests_that_take_long_are_there():
    assert set(LONG_FILES) <= {path.name for path in (ROOT / "tests").rglob("test_*.py")}


def test_functions_fit_on_a_screen():
    lengths = {
        f"{path.relative_to(ROOT)}:{function.name}": function.end_lineno - function.lineno + 1
        for path in SOURCES
        for function in functions(path)
    }
    assert len(lengths) > 500
    assert {name: n for name, n in lengths.items() if n > LONGEST} == {}


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_script_imports_no_script_and_is_imported_by_none(script):
    names = {path.stem for path in SCRIPTS}
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        modules = []
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        if isinstance(node, ast.ImportFrom):
            modules = [node.module or ""]
        for module in modules:
            assert module.partition(".")[0] not in names | {"data", "train", "evaluate"}, module


def test_only_scripts_and_the_flags_see_a_namespace():
    library = [path for path in SOURCES if path.is_relative_to(ROOT / "growth")]
    using = {
        path.relative_to(ROOT).as_posix()
        for path in library
        if re.search(r"^import argparse|\bNamespace\b", path.read_text(encoding="utf-8"), re.M)
    }
    assert using == {"growth/core/cli.py"}


def test_no_group_is_possessive():
    """Before Python 3.11.5 such groups match wrongly (cpython issue 106052)."""
    possessive = re.compile(r"\)(?:[*+?]|\{[\d,]*\})\+|\(\?>")
    ours = [path for path in SOURCES if not path.is_relative_to(ROOT / "tests")]
    assert possessive.search(r"(?:ab?c)*+")
    assert not [path for path in ours if possessive.search(path.read_text(encoding="utf-8"))]
