"""`test` and `bench`: the gates and the measurements of a checkout, with what they need installed first."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cli import tools
from cli.block_volumes import FILESYSTEMS
from cli.errors import CommandError

Say = Callable[[str], None]
CHECKOUT = Path(__file__).resolve().parent.parent

GATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("contracts compile to the committed stubs", ("-m", "proto.generate", "--check")),
    ("ruff check", ("-m", "ruff", "check", ".")),
    ("ruff format", ("-m", "ruff", "format", "--check", ".")),
    ("mypy --strict", ("-m", "mypy", ".")),
    ("layers", ("-c", "import sys; from importlinter.cli import lint_imports_command as c; sys.exit(c())")),
)


def development_dependencies(say: Say) -> None:
    """Install what only tests need (the launcher installs the rest)."""
    import tomllib

    wanted = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dev"]
    stamp = Path(sys.prefix) / ".nanokube-dev"
    if stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return
    say("installing the test tools")
    argv = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", *wanted]
    if subprocess.call(argv) != 0:
        raise CommandError("pip could not install the test tools")
    stamp.write_text("\n".join(wanted))


def run(arguments: Sequence[str], say: Say) -> int:
    """All gates and suites, or pytest with `arguments`; returns the exit code of what failed first."""
    tools.require_root()
    development_dependencies(say)
    tools.install_packages(tools.missing_packages(workers=True, more=dict(FILESYSTEMS.values())), say)
    tools.etcd(say)
    tools.kubectl(say)
    tools.registry(say)
    if arguments:
        return _python(("-m", "pytest", *arguments))
    for name, argv in GATES:
        say(f"== {name}")
        code = _python(argv)
        if code != 0:
            say(f"nanokube: {name} failed")
            return code
    say("== tests")
    return _python(("-m", "pytest", "-q"))


def bench(arguments: Sequence[str], say: Say) -> int:
    """Run bench/ (see its README for what each figure means)."""
    tools.require_root()
    return _python(("-m", "bench", *arguments))


def _python(argv: Sequence[str]) -> int:
    return subprocess.call([sys.executable, *argv], cwd=CHECKOUT)
