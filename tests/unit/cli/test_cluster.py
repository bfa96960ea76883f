"""Commands that meet, and networks that are somebody else's."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli import cluster
from cli.cluster import plan_clash
from cli.errors import CommandError
from cli.layout import ClusterConfig, ClusterPaths, NodeConfig

WANTED = ["10.250.0.0/24", "10.244.0.0/16", "10.96.0.0/16"]


@pytest.mark.parametrize(
    ("destination", "gateway", "clashes"),
    [
        pytest.param("0.0.0.0/0", "192.0.2.1", False, id="default route"),
        pytest.param("192.0.2.0/24", None, False, id="elsewhere"),
        pytest.param("10.250.0.0/24", None, True, id="the same network"),
        pytest.param("10.244.3.0/24", "192.0.2.7", True, id="part of ours, through a gateway"),
        pytest.param("10.0.0.0/8", "192.0.2.7", False, id="wider, through a gateway: ours is more specific"),
        pytest.param("10.96.0.0/12", None, True, id="wider, on a link: its hosts would be lost"),
        pytest.param("0.0.0.0/1", "192.0.2.7", False, id="half a default route of a VPN"),
    ],
)
def test_plan_clash(destination: str, gateway: str | None, clashes: bool) -> None:
    told = plan_clash(WANTED, [("0.0.0.0/0", "192.0.2.1"), (destination, gateway)])
    assert bool(told) == clashes
    assert not clashes or destination in str(told)


def test_a_new_cluster_takes_the_first_number_whose_networks_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NANOKUBE_STATE", str(tmp_path))
    monkeypatch.setattr("cli.claims.is_held", lambda index: index == 0)
    monkeypatch.setattr(cluster, "_clash", lambda config: "taken" if config.index == 1 else None)
    planned = cluster._plan("x", 1, [], None, None, {"cpu": 4, "memory": "1Gi", "maxPods": 50})
    labels = (
        "node.kubernetes.io/instance-type=standard-4x1,topology.kubernetes.io/zone=local-a,"
        "topology.kubernetes.io/region=local,nanokube.io/node-group=workers"
    )
    node = NodeConfig("worker-1", 1, "4", "1Gi", 50, "workers", labels)
    assert (planned.index, planned.nodes) == (2, [node])


def test_of_two_commands_at_once_one_is_refused() -> None:
    with cluster._turn("test-turn", "busy", 0):  # noqa: SIM117  the inner one is the one that fails
        with pytest.raises(CommandError, match="busy"), cluster._turn("test-turn", "busy", 0.05):
            pass
    with cluster._turn("test-turn", "busy", 0):
        pass


def test_what_the_host_had_is_remembered_by_every_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first cluster turns forwarding on, and goes first; the last one must still turn it off."""
    monkeypatch.setenv("NANOKUBE_STATE", str(tmp_path))
    forwarding = tmp_path / "forwarding"
    forwarding.write_text("0\n")
    monkeypatch.setattr(cluster, "FORWARDING", forwarding)
    for name in ("a", "b"):
        paths = ClusterPaths.of(name)
        paths.make()
        cluster._allow_forwarding(ClusterConfig(name, 0), paths)
        assert forwarding.read_text() == "1"
        assert (paths.run / "ip_forward").read_text() == "0"


def test_a_down_that_was_cut_off_can_be_run_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The state folder tells `down` that there is something to do: it goes after everything else."""
    monkeypatch.setenv("NANOKUBE_STATE", str(tmp_path))
    monkeypatch.setattr("cli.tools.require_root", lambda: None)
    paths = ClusterPaths.of("cut-off")
    paths.make()
    left: list[bool] = []

    def removed(*_: object) -> bool:
        left.append(paths.root.exists())
        return True

    monkeypatch.setattr("cli.kubeconfig.remove", removed)
    monkeypatch.setattr("linux.cgroup.Cgroups.remove", removed)
    cluster.down("cut-off", lambda _: None)
    assert left == [True, True]
    assert not paths.root.exists()


def test_a_broken_kubeconfig_keeps_no_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NANOKUBE_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setattr("cli.tools.require_root", lambda: None)
    (tmp_path / "config").write_text("[")
    paths = ClusterPaths.of("broken")
    paths.make()
    with pytest.raises(CommandError, match="kubeconfig"):
        cluster.down("broken", lambda _: None)
    assert not paths.root.exists()
