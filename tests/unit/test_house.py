"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_LINTER = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
PACKAGES = tuple(each for each in _LINTER["root_packages"] if each != "proto")
COMPONENTS = tuple(_LINTER["contracts"][0]["layers"][1].split(" | "))
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


@pytest.mark.parametrize("component", COMPONENTS)
def test_importing_a_component_starts_nothing(component: str) -> None:
    """Components are forked from a process that has imported them: a thread or a socket then would break the child."""
    script = (
        f"import {component}.app, os, sys, threading\n"
        "assert threading.active_count() == 1, threading.enumerate()\n"
        "assert len(os.listdir('/proc/self/task')) == 1, 'native threads'\n"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if int(fd) > 2 and "
        "os.path.exists(f'/proc/self/fd/{fd}')]\n"
        "assert not [link for link in links if link.startswith('socket') or 'event' in link], links\n"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_it_owns(package: str) -> None:
    tree = ast.parse((ROOT / package / "__init__.py").read_text())
    assert "wns" in (ast.get_docstring(tree) or ""), f"{package}/__init__.py says nothing of what it owns"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_has_a_docstring_and_a_name_that_says_something(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "manager", "common")
    if path.name != "__init__.py" and path.read_text().strip():
        assert ast.get_docstring(ast.parse(path.read_text())), "no docstring"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_timestamps_are_not_subtracted_by_hand(path: Path) -> None:
    """A duration taken from a timestamp is asked of the clock, or the time scale is silently ignored (ADR 1)."""
    if path == ROOT / "machinery" / "clock.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Sub) and isinstance(node.left, ast.Call):
            shifted = isinstance(node.right, ast.Call) and getattr(node.right.func, "id", "") == "timedelta"
            assert shifted or getattr(node.left.func, "attr", "") not in ("now", "now_micro"), f"line {node.lineno}"


def test_records_of_decisions_have_a_number_each_and_are_found_where_they_are_named() -> None:
    records = sorted((ROOT / "docs" / "adr").glob("*.md"))
    numbers = Counter(path.name[:4] for path in records)
    assert [number for number, count in numbers.items() if count > 1] == []
    for path in records:
        assert path.read_text().startswith(f"# {int(path.name[:4])}. "), f"{path.name} has another number inside"
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), ROOT / "pyproject.toml", *MODULES):
        named = re.findall(r"docs/adr/(\d{4})", path.read_text())
        assert set(named) <= set(numbers), f"{path.relative_to(ROOT)} names a record that is not there"


def test_documents_link_only_to_what_is_there() -> None:
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", path.read_text()):
            assert (path.parent / target).exists(), f"{path.relative_to(ROOT)} links to {target}"
