"""Where images come from: a registry, an archive, the machine itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.harness import images
from tests.harness.nanokube import Cluster, eventually


def marker(cluster: Cluster, namespace: str, pod: str) -> str:
    cluster.kubectl("wait", f"pod/{pod}", "-n", namespace, "--for=condition=Ready", "--timeout=60s")
    return cluster.kubectl("exec", pod, "-n", namespace, "--", "cat", "/marker")


def events(cluster: Cluster, namespace: str) -> str:
    return cluster.kubectl("get", "events", "-n", namespace)


def test_an_image_is_pulled_from_a_registry(cluster: Cluster, namespace: str, tmp_path: Path) -> None:
    with images.registry(tmp_path) as registry:
        reference = registry.push(images.build("from a registry"), "team/tool", "1.0")
        cluster.kubectl("run", "pulled", "-n", namespace, f"--image={reference}")
        assert marker(cluster, namespace, "pulled") == "from a registry"
        eventually(lambda: f'Successfully pulled image "{reference}"' in events(cluster, namespace), "the event")
        # A tag that moves: pull policy Always sees the new image, IfNotPresent keeps the one the node has.
        latest = registry.push(images.build("old"), "team/tool", "latest")
        cluster.kubectl("run", "before", "-n", namespace, f"--image={latest}")
        assert marker(cluster, namespace, "before") == "old"
        registry.push(images.build("new"), "team/tool", "latest")
        cluster.kubectl("run", "after", "-n", namespace, f"--image={latest}")
        assert marker(cluster, namespace, "after") == "new"
        # What the registry does not have.
        cluster.kubectl("run", "missing", "-n", namespace, f"--image={registry.address}/team/nothing:1")

        def reason() -> str:
            statuses = cluster.get("pod", "missing", "-n", namespace)["status"].get("containerStatuses") or [{}]
            return str(statuses[0].get("state", {}).get("waiting", {}).get("reason", ""))

        eventually(lambda: reason() in ("ErrImagePull", "ImagePullBackOff"), "a refusal")
    # The registry is gone. What was pulled stays usable where the policy allows it.
    node = cluster.get("pod", "pulled", "-n", namespace)["spec"]["nodeName"]
    pinned = f'{{"spec":{{"nodeName":"{node}"}}}}'
    cluster.kubectl("run", "again", "-n", namespace, f"--image={reference}", f"--overrides={pinned}")
    assert marker(cluster, namespace, "again") == "from a registry"


@pytest.mark.parametrize("kind", ["docker", "oci"])
def test_an_archive_is_loaded_into_every_node(cluster: Cluster, namespace: str, tmp_path: Path, kind: str) -> None:
    name = f"example.com/{kind}-archive:latest"
    write = images.docker_archive if kind == "docker" else images.oci_archive
    archive = write(images.build(f"from a {kind} archive"), name, tmp_path / "image.tar")
    cluster.nanokube("image", "load", str(archive))
    listed = cluster.nanokube("image", "list")
    assert listed.count(name) == 3, listed
    for number in (1, 2, 3):
        overrides = f'{{"spec":{{"nodeName":"worker-{number}"}}}}'
        pod = f"loaded-{number}"
        # :latest means policy Always; example.com cannot be reached, so the loaded image satisfies the pull.
        cluster.kubectl("run", pod, "-n", namespace, f"--image={name}", f"--overrides={overrides}")
        assert marker(cluster, namespace, pod) == f"from a {kind} archive"
    assert "unreachable" in events(cluster, namespace)


def test_what_is_no_archive_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    nonsense = tmp_path / "nonsense.tar"
    nonsense.write_bytes(b"not a tar" * 100)
    for file in (nonsense, tmp_path / "missing.tar"):
        told = cluster.fails("image", "load", str(file))
        assert "Traceback" not in told.stderr
        assert len(told.stderr.strip().splitlines()) == 1
