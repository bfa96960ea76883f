"""Compile every contract under proto/ into Python stubs: `python -m proto.generate`.

Owns the generated `*_pb2*.py[i]` files beside the `.proto` files. `--check` compiles into a scratch
folder and fails when a committed stub differs from what its contract says.
"""

from __future__ import annotations

import argparse
import filecmp
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def contracts() -> list[str]:
    """Paths of all .proto files, relative to the checkout."""
    return sorted(str(path.relative_to(ROOT)) for path in (ROOT / "proto").rglob("*.proto"))


def compile_into(target: Path) -> None:
    """Run protoc over all contracts. Raises RuntimeError when one does not compile."""
    import grpc_tools  # only development machines have it
    from grpc_tools import protoc

    # protoc finds the mypy plugins on PATH; they live beside this interpreter.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    well_known = Path(grpc_tools.__file__).parent / "_proto"  # google.protobuf's own
    argv = [
        "protoc",
        f"-I{ROOT}",
        f"-I{well_known}",
        *(f"--{kind}={target}" for kind in ("python_out", "grpc_python_out", "mypy_out")),
    ]
    argv += [f"--mypy_grpc_out={target}", *contracts()]
    if protoc.main(argv) != 0:
        raise RuntimeError("protoc failed")
    for folder in {Path(contract).parent for contract in contracts()}:
        for part in (folder, *folder.parents):
            if part != Path() and not (target / part / "__init__.py").exists():
                (target / part / "__init__.py").touch()


def stale(target: Path) -> list[str]:
    """Generated files under `target` that differ from the committed ones."""
    fresh = [path.relative_to(target) for path in target.rglob("*_pb2*.py*")]
    return sorted(
        str(path)
        for path in fresh
        if not (ROOT / path).exists() or not filecmp.cmp(target / path, ROOT / path, shallow=False)
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m proto.generate", description=__doc__)
    parser.add_argument("--check", action="store_true", help="only verify that the committed stubs are current")
    options = parser.parse_args(argv)
    if not options.check:
        compile_into(ROOT)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        compile_into(Path(scratch))
        differing = stale(Path(scratch))
    for path in differing:
        print(f"stale: {path} (run python -m proto.generate)", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
