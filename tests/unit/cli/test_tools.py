"""Where etcd comes from: our own copy, a good one of the system, a newer suite, the system's whatever it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import tools
from cli.errors import CommandError


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine whose only programs are those in its bin folder, and which reaches no mirror."""
    monkeypatch.setenv("NANOKUBE_STATE", str(tmp_path / "state"))
    programs = tmp_path / "bin"
    programs.mkdir()
    monkeypatch.setattr(tools, "_which", lambda name: str(programs / name) if (programs / name).exists() else None)

    def unreachable(self: tools.NewerSuite, package: str, target: Path) -> None:
        raise CommandError(f"downloading {package}: no network")

    monkeypatch.setattr(tools.NewerSuite, "download", unreachable)
    monkeypatch.setattr(tools, "install_packages", lambda packages, say: None)
    return programs


def install(folder: Path, version: str) -> Path:
    program = folder / "etcd"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(f"#!/bin/sh\necho 'etcd Version: {version}'\n")
    program.chmod(0o755)
    return program


def test_our_own_copy_comes_first(machine: Path) -> None:
    install(machine, "3.6.0")
    own = install(machine.parent / "state" / "tools" / "etcd" / "usr" / "bin", "3.5.16")
    assert tools.etcd(lambda _: None) == str(own)


def test_a_new_enough_system_etcd_is_taken(machine: Path) -> None:
    system = install(machine, "3.5.3")
    assert tools.etcd(lambda _: None) == str(system)


@pytest.mark.parametrize("version", ["3.4.23", "3.5.1", "3.5.2"])
def test_an_old_one_is_an_announced_fallback(machine: Path, version: str) -> None:
    old = install(machine, version)
    told: list[str] = []
    assert tools.etcd(told.append) == str(old)
    assert any("warning" in line and "slower" in line for line in told)


def test_no_etcd_at_all_is_told(machine: Path) -> None:
    with pytest.raises(CommandError, match="no etcd"):
        tools.etcd(lambda _: None)


def test_nonsense_instead_of_a_version_is_told(machine: Path) -> None:
    install(machine, "nonsense")
    with pytest.raises(CommandError, match="cannot tell its version"):
        tools.etcd(lambda _: None)


def test_only_what_is_missing_is_installed(machine: Path) -> None:
    for name in ("ip", "nft", "conmon", "conntrack"):
        (machine / name).touch()
    assert tools.missing_packages(workers=True) == ["crun", "busybox-static"]
    assert tools.missing_packages(workers=False) == []
