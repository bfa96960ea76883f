"""What is done to a cluster while traffic runs. Each fault is a name and an action; all leave the machine as it was."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.harness.nanokube import Cluster, eventually


@dataclass(frozen=True)
class Fault:
    """`inject` returns when the process is there again (not when it serves again)."""

    name: str
    inject: Callable[[Cluster], None]


def kill(component: str) -> Fault:
    """SIGKILL; the supervisor brings it back."""

    def inject(cluster: Cluster) -> None:
        pid = cluster.pid(component)
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: cluster.pid(component) not in (0, pid), f"a new {component}")

    return Fault(f"kill-{component}", inject)


def freeze(component: str, seconds: float = 1.5) -> Fault:
    """SIGSTOP for a while: requests hang, then go on."""

    def inject(cluster: Cluster) -> None:
        pid = cluster.pid(component)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)  # the length of the fault itself
        finally:
            os.kill(pid, signal.SIGCONT)

    return Fault(f"freeze-{component}", inject)


FAULTS = (kill("apiserver"), kill("etcd"), freeze("apiserver"), freeze("etcd"))
