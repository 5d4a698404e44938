"""The arrows between the packages: stager -> manifests, stager -> transfers, and no other.

Read from the syntax tree, so that nothing needs to be installed and an import inside a function counts too.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
OURS = {"stager", "manifests", "transfers"}
MAY_IMPORT = {"stager": OURS, "manifests": {"manifests"}, "transfers": {"transfers"}}
SOURCES = sorted(path for package in OURS for path in (ROOT / package).rglob("*.py"))

AGENT = ROOT / "transfers" / "agent.py"
NEWER_THAN_3_6 = {"contextvars", "dataclasses", "graphlib", "tomllib", "zoneinfo"}
"""Modules of the standard library that Python 3.6 did not have."""
AGENT_MAY_TRY = {"numpy"}
"""What the agent may use where it happens to be installed: imported in a `try` that catches ImportError."""


def imported(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules that a source names: statements at any depth, literal import_module calls."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module
        elif isinstance(node, ast.Call) and _name(node.func) in {"import_module", "__import__"}:
            yield from (a.value for a in node.args[:1] if isinstance(a, ast.Constant) and isinstance(a.value, str))


def wrong_arrows(package: str, source: str) -> set[str]:
    """Packages of ours that `source`, a module of `package`, imports and must not."""
    tops = {name.partition(".")[0] for name in imported(ast.parse(source))}
    return (tops & OURS) - MAY_IMPORT[package]


def not_everywhere(source: str) -> set[str]:
    """Modules that `source` imports and that a bare Python 3.6 may lack."""
    tree = ast.parse(source, feature_version=(3, 7))  # the oldest grammar that every newer parser still knows
    names = {name.partition(".")[0] for name in imported(tree)}
    names |= {"(relative)" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.level}
    if any(isinstance(n, ast.ImportFrom) and n.module == "__future__" and _annotations(n) for n in ast.walk(tree)):
        names.add("__future__.annotations")
    return names - (set(sys.stdlib_module_names) - NEWER_THAN_3_6) - (AGENT_MAY_TRY & set(tried(tree)))


def tried(tree: ast.AST) -> Iterator[str]:
    """Modules imported at the top of a `try` that catches ImportError."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Try) and any("ImportError" in _caught(h) for h in node.handlers):
            for statement in node.body:
                yield from (name.partition(".")[0] for name in imported(statement))


def _caught(handler: ast.ExceptHandler) -> set[str]:
    return {_name(node) for node in ast.walk(handler.type)} if handler.type else set()


def _name(node: ast.AST) -> str:
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _annotations(node: ast.ImportFrom) -> bool:
    return any(alias.name == "annotations" for alias in node.names)


def test_there_are_sources_to_look_at() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in SOURCES} == OURS


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_arrows_point_one_way(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    wrong = wrong_arrows(package, path.read_text())
    assert not wrong, f"{path.relative_to(ROOT)} imports {sorted(wrong)}, which {package} must not know"


def test_the_agent_needs_nothing_but_python_3_6() -> None:
    assert not_everywhere(AGENT.read_text()) == set()


BAD = {
    "import stager": {"stager"},
    "import stager.config as c": {"stager"},
    "from stager.config import Config": {"stager"},
    "def f():\n    from transfers import hosts": {"transfers"},
    "if TYPE_CHECKING:\n    from transfers.hosts import Host": {"transfers"},
    "import importlib\nimportlib.import_module('stager.items')": {"stager"},
    "__import__('transfers')": {"transfers"},
    "try:\n    import stager\nexcept ImportError:\n    stager = None": {"stager"},
}


@pytest.mark.parametrize("source", BAD)
def test_a_wrong_arrow_is_seen(source: str) -> None:
    assert wrong_arrows("manifests", source) == BAD[source]


def test_a_package_may_import_itself_and_what_is_below_it() -> None:
    assert wrong_arrows("transfers", "from transfers.agent import Agent\nfrom . import errors\nimport os") == set()
    assert wrong_arrows("stager", "import manifests.reading, transfers.hosts\nfrom stager import items") == set()
    assert wrong_arrows("manifests", "import stagers, mystager.stager") == set()


@pytest.mark.parametrize(
    ("source", "lacking"),
    [
        ("import os\nimport ctypes.util\nfrom typing import NamedTuple", set()),
        ("try:\n    import numpy\nexcept ImportError:\n    numpy = None", set()),
        ("import numpy", {"numpy"}),
        ("try:\n    import numpy\nexcept ValueError:\n    numpy = None", {"numpy"}),
        ("try:\n    import xxhash\nexcept ImportError:\n    xxhash = None", {"xxhash"}),
        ("from transfers import errors", {"transfers"}),
        ("from . import errors", {"(relative)"}),
        ("from dataclasses import dataclass", {"dataclasses"}),
        ("from __future__ import annotations", {"__future__.annotations"}),
    ],
)
def test_what_a_bare_python_lacks_is_seen(source: str, lacking: set[str]) -> None:
    assert not_everywhere(source) == lacking


@pytest.mark.parametrize("source", ["if (n := 1): pass", "def f(a, /): pass", "match 1:\n    case 1: pass"])
def test_newer_grammar_is_seen(source: str) -> None:
    with pytest.raises(SyntaxError):
        not_everywhere(source)
