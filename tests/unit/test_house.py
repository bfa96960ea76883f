"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = (
    "linux", "machinery", "api", "client", "apiserver", "scheduler", "controller_manager",
    "kubelet", "runtime", "kube_proxy", "aggregated", "metrics_server", "metrics_adapter", "cloud",
    "vertical_autoscaler", "nodepool_autoscaler", "cli",
)  # fmt: skip
COMPONENTS = (
    "apiserver", "scheduler", "controller_manager", "kubelet", "runtime", "kube_proxy", "metrics_server",
    "metrics_adapter", "vertical_autoscaler", "nodepool_autoscaler",
)  # fmt: skip
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
