"""Hooks, log rotation, tokens and files of containers."""

from __future__ import annotations

from pathlib import Path

import pytest

from api.models import core_v1
from kubelet.log_rotation import LogRotation
from linux import mount
from tests.integration.kubelet.conftest import FOREVER, Site, main, until


async def test_pre_stop_runs_before_the_container_is_stopped(site: Site) -> None:
    hook = {"preStop": {"exec": {"command": ["say", "goodbye"]}}}
    await site.create("web", {"command": FOREVER, "lifecycle": hook})
    await site.phase("web", "Running")
    await site.client.delete(core_v1.Pod, "web", "default")
    await site.gone("web")
    verbs = [verb for verb, request in site.runtime.calls if verb in ("ExecSync", "StopContainer")]
    assert verbs[:2] == ["ExecSync", "StopContainer"]


async def test_a_failing_post_start_kills_the_container(site: Site) -> None:
    site.runtime.exec_results = lambda _, cmd: (1, b"", b"no")
    hook = {"postStart": {"exec": {"command": ["prepare"]}}}
    await site.create("web", {"command": FOREVER, "lifecycle": hook})
    await site.waiting("web", "PostStartHookError")
    assert "FailedPostStartHook" in [reason for reason, _ in await site.events("web")]


async def test_the_termination_message_reaches_the_status(site: Site) -> None:
    await site.create("web", {"command": FOREVER}, restartPolicy="Never")
    await site.phase("web", "Running")
    made = site.containers("web")[0]
    file = next(each.host_path for each in made.config.mounts if each.container_path == "/dev/termination-log")
    Path(file).write_text("last words")
    site.runtime.finish(made.status.id, 2)
    ended = main(await site.phase("web", "Failed")).state.terminated  # type: ignore[union-attr]
    assert ended is not None and ended.message == "last words"


async def test_an_ended_container_without_message_tells_the_end_of_its_log(site: Site) -> None:
    await site.create(
        "web", {"command": FOREVER, "terminationMessagePolicy": "FallbackToLogsOnError"}, restartPolicy="Never"
    )
    await site.phase("web", "Running")
    identity = site.containers("web")[0].status.id
    site.runtime.write_log(identity, "first\nlast")
    site.runtime.finish(identity, 2)
    ended = main(await site.phase("web", "Failed")).state.terminated  # type: ignore[union-attr]
    assert ended is not None and (ended.message or "").endswith("first\nlast\n")


async def test_service_account_tokens_are_projected(site: Site) -> None:
    sources = [{"serviceAccountToken": {"path": "token", "expirationSeconds": 3600}}]
    await site.create(
        "web",
        {"command": FOREVER, "volumeMounts": [{"name": "t", "mountPath": "/t"}]},
        volumes=[{"name": "t", "projected": {"sources": sources}}],
        serviceAccountName="default",
    )
    await site.phase("web", "Running")
    folder = next(m.host_path for m in site.containers("web")[0].config.mounts if m.container_path == "/t")
    assert Path(folder, "token").read_text().count(".") == 2, "a JWT"


async def test_large_logs_are_rotated_and_only_some_kept(site: Site) -> None:
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    made = site.containers("web")[0]
    path = Path(made.status.log_path)
    pods = site.kubelet.pods
    assert pods is not None
    rotation = LogRotation(site.cri, site.clock, pods.workers, max_bytes=100, max_files=2)
    await rotation.look()
    assert [file.name for file in path.parent.iterdir()] == ["0.log"], "too small to rotate"
    path.with_name("0.log.20200101-000000").write_text("old")
    site.runtime.write_log(made.status.id, "x" * 200)
    await rotation.look()
    names = sorted(file.name for file in path.parent.iterdir())
    assert len(names) <= 2 and "0.log.20200101-000000" not in names
    assert "ReopenContainerLog" in [verb for verb, _ in site.runtime.calls]


@pytest.mark.parametrize("kind", ["Memory", ""], ids=["tmpfs", "disk"])
async def test_empty_dirs_are_removed_with_the_pod(site: Site, kind: str) -> None:
    await site.create(
        "web",
        {"command": FOREVER, "volumeMounts": [{"name": "e", "mountPath": "/e", "subPath": "sub"}]},
        volumes=[{"name": "e", "emptyDir": {"medium": kind}}],
    )
    await site.phase("web", "Running")
    folder = Path(next(m.host_path for m in site.containers("web")[0].config.mounts if m.container_path == "/e"))
    volume = next(folder.parents[3].glob("volumes/kubernetes.io~empty-dir/e"))
    assert folder.is_dir() and mount.is_mount_point(str(folder)) and (volume / "sub").is_dir()
    assert volume.is_mount() is (kind == "Memory")
    await site.client.delete(core_v1.Pod, "web", "default", grace_period_seconds=0)

    async def removed() -> bool:
        return not folder.parents[3].exists()

    await until(removed, "removal of the volume")
    assert str(folder.parents[3]) not in Path("/proc/self/mountinfo").read_text()


async def test_previous_logs_of_a_crashed_container(fast_site: Site) -> None:
    site = fast_site
    await site.create("web", {"command": FOREVER})
    await site.phase("web", "Running")
    first = site.containers("web")[0].status.id
    site.runtime.write_log(first, "before the crash")
    site.runtime.finish(first, 1)
    await site.pod("web", "restart", lambda pod: main(pod).restartCount == 1 and main(pod).ready)
    from kubelet.server.selection import log_path, log_record

    pods = site.kubelet.pods
    worker = pods.by_name("default", "web") if pods else None
    assert worker is not None
    record = log_record(worker.machine, "", previous=True)
    assert "before the crash" in log_path(worker.machine, record, worker.shared.node).read_text()


async def test_volumes_go_when_the_pod_has_ended_and_logs_stay(site: Site) -> None:
    await site.create(
        "web",
        {"command": FOREVER, "volumeMounts": [{"name": "e", "mountPath": "/e"}]},
        volumes=[{"name": "e", "emptyDir": {"medium": "Memory"}}],
        restartPolicy="Never",
    )
    await site.phase("web", "Running")
    made = site.containers("web")[0]
    folder = Path(next(each.host_path for each in made.config.mounts if each.container_path == "/e"))
    assert folder.is_mount()
    site.runtime.finish(made.status.id, 0)
    await site.phase("web", "Succeeded")

    async def removed() -> bool:
        return not folder.parents[1].exists()

    await until(removed, "removal of the volumes")
    assert str(folder) not in Path("/proc/self/mountinfo").read_text()
    assert Path(made.status.log_path).exists()
