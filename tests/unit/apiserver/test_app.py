from __future__ import annotations

from pathlib import Path

import pytest

from apiserver import app

MEMORY = ["--store", "memory", "--bind", "127.0.0.1:0"]


def wrong(*argv: str) -> str:
    return app.check(app.parser().parse_args(argv))


def test_flags_that_are_right(tmp_path: Path) -> None:
    assert wrong(*MEMORY) == ""
    paths = []
    for name in ("tls-cert", "tls-key", "client-ca"):
        (tmp_path / name).touch()
        paths.append(f"--{name}={tmp_path / name}")
    assert wrong("--etcd", "unix:/x", "--bind", "0.0.0.0:6443", "--grpc-bind", "0.0.0.0:7443", *paths) == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        pytest.param(["--bind", "127.0.0.1:0"], "--etcd is required", id="no-store"),
        pytest.param(["--store", "memory"], "--bind is required", id="no-address"),
        pytest.param([*MEMORY, "--tls-cert", "x"], "belong together", id="half-of-tls"),
        pytest.param([*MEMORY, "--tls-cert", "x", "--tls-key", "y"], "belong together", id="no-client-ca"),
        pytest.param(["--store", "memory", "--bind", "0.0.0.0:0"], "only loopback", id="open-without-tls"),
        pytest.param([*MEMORY, "--grpc-bind", "10.0.0.1:1"], "only loopback", id="open-grpc-without-tls"),
        pytest.param([*MEMORY, "--token-auth-file", "/no/such"], "no such file: /no/such", id="missing-file"),
    ],
)
def test_flags_that_are_wrong(argv: list[str], message: str) -> None:
    assert message in wrong(*argv)
