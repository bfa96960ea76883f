"""A kubelet that dies, and an API server that is away."""

from __future__ import annotations

from api.models import core_v1
from tests.integration.kubelet.conftest import FOREVER, Site, main, until


async def test_a_restarted_kubelet_adopts_what_runs(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    before = main(await site.phase("web", "Running"))
    await site.stop()
    calls = len(site.runtime.calls)
    await site.start()
    pods = site.kubelet.pods

    async def adopted() -> bool:
        return pods is not None and bool(pods.workers()) and pods.workers()[0].machine.slots["main"].probing != ""

    await until(adopted, "adoption")
    verbs = {verb for verb, _ in site.runtime.calls[calls:]}
    assert not verbs & {"RunPodSandbox", "CreateContainer", "StartContainer", "StopContainer", "StopPodSandbox"}
    after = main(await site.phase("web", "Running"))
    assert after.containerID == before.containerID and after.ready


async def test_a_container_that_died_meanwhile_is_restarted_and_counted(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    await site.stop()
    site.runtime.finish(site.containers("web")[0].status.id, 1)
    await site.start()
    pod = await site.pod("web", "restart", lambda pod: main(pod).restartCount == 1 and main(pod).ready)
    last = main(pod).lastState
    assert last is not None and last.terminated is not None and last.terminated.exitCode == 1


async def test_what_the_api_server_no_longer_knows_is_removed(site: Site) -> None:
    await site.create("old", {"command": FOREVER}, terminationGracePeriodSeconds=1)
    await site.create("kept", {"command": FOREVER})
    await site.phase("old", "Running")
    await site.phase("kept", "Running")
    await site.stop()
    await site.client.delete(core_v1.Pod, "old", "default", grace_period_seconds=0)
    await site.start()

    async def removed() -> bool:
        return not site.containers("old") and len(site.runtime.sandboxes) == 1

    await until(removed, "removal of what does not belong")
    await site.phase("kept", "Running")


async def test_a_pod_deleted_meanwhile_is_ended_properly(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    await site.stop()
    await site.client.delete(core_v1.Pod, "web", "default")
    await site.start()
    await site.gone("web")
    assert not site.runtime.sandboxes


async def test_a_sandbox_that_died_is_replaced(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    before = await site.phase("web", "Running")
    await site.stop()
    site.runtime.containers.clear()
    site.runtime.sandboxes.clear()
    await site.start()
    pod = await site.pod("web", "new container", lambda pod: main(pod).restartCount == 1 and main(pod).ready)
    last = main(pod).lastState
    assert last is not None and last.terminated is not None and last.terminated.reason == "ContainerStatusUnknown"
    assert pod.status is not None and before.status is not None
    assert pod.status.podIP != before.status.podIP
    assert [entry.ip for entry in pod.status.podIPs or ()] == [pod.status.podIP], "the old address is gone"
