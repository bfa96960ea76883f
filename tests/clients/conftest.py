"""What the stock clients meet: a pod that serves, talks and listens, in a namespace of its own."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.harness.nanokube import Cluster

TALK = "echo one; echo two; mkdir -p /tmp/www; echo served > /tmp/www/index.html; "
TALK += "httpd -p 8080 -h /tmp/www; trap 'exit 0' TERM; while :; do sleep 3600 & wait $!; done"


@pytest.fixture(scope="module", autouse=True)
def leftovers() -> Iterator[None]:
    """The clients leave sockets to the garbage collector: let it take them while nobody minds."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(scope="session")
def kubeconfig(cluster: Cluster) -> Path:
    return Path(cluster.environment["KUBECONFIG"])


@pytest.fixture(scope="session")
def talker(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """(namespace, name) of a running pod."""
    namespace = "clients"
    cluster.kubectl("create", "namespace", namespace)
    cluster.kubectl("run", "talker", "-n", namespace, "--image=busybox", "--port=8080", "--", "sh", "-c", TALK)
    cluster.kubectl("wait", "-n", namespace, "--for=condition=Ready", "pod/talker", "--timeout=60s")
    yield namespace, "talker"
    cluster.kubectl("delete", "namespace", namespace, "--wait=false")
