"""The real runtime from inside: what containers see, how streams behave, what survives which death.

Over 500 lines because one runtime, which takes its time to start, serves all tests of the module.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import tarfile
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
import websockets.asyncio.client as websocket
from websockets.exceptions import ConnectionClosedError
from websockets.typing import Subprotocol

from linux import netns
from machinery.grpc import channel
from proto.cri.v1 import cri_pb2 as cri
from proto.runtime.v1 import images_pb2, images_pb2_grpc
from runtime import cleanup
from tests.harness.cri_node import DEADLINE, FOREVER, REAL, Node, RealRuntime, connected, poll

pytestmark = [REAL, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def real() -> AsyncIterator[RealRuntime]:
    folder = Path(f"/var/lib/nanokube-integration-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    runtime = RealRuntime(folder, f"nanokube-integration-{os.getpid()}")
    await asyncio.to_thread(runtime.start)
    yield runtime
    await asyncio.to_thread(runtime.purge)
    shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture(loop_scope="module")
async def node(real: RealRuntime) -> AsyncIterator[Node]:
    async with connected(real.address, real.folder, real.cgroup) as made:
        yield made


async def output(node: Node, config: cri.ContainerConfig, pod: cri.PodSandboxConfig | None = None) -> str:
    """Run a container to its end and return what it logged."""
    pod = pod or node.pod()
    sandbox = await node.run(pod)
    container = await node.create(sandbox, config, pod)
    await node.start(container)
    ended = await node.until(container, cri.CONTAINER_EXITED)
    text = "".join(line.split(" ", 3)[3] for line in Path(ended.log_path).read_text().splitlines(keepends=True))
    await node.remove_pod(sandbox)
    return text


async def shell(node: Node, container: str, script: str) -> tuple[int, str]:
    """Run a script in a container."""
    request = cri.ExecSyncRequest(container_id=container, cmd=["sh", "-c", script])
    answer = await node.runtime.ExecSync(request, timeout=DEADLINE)
    return answer.exit_code, (answer.stdout + answer.stderr).decode()


async def until_shell(node: Node, container: str, script: str, wanted: Callable[[str], bool]) -> None:
    """Run a script again and again until its output is as wanted."""
    async with asyncio.timeout(DEADLINE):
        while True:
            if wanted((await shell(node, container, script))[1]):
                return
            await asyncio.sleep(0.02)


# what a container sees


async def test_environment_arguments_and_identity(node: Node) -> None:
    pod = node.pod("named")
    config = node.container(["sh", "-c", 'echo "$A|$HOSTNAME|$0|$1|$PWD"; hostname; id -u; id -g; id -G'])
    config.args.extend(["zero", "one"])
    config.envs.append(cri.KeyValue(key="A", value="b c"))
    config.working_dir = "/tmp"
    security = config.linux.security_context
    security.run_as_user.value = 1000
    security.run_as_group.value = 2000
    security.supplemental_groups.append(3000)
    assert (await output(node, config, pod)).splitlines() == [
        "b c|named|zero|one|/tmp", "named", "1000", "2000", "2000 3000",
    ]  # fmt: skip


async def test_user_by_name_comes_from_the_image(node: Node) -> None:
    config = node.container(["id"])
    config.linux.security_context.run_as_username = "www-data"
    assert "uid=33(www-data) gid=33(www-data)" in await output(node, config)
    config.linux.security_context.run_as_username = "nobody-knows"
    with pytest.raises(grpc.aio.AioRpcError, match="unable to find user nobody-knows"):
        await output(node, config)


async def test_pod_files(node: Node) -> None:
    pod = node.pod("files")
    pod.dns_config.CopyFrom(cri.DNSConfig(servers=["10.96.0.10"], searches=["a.svc", "svc"], options=["ndots:5"]))
    text = await output(node, node.container(["cat", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"]), pod)
    assert text.startswith("search a.svc svc\nnameserver 10.96.0.10\noptions ndots:5\n")
    assert "\tfiles\n" in text
    assert text.endswith("files\n")


async def test_mounts(node: Node, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("from outside\n")
    config = node.container(["sh", "-c", "cat /data/in; echo x > /data/out; echo y > /ro/in; cat /one"])
    config.mounts.extend(
        [
            cri.Mount(container_path="/data", host_path=str(tmp_path)),
            cri.Mount(container_path="/ro", host_path=str(tmp_path), readonly=True),
            cri.Mount(container_path="/one", host_path=str(tmp_path / "in")),
        ]
    )
    text = await output(node, config)
    assert text.count("from outside") == 2
    assert "Read-only file system" in text
    assert (tmp_path / "out").read_text() == "x\n"
    config.mounts[0].host_path = "/nonexistent"
    with pytest.raises(grpc.aio.AioRpcError, match="no such file"):
        await output(node, config)


async def test_security(node: Node) -> None:
    config = node.container(["sh", "-c", "touch /x; grep -E 'Cap(Eff|Bnd)|NoNewPrivs' /proc/self/status"])
    security = config.linux.security_context
    security.readonly_rootfs = security.no_new_privs = True
    security.capabilities.drop_capabilities.append("ALL")
    security.capabilities.add_capabilities.append("NET_BIND_SERVICE")
    text = await output(node, config)
    assert "Read-only file system" in text
    assert "CapEff:\t0000000000000400" in text
    assert "NoNewPrivs:\t1" in text


async def test_commands_run_as_the_container_does(node: Node) -> None:
    pod = node.pod()
    config = node.container(["sh", "-c", "cd /; sleep 1000"])
    config.working_dir = "/tmp"
    security = config.linux.security_context
    security.run_as_user.value, security.run_as_group.value = 1000, 3000
    security.supplemental_groups.append(2000)
    security.no_new_privs = True
    sandbox = await node.run(pod)
    container = await node.create(sandbox, config, pod)
    await node.start(container)
    code, text = await shell(node, container, "id -u; id -G; pwd; grep NoNewPrivs /proc/self/status; touch /x")
    assert (code, text.split()[:6]) == (1, ["1000", "3000", "2000", "/tmp", "NoNewPrivs:", "1"])
    assert "Permission denied" in text
    await node.remove_pod(sandbox)


async def test_devices(node: Node) -> None:
    config = node.container(["sh", "-c", "head -c 3 /dev/mine | wc -c; head -c 3 /dev/other"])
    config.devices.append(cri.Device(host_path="/dev/zero", container_path="/dev/mine", permissions="r"))
    assert (await output(node, config)).startswith("3\n")
    config.devices[0].host_path = "/etc/passwd"
    with pytest.raises(grpc.aio.AioRpcError, match="is not a device"):
        await output(node, config)


async def test_privileged(node: Node) -> None:
    pod = node.pod()
    pod.linux.security_context.privileged = True
    config = node.container(["sh", "-c", "mount -t tmpfs none /tmp && echo mounted; ls /dev | wc -l"])
    config.linux.security_context.privileged = True
    text = await output(node, config, pod)
    assert text.startswith("mounted")


async def test_pods_reach_each_other_and_their_node(node: Node, real: RealRuntime) -> None:
    server_pod = node.pod()
    server = await node.run(server_pod)
    script = "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    container = await node.create(server, node.container(["sh", "-c", script]), server_pod)
    await node.start(container)
    status = await node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=server))
    address = status.status.network.ip
    sandbox, client = await node.launch(FOREVER)
    await until_shell(node, client, f"wget -qO- http://{address}/index.html", lambda text: text == "hello\n")

    def from_node() -> bytes:
        import socket

        with socket.create_connection((address, 80), timeout=5) as connection:
            connection.sendall(b"GET /index.html HTTP/1.0\r\n\r\n")
            return connection.makefile("rb").read()

    assert b"hello" in await asyncio.to_thread(netns.run_in, real.netns, from_node)
    await node.remove_pod(server)
    await node.remove_pod(sandbox)


async def test_sysctls(node: Node) -> None:
    pod = node.pod()
    pod.linux.sysctls["net.ipv4.ip_local_port_range"] = "40000 41000"
    pod.linux.sysctls["kernel.shm_rmid_forced"] = "1"
    config = node.container(["cat", "/proc/sys/net/ipv4/ip_local_port_range", "/proc/sys/kernel/shm_rmid_forced"])
    assert (await output(node, config, pod)).split() == ["40000", "41000", "1"]
    pod.linux.sysctls["vm.swappiness"] = "1"
    with pytest.raises(grpc.aio.AioRpcError, match="not in a separate kernel namespace"):
        await node.run(pod)


async def test_shared_process_namespace(node: Node) -> None:
    pod = node.pod(pid=cri.POD)
    sandbox = await node.run(pod)
    containers: list[str] = []
    for name in ("one", "two"):
        config = node.container(["sh", "-c", f"exec sleep 100{len(containers)}"], name=name)
        config.linux.security_context.namespace_options.pid = cri.POD
        containers.append(await node.create(sandbox, config, pod))
        await node.start(containers[-1])
    code, text = await shell(node, containers[0], "ps")
    assert code == 0
    assert "sleep 1000" in text
    assert "sleep 1001" in text
    listed = await node.runtime.ListContainers(cri.ListContainersRequest())
    assert {each.id for each in listed.containers} == set(containers)
    await node.stop(containers[0], 0)
    assert (await node.status(containers[1])).state == cri.CONTAINER_RUNNING
    await node.remove_pod(sandbox)


async def test_target_process_namespace(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    target = await node.create(sandbox, node.container(["sleep", "1234"]), pod)
    await node.start(target)
    config = node.container(["ps"], name="debug")
    config.linux.security_context.namespace_options.CopyFrom(cri.NamespaceOption(pid=cri.TARGET, target_id=target))
    debug = await node.create(sandbox, config, pod)
    await node.start(debug)
    ended = await node.until(debug, cri.CONTAINER_EXITED)
    assert "sleep 1234" in Path(ended.log_path).read_text()
    await node.remove_pod(sandbox)


async def test_memory_limit_kills(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    config = node.container(["sh", "-c", "a=x; while :; do a=$a$a; done"])
    config.linux.resources.memory_limit_in_bytes = 16 << 20
    container = await node.create(sandbox, config, pod)
    await node.start(container)
    ended = await node.until(container, cri.CONTAINER_EXITED)
    assert (ended.exit_code, ended.reason) == (137, "OOMKilled")
    assert not Path("oom").exists(), "a note of conmon's in the runtime's working folder"
    await node.remove_pod(sandbox)


async def test_log_format(node: Node) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    container = await node.create(sandbox, node.container(["sh", "-c", "echo out; echo err >&2; printf part"]), pod)
    await node.start(container)
    ended = await node.until(container, cri.CONTAINER_EXITED)
    lines = [line.split(" ", 3)[1:] for line in Path(ended.log_path).read_text().splitlines()]
    assert sorted(lines) == [["stderr", "F", "err"], ["stdout", "F", "out"], ["stdout", "P", "part"]]
    await node.remove_pod(sandbox)


# exec


async def test_exec_sync(node: Node) -> None:
    sandbox, container = await node.launch(FOREVER)
    assert await shell(node, container, "echo hi; echo err >&2; exit 4") == (4, "hi\nerr\n")
    big = cri.ExecSyncRequest(container_id=container, cmd=["sh", "-c", "head -c 17825792 /dev/zero"])
    answer = await node.runtime.ExecSync(big)
    assert (answer.exit_code, len(answer.stdout)) == (0, 16 << 20)
    slow = cri.ExecSyncRequest(container_id=container, cmd=["sleep", "100"], timeout=1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await node.runtime.ExecSync(slow)
    assert caught.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "sleep 100" not in (await shell(node, container, "ps"))[1]
    await node.remove_pod(sandbox)


async def dial(real: RealRuntime, url: str) -> websocket.ClientConnection:
    """Connect to a stream from inside the machine, as the kubelet does."""
    import socket

    port = int(url.split(":")[2].split("/")[0])
    made = await asyncio.to_thread(netns.run_in, real.netns, lambda: socket.create_connection(("127.0.0.1", port)))
    return await websocket.connect(
        url.replace("http", "ws"),
        sock=made,
        subprotocols=[Subprotocol("v5.channel.k8s.io")],
        compression=None,
        proxy=None,
    )


async def collect(connection: websocket.ClientConnection) -> dict[int, bytes]:
    """Everything received per channel, to the end."""
    found: dict[int, bytes] = {}
    async with asyncio.timeout(DEADLINE):
        async for message in connection:
            assert isinstance(message, bytes)
            found[message[0]] = found.get(message[0], b"") + message[1:]
    return found


async def exec_url(node: Node, container: str, cmd: list[str], **options: Any) -> str:
    request = cri.ExecRequest(container_id=container, cmd=cmd, **options)
    return (await node.runtime.Exec(request)).url


async def test_exec_stream(node: Node, real: RealRuntime) -> None:
    sandbox, container = await node.launch(FOREVER)
    command = ["sh", "-c", "cat; echo E >&2; exit 9"]
    url = await exec_url(node, container, command, stdin=True, stdout=True, stderr=True)
    connection = await dial(real, url)
    await connection.send(b"\x00hello\n")
    await connection.send(b"\xff\x00")
    found = await collect(connection)
    assert (found[1], found[2]) == (b"hello\n", b"E\n")
    status = json.loads(found[3])
    assert status["reason"] == "NonZeroExitCode"
    assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "9"}]
    again = await dial(real, url)  # a token works once
    with pytest.raises(ConnectionClosedError, match="unknown or used token"):
        await collect(again)
    missing = await dial(real, await exec_url(node, container, ["nosuch"], stdout=True))
    assert "executable file not found" in json.loads((await collect(missing))[3])["message"]
    await node.remove_pod(sandbox)


async def test_exec_terminal(node: Node, real: RealRuntime) -> None:
    sandbox, container = await node.launch(FOREVER)
    connection = await dial(real, await exec_url(node, container, ["sh"], stdin=True, stdout=True, tty=True))
    await connection.send(b"\x04" + json.dumps({"Width": 132, "Height": 50}).encode())
    await connection.send(b"\x00stty size; tty; exit 3\n")
    found = await collect(connection)
    assert b"50 132" in found[1]
    assert b"/dev/pts/" in found[1]
    assert json.loads(found[3])["details"]["causes"][0]["message"] == "3"
    missing = await dial(real, await exec_url(node, container, ["nosuch"], stdin=True, stdout=True, tty=True))
    assert "executable file not found" in json.loads((await collect(missing))[3])["message"]
    await node.remove_pod(sandbox)


async def test_client_that_leaves_takes_its_command_along(node: Node, real: RealRuntime) -> None:
    sandbox, container = await node.launch(FOREVER)
    connection = await dial(real, await exec_url(node, container, ["sleep", "4321"], stdout=True))
    await until_shell(node, container, "ps", lambda text: "sleep 4321" in text)
    await connection.close()
    await until_shell(node, container, "ps", lambda text: "sleep 4321" not in text)
    await node.remove_pod(sandbox)


async def test_attach(node: Node, real: RealRuntime) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    config = node.container(["sh", "-c", "while read line; do echo got $line; [ $line = end ] && exit 0; done"])
    config.stdin = True
    container = await node.create(sandbox, config, pod)
    await node.start(container)
    request = cri.AttachRequest(container_id=container, stdin=True, stdout=True, stderr=True)
    connection = await dial(real, (await node.runtime.Attach(request)).url)
    await connection.send(b"\x00one\nend\n")
    found = await collect(connection)
    assert found[1] == b"got one\ngot end\n"
    assert json.loads(found[3])["status"] == "Success"
    await node.until(container, cri.CONTAINER_EXITED)
    await node.remove_pod(sandbox)


async def test_attach_terminal(node: Node, real: RealRuntime) -> None:
    pod = node.pod()
    sandbox = await node.run(pod)
    config = node.container(["sh"])
    config.stdin = config.tty = True
    container = await node.create(sandbox, config, pod)
    await node.start(container)
    request = cri.AttachRequest(container_id=container, stdin=True, stdout=True, tty=True)
    connection = await dial(real, (await node.runtime.Attach(request)).url)
    await connection.send(b"\x04" + json.dumps({"Width": 120, "Height": 40}).encode())
    await asyncio.sleep(0.2)  # conmon applies the size on its own time and tells nobody
    await connection.send(b"\x00stty size; exit\n")
    assert b"40 120" in (await collect(connection))[1]
    await node.remove_pod(sandbox)


async def test_port_forward(node: Node, real: RealRuntime) -> None:
    sandbox, _ = await node.launch(["sh", "-c", "echo hello > /tmp/index.html; exec httpd -f -p 8080 -h /tmp"])
    async with asyncio.timeout(DEADLINE):
        while True:
            request = cri.PortForwardRequest(pod_sandbox_id=sandbox, port=[8080])
            connection = await dial(real, (await node.runtime.PortForward(request)).url)
            await connection.send(b"\x00GET /index.html HTTP/1.0\r\n\r\n")
            found = await collect(connection)
            if b"hello" in found[0]:
                break
    assert found[0][:2] == found[1][:2] == (8080).to_bytes(2, "little")
    connection = await dial(
        real, (await node.runtime.PortForward(cri.PortForwardRequest(pod_sandbox_id=sandbox, port=[81]))).url
    )
    assert b"connection refused" in (await collect(connection))[1]
    await node.remove_pod(sandbox)


# deaths


async def test_containers_survive_the_runtime(node: Node, real: RealRuntime) -> None:
    sandbox, container = await node.launch(["sh", "-c", "trap 'exit 7' TERM; while :; do echo tick; sleep 0.05; done"])
    gone_sandbox, gone = await node.launch(["sh", "-c", "sleep 0.5; exit 6"])
    before = (await node.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox))).status
    started = (await node.status(container)).started_at
    await asyncio.to_thread(real.kill)
    log = Path(real.folder / "logs" / before.metadata.name / "main/0.log")
    size = log.stat().st_size
    await poll(lambda: log.stat().st_size > size)
    await asyncio.sleep(0.6)  # the other one ends while nobody watches
    await asyncio.to_thread(real.start)
    async with connected(real.address, real.folder, real.cgroup) as again:
        adopted = await again.status(container)
        assert (adopted.state, adopted.started_at) == (cri.CONTAINER_RUNNING, started)
        after = (await again.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox))).status
        assert after == before
        ended = await again.until(gone, cri.CONTAINER_EXITED)
        assert (ended.exit_code, ended.reason) == (6, "Error")
        assert (await shell(again, container, "echo in"))[1] == "in\n"
        await again.stop(container, 5)
        assert (await again.status(container)).exit_code == 7
        sibling = await again.run(again.pod())
        status = (await again.runtime.PodSandboxStatus(cri.PodSandboxStatusRequest(pod_sandbox_id=sibling))).status
        assert status.network.ip != before.network.ip
        # a new container in an adopted sandbox gets its network
        fresh = await again.create(sandbox, again.container(["ip", "addr"], attempt=1), cri.PodSandboxConfig())
        await again.start(fresh)
        await again.until(fresh, cri.CONTAINER_EXITED)
        await again.remove_pod(gone_sandbox)


async def test_start_that_was_cut_off_is_taken_back(node: Node, real: RealRuntime) -> None:
    sandbox, container = await node.launch(FOREVER)
    verbose = cri.ContainerStatusRequest(container_id=container, verbose=True)
    pid = int((await node.runtime.ContainerStatus(verbose)).info["pid"])
    await asyncio.to_thread(real.kill)
    path = real.folder / "root/containers" / container / "record.json"
    record = json.loads(path.read_text())
    for key in ("pid", "pid_started", "conmon", "conmon_started", "started_at"):
        record.pop(key)
    path.write_text(json.dumps(record | {"state": "starting"}))
    await asyncio.to_thread(real.start)
    async with connected(real.address, real.folder, real.cgroup) as again:
        ended = await again.status(container)
        assert (ended.state, ended.exit_code, ended.reason) == (cri.CONTAINER_EXITED, 128, "StartError")
        await poll(lambda: not Path(f"/proc/{pid}").exists())
        await again.remove_pod(sandbox)


async def test_lost_monitor_is_reported_as_unknown(node: Node) -> None:
    sandbox, container = await node.launch(FOREVER)
    verbose = cri.ContainerStatusRequest(container_id=container, verbose=True)
    pid = int((await node.runtime.ContainerStatus(verbose)).info["pid"])
    monitor = int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[1])
    assert Path(f"/proc/{monitor}/comm").read_text().strip() == "conmon"
    os.kill(monitor, signal.SIGKILL)
    ended = await node.until(container, cri.CONTAINER_EXITED)
    assert (ended.exit_code, ended.reason) == (137, "ContainerStatusUnknown")
    await poll(lambda: not Path(f"/proc/{pid}").exists())
    await node.remove_pod(sandbox)


async def test_removed_pods_leave_nothing(node: Node, real: RealRuntime) -> None:
    sandbox, container = await node.launch(FOREVER)
    await node.remove_pod(sandbox)
    assert container not in Path("/proc/self/mountinfo").read_text()
    assert sandbox not in Path("/proc/self/mountinfo").read_text()
    for folder in ("root/containers", "root/sandboxes", "state/sandboxes", "state/crun", "state/exits"):
        assert not {sandbox, container} & {each.name for each in (real.folder / folder).iterdir()}


async def test_many_pods_at_once(node: Node) -> None:
    async with asyncio.timeout(60):
        made = await asyncio.gather(*(node.launch(FOREVER) for _ in range(12)))
        assert len({container for _, container in made}) == 12
        await asyncio.gather(*(node.remove_pod(sandbox) for sandbox, _ in made))


async def test_purge_removes_a_dead_runtimes_node() -> None:
    folder = Path(f"/var/lib/nanokube-integration-{uuid.uuid4().hex[:8]}")
    folder.mkdir()
    runtime = RealRuntime(folder, f"nanokube-purge-{os.getpid()}")
    await asyncio.to_thread(runtime.start)
    try:
        connection = connected(runtime.address, folder, runtime.cgroup)
        node = await connection.__aenter__()
        _, container = await node.launch(FOREVER)
        verbose = cri.ContainerStatusRequest(container_id=container, verbose=True)
        pid = int((await node.runtime.ContainerStatus(verbose)).info["pid"])
        await asyncio.to_thread(runtime.kill)
        done = await asyncio.to_thread(cleanup.purge, folder / "root", folder / "state")
        assert (done.containers, done.problems) == (1, [])
        assert done.mounts >= 4
        assert not Path(f"/proc/{pid}").exists()
        assert not (folder / "root").exists()
        again = await asyncio.to_thread(cleanup.purge, folder / "root", folder / "state")
        assert (again.containers, again.mounts, again.problems) == (0, 0, [])
    finally:
        await asyncio.to_thread(runtime.purge)
        shutil.rmtree(folder, ignore_errors=True)


async def test_imported_image_runs(node: Node, real: RealRuntime, tmp_path: Path) -> None:
    listed = (await node.images.ListImages(cri.ListImagesRequest())).images
    busybox = next(each for each in listed if "docker.io/library/busybox:latest" in each.repo_tags)
    blobs = real.folder / "images/blobs/sha256"
    config = json.loads((blobs / busybox.id.removeprefix("sha256:")).read_bytes())
    config["config"] |= {"Entrypoint": ["/bin/echo", "imported"], "Cmd": ["image"], "User": "nobody"}
    layer = blobs / config["rootfs"]["diff_ids"][0].removeprefix("sha256:")
    (tmp_path / "config.json").write_text(json.dumps(config))
    manifest = [{"Config": "config.json", "RepoTags": ["mine:1"], "Layers": ["layer.tar"]}]
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    with tarfile.open(tmp_path / "image.tar", "w") as archive:
        archive.add(tmp_path / "config.json", "config.json")
        archive.add(tmp_path / "manifest.json", "manifest.json")
        archive.add(layer, "layer.tar")
    raw = (tmp_path / "image.tar").read_bytes()
    connection = channel(real.address)
    stub: Any = images_pb2_grpc.NodeImagesStub(connection)

    async def chunks() -> AsyncIterator[images_pb2.ImportRequest]:
        for offset in range(0, len(raw), 1 << 20):
            yield images_pb2.ImportRequest(chunk=raw[offset : offset + (1 << 20)])

    async def path() -> AsyncIterator[images_pb2.ImportRequest]:
        yield images_pb2.ImportRequest(path=str(tmp_path / "image.tar"))

    for source in (chunks, path):
        answer = await stub.Import(source())
        assert [list(each.names) for each in answer.images] == [["docker.io/library/mine:1"]]
    await connection.close()
    wanted = node.container([])
    wanted.image.image = "mine:1"
    assert await output(node, wanted) == "imported image\n"
    wanted.command.append("id")
    assert "uid=65534(nobody)" in await output(node, wanted)
    await node.images.RemoveImage(cri.RemoveImageRequest(image=cri.ImageSpec(image="mine:1")))
    gone = await node.images.ImageStatus(cri.ImageStatusRequest(image=cri.ImageSpec(image="mine:1")))
    assert not gone.HasField("image")


async def test_host_port(node: Node, real: RealRuntime) -> None:
    pod = node.pod()
    pod.port_mappings.append(cri.PortMapping(container_port=80, host_port=18080))
    sandbox = await node.run(pod)
    script = "echo hello > /tmp/index.html; exec httpd -f -p 80 -h /tmp"
    container = await node.create(sandbox, node.container(["sh", "-c", script]), pod)
    await node.start(container)
    other_sandbox, other = await node.launch(FOREVER)
    ask = "wget -qO- http://10.250.99.1:18080/index.html 2>&1"
    await until_shell(node, other, ask, lambda text: text == "hello\n")
    await until_shell(node, container, ask, lambda text: text == "hello\n")  # the pod itself, by way of the node
    await node.runtime.StopPodSandbox(cri.StopPodSandboxRequest(pod_sandbox_id=sandbox))
    assert "refused" in (await shell(node, other, ask))[1]
    await node.remove_pod(sandbox)
    await node.remove_pod(other_sandbox)


async def test_host_network_container_is_on_the_node(node: Node) -> None:
    pod = node.pod(network=cri.NODE)
    pod.hostname = ""
    config = node.container(["sh", "-c", "hostname; ip addr; touch /sys/x; touch /sys/kernel/x"])
    text = await output(node, config, pod)
    assert text.startswith("contract\n")
    assert "10.250.99.1/32" in text
    assert text.count("Read-only file system") == 2


async def test_sandbox_that_lost_its_pid_namespace_is_not_ready(node: Node) -> None:
    pod = node.pod(pid=cri.POD)
    sandbox = await node.run(pod)
    request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=True)
    answer = await node.runtime.PodSandboxStatus(request)
    os.kill(int(answer.info["pid"]), signal.SIGKILL)
    async with asyncio.timeout(DEADLINE):
        while True:
            if (await node.runtime.PodSandboxStatus(request)).status.state == cri.SANDBOX_NOTREADY:
                break
            await asyncio.sleep(0.01)
    await node.remove_pod(sandbox)
