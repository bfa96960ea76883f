"""Our context comes and goes; everything else in the user's file stays."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from cli import kubeconfig, pki
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths

THEIRS = {
    "apiVersion": "v1",
    "kind": "Config",
    "clusters": [{"name": "work", "cluster": {"server": "https://example.com"}}],
    "users": [{"name": "me", "user": {"token": "t"}}],
    "contexts": [{"name": "work", "context": {"cluster": "work", "user": "me"}}],
    "current-context": "work",
}


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[ClusterConfig, ClusterPaths, Path]:
    monkeypatch.setenv("NANOKUBE_STATE", str(tmp_path / "state"))
    file = tmp_path / "kube" / "config"
    monkeypatch.setenv("KUBECONFIG", str(file))
    config, paths = ClusterConfig(name="nanokube", index=0), ClusterPaths.of("nanokube")
    paths.make()
    pki.ensure(config, paths)
    return config, paths, file


def test_merge_and_remove_keep_what_is_not_ours(cluster: tuple[ClusterConfig, ClusterPaths, Path]) -> None:
    config, paths, file = cluster
    file.parent.mkdir()
    file.write_text(yaml.safe_dump(THEIRS))
    for _ in range(2):  # merging twice leaves one entry
        assert kubeconfig.merge(config, paths) == file
    merged = yaml.safe_load(file.read_text())
    assert [entry["name"] for entry in merged["contexts"]] == ["work", "nanokube"]
    assert merged["current-context"] == "nanokube"
    assert file.stat().st_mode & 0o077 == 0
    kubeconfig.remove("nanokube")
    left = yaml.safe_load(file.read_text())
    for section in ("clusters", "users", "contexts"):
        assert left[section] == THEIRS[section]
    assert left["current-context"] == ""


def test_a_new_file_is_made(cluster: tuple[ClusterConfig, ClusterPaths, Path]) -> None:
    config, paths, file = cluster
    kubeconfig.merge(config, paths)
    assert yaml.safe_load(file.read_text())["clusters"][0]["cluster"]["server"] == "https://127.0.0.1:6443"


def test_a_file_that_is_no_kubeconfig_is_left_alone(cluster: tuple[ClusterConfig, ClusterPaths, Path]) -> None:
    config, paths, file = cluster
    file.parent.mkdir()
    file.write_text("[1, 2]")
    with pytest.raises(CommandError, match="not a kubeconfig"):
        kubeconfig.merge(config, paths)
    assert file.read_text() == "[1, 2]"


def test_other_clusters_have_contexts_of_their_own() -> None:
    assert kubeconfig.context_name("demo") == "nanokube-demo"


def test_the_lock_of_kubectl_is_respected_and_given_back(
    cluster: tuple[ClusterConfig, ClusterPaths, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    config, paths, file = cluster
    kubeconfig.merge(config, paths)
    lock = file.with_name(f"{file.name}.lock")
    assert not lock.exists()
    lock.touch()
    monkeypatch.setattr(kubeconfig, "LOCK_WAIT", 0.05)
    with pytest.raises(CommandError, match="another program is changing it"):
        kubeconfig.merge(config, paths)
    assert lock.exists()
