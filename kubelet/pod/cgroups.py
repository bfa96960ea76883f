"""The cgroups of pods: one below the machine's for each, limited as the pod's containers are together.

Owns `<machine>/kubepods/…/pod<uid>`; containers' own groups below it are the runtime's. Called by pod workers.
"""

from __future__ import annotations

from api.models import core_v1
from kubelet import qos
from linux.cgroup import UNLIMITED, Cgroups, Limits


class PodCgroups:
    """One per kubelet. Without a root the runtime places pods by itself and nothing is done here."""

    def __init__(self, root: str, driver: Cgroups | None = None) -> None:
        self.root = root.strip("/")
        self._driver = driver if driver is not None or not self.root else Cgroups()

    def create(self, pod: core_v1.Pod) -> None:
        """Make (or limit again) the pod's group. Raises OSError."""
        meta, spec = pod.metadata, pod.spec
        if self._driver is None or meta is None or spec is None:
            return
        tier = qos.qos_class(spec)
        resources = qos.pod_resources(spec, tier)
        limits = Limits(
            cpu_period_us=qos.CPU_PERIOD,
            cpu_quota_us=resources.quota if resources.quota > 0 else UNLIMITED,
            cpu_shares=resources.shares,
            memory_bytes=resources.memory_limit or None,
        )
        self._driver.create(qos.cgroup_parent(self.root, meta.uid or "", tier), limits)

    def open(self, pod: core_v1.Pod) -> None:
        """Lift the pod group's limits while its containers are resized: `create` sets them again. Raises OSError."""
        meta, spec = pod.metadata, pod.spec
        if self._driver is None or meta is None or spec is None:
            return
        name = qos.cgroup_parent(self.root, meta.uid or "", qos.qos_class(spec))
        self._driver.update(name, Limits(cpu_period_us=qos.CPU_PERIOD, cpu_quota_us=UNLIMITED, memory_bytes=UNLIMITED))

    def remove(self, uid: str) -> None:
        """Remove the pod's group wherever it is. Raises OSError while something still runs in it."""
        if self._driver is None:
            return
        for tier in (qos.GUARANTEED, qos.BURSTABLE, qos.BEST_EFFORT):
            name = qos.cgroup_parent(self.root, uid, tier)
            if self._driver.exists(name) and not self._driver.try_remove(name):
                raise OSError(f"cgroup {name} is still in use")

    def machine_usage(self) -> tuple[int, int, int, int, int] | None:
        """(time ns, cpu ns, memory, working set, rss) of the whole machine; None when it cannot be read."""
        if self._driver is None:
            return None
        try:
            sampler = self._driver.sampler(self.root)
        except OSError:
            return None
        try:
            sample = sampler.sample()
        except OSError:
            return None
        finally:
            sampler.close()
        return sample.at_ns, sample.cpu_ns, sample.memory, sample.working_set, sample.rss
