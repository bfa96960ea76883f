"""Pure plans of containers: OCI configuration, identity, signals, reasons, limits, files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linux.cgroup import UNLIMITED, Sample
from linux.probe import CAPABILITIES
from proto.cri.v1 import cri_pb2 as cri
from runtime.conmon import plan_start_error
from runtime.container_plans import plan_exit_reason, plan_limits, plan_stop_signal
from runtime.faults import BadConfig
from runtime.images.store import ImageConfig
from runtime.sandboxes import plan_hosts, plan_resolv_conf
from runtime.spec import Ability, SandboxView, build, encode, plan_args, plan_capabilities, plan_env, plan_mounts
from runtime.stats import plan_rate
from runtime.users import User, plan_user

ALL = frozenset(CAPABILITIES)
ABILITY = Ability(ALL, unified=True, swap_accounting=True)
VIEW = SandboxView("pod", "a/b", netns="/n", ipcns="/i", utsns="/u", shm="/shm", files={"/etc/hosts": "/h"})
IMAGE = ImageConfig(entrypoint=["/entry"], cmd=["cmd"], env=["A=1", "PATH=/x"], working_dir="/work")


@pytest.mark.parametrize(
    ("command", "args", "expected"),
    [
        pytest.param([], [], ["/entry", "cmd"], id="image"),
        pytest.param(["c"], [], ["c"], id="command-drops-cmd"),
        pytest.param([], ["a"], ["/entry", "a"], id="args-replace-cmd"),
        pytest.param(["c"], ["a"], ["c", "a"], id="both"),
    ],
)
def test_args(command: list[str], args: list[str], expected: list[str]) -> None:
    assert plan_args(cri.ContainerConfig(command=command, args=args), IMAGE) == expected


def test_no_command_at_all() -> None:
    with pytest.raises(BadConfig, match="no command specified"):
        plan_args(cri.ContainerConfig(), ImageConfig())


def test_env_is_layered() -> None:
    config = cri.ContainerConfig(envs=[cri.KeyValue(key="A", value="2=3")], tty=True)
    env = plan_env(config, IMAGE, "pod")
    assert "A=2=3" in env
    assert "PATH=/x" in env
    assert "HOSTNAME=pod" in env
    assert "TERM=xterm" in env
    assert len(env) == len({entry.partition("=")[0] for entry in env})


@pytest.mark.parametrize(
    ("add", "drop", "has", "lacks"),
    [
        pytest.param([], [], {"CAP_CHOWN"}, {"CAP_NET_ADMIN"}, id="default"),
        pytest.param(["NET_ADMIN"], ["CHOWN"], {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}, id="add-and-drop"),
        pytest.param(["CAP_net_admin"], ["ALL"], {"CAP_NET_ADMIN"}, {"CAP_CHOWN"}, id="drop-all-add-one"),
        pytest.param(["ALL"], ["SYS_ADMIN"], {"CAP_SYS_TIME"}, {"CAP_SYS_ADMIN"}, id="add-all-but-one"),
    ],
)
def test_capabilities(add: list[str], drop: list[str], has: set[str], lacks: set[str]) -> None:
    security = cri.LinuxContainerSecurityContext(
        capabilities=cri.Capability(add_capabilities=add, drop_capabilities=drop)
    )
    granted = set(plan_capabilities(security, ALL)[0])
    assert has <= granted
    assert not lacks & granted


def test_capabilities_are_cut_to_the_machine() -> None:
    security = cri.LinuxContainerSecurityContext(privileged=True)
    assert plan_capabilities(security, ALL - {"SYS_RESOURCE"})[0].count("CAP_SYS_RESOURCE") == 0


def test_unknown_capability_is_refused() -> None:
    security = cri.LinuxContainerSecurityContext(capabilities=cri.Capability(add_capabilities=["FLY"]))
    with pytest.raises(BadConfig, match="CAP_FLY"):
        plan_capabilities(security, ALL)


def test_mounts_of_the_request_win_and_parents_come_first() -> None:
    mounts = [
        cri.Mount(container_path="/data/inner", host_path="/b"),
        cri.Mount(container_path="/data", host_path="/a", propagation=cri.PROPAGATION_HOST_TO_CONTAINER),
        cri.Mount(container_path="/etc/hosts", host_path="/mine", readonly=True),
        cri.Mount(container_path="/dev/shm/", host_path="/memory"),
    ]
    planned, propagation = plan_mounts(mounts, VIEW, privileged=False)
    places = [entry["destination"] for entry in planned]
    assert len(places) == len(set(places))
    assert places.index("/data") < places.index("/data/inner")
    assert next(entry for entry in planned if entry["destination"] == "/etc/hosts")["source"] == "/mine"
    assert next(entry for entry in planned if entry["destination"] == "/dev/shm")["source"] == "/memory"
    assert propagation == "rslave"
    with pytest.raises(BadConfig):
        plan_mounts([cri.Mount(container_path="/", host_path="/")], VIEW, privileged=False)


def test_whole_configuration() -> None:
    config = cri.ContainerConfig(
        linux=cri.LinuxContainerConfig(
            resources=cri.LinuxContainerResources(
                cpu_quota=50000, cpu_shares=512, memory_limit_in_bytes=100, oom_score_adj=900
            ),
            security_context=cri.LinuxContainerSecurityContext(
                namespace_options=cri.NamespaceOption(pid=cri.CONTAINER), no_new_privs=True
            ),
        )
    )
    spec = build(config, identity="id", image=IMAGE, sandbox=VIEW, user=User(7, 8, (9,)), ability=ABILITY)
    assert spec["linux"]["cgroupsPath"] == "/a/b/id"
    assert spec["process"]["cwd"] == "/work"
    assert spec["process"]["user"] == {"uid": 7, "gid": 8, "additionalGids": [9]}
    assert spec["process"]["capabilities"]["effective"] == []
    assert spec["process"]["oomScoreAdj"] == 900
    assert spec["linux"]["resources"]["memory"] == {"limit": 100, "swap": 100}
    kinds = {entry["type"]: entry.get("path") for entry in spec["linux"]["namespaces"]}
    assert kinds == {"mount": None, "pid": None, "network": "/n", "ipc": "/i", "uts": "/u", "cgroup": None}
    assert json.loads(encode(spec)) == spec


def test_negative_oom_score_needs_the_capability() -> None:
    config = cri.ContainerConfig(
        linux=cri.LinuxContainerConfig(resources=cri.LinuxContainerResources(oom_score_adj=-997))
    )
    weak = Ability(ALL - {"SYS_RESOURCE"}, unified=False, swap_accounting=False)
    spec = build(config, identity="id", image=IMAGE, sandbox=VIEW, user=User(), ability=weak)
    assert "oomScoreAdj" not in spec["process"]
    spec = build(config, identity="id", image=IMAGE, sandbox=VIEW, user=User(), ability=ABILITY)
    assert spec["process"]["oomScoreAdj"] == -997


def test_privileged_masks_nothing() -> None:
    config = cri.ContainerConfig()
    config.linux.security_context.privileged = True
    spec = build(config, identity="id", image=IMAGE, sandbox=VIEW, user=User(), ability=ABILITY)
    assert "maskedPaths" not in spec["linux"]
    assert spec["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]


PASSWD = "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/:/bin/sh\nbroken\n"
GROUP = "root:x:0:\napp:x:1001:\nextra:x:50:app,root\nweb:x:80:\n"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        pytest.param({"image_user": ""}, User(0, 0, (50,)), id="root"),
        pytest.param({"image_user": "app"}, User(1000, 1001, (50,)), id="image-name"),
        pytest.param({"image_user": "app:web"}, User(1000, 80, ()), id="image-name-and-group"),
        pytest.param({"image_user": "5:6"}, User(5, 6, ()), id="image-numbers"),
        pytest.param({"image_user": "app", "uid": 7}, User(7, 0, ()), id="request-wins"),
        pytest.param({"image_user": "", "uid": 1000}, User(1000, 1001, (50,)), id="known-number-gets-its-groups"),
        pytest.param({"image_user": "", "username": "app", "gid": 9}, User(1000, 9, (50,)), id="request-name"),
        pytest.param({"image_user": "app", "supplemental": [50, 60]}, User(1000, 1001, (50, 60)), id="merged"),
        pytest.param({"image_user": "app", "supplemental": [60], "strict": True}, User(1000, 1001, (60,)), id="strict"),
    ],
)
def test_users(options: dict[str, object], expected: User) -> None:
    defaults: dict[str, object] = {"uid": None, "gid": None, "username": ""}
    assert plan_user(PASSWD, GROUP, **{**defaults, **options}) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("user", [pytest.param("ghost", id="user"), pytest.param("app:ghosts", id="group")])
def test_unknown_names(user: str) -> None:
    with pytest.raises(BadConfig, match="no matching entries"):
        plan_user(PASSWD, GROUP, image_user=user, uid=None, gid=None, username="")


@pytest.mark.parametrize(
    ("wanted", "image", "expected"),
    [
        pytest.param(cri.RUNTIME_DEFAULT, "", 15, id="default"),
        pytest.param(cri.RUNTIME_DEFAULT, "SIGQUIT", 3, id="image"),
        pytest.param(cri.RUNTIME_DEFAULT, "3", 3, id="image-number"),
        pytest.param(cri.RUNTIME_DEFAULT, "int", 2, id="image-short"),
        pytest.param(cri.RUNTIME_DEFAULT, "SIGRTMIN+3", 37, id="image-realtime"),
        pytest.param(cri.RUNTIME_DEFAULT, "SIGWHAT", 15, id="image-nonsense"),
        pytest.param(cri.SIGUSR1, "SIGQUIT", 10, id="request"),
        pytest.param(cri.SIGRTMINPLUS3, "", 37, id="request-realtime"),
    ],
)
def test_stop_signal(wanted: cri.Signal.ValueType, image: str, expected: int) -> None:
    assert plan_stop_signal(cri.ContainerConfig(stop_signal=wanted), image) == expected


@pytest.mark.parametrize(
    ("code", "oom", "reason"),
    [
        pytest.param(0, False, "Completed", id="ok"),
        pytest.param(1, False, "Error", id="error"),
        pytest.param(137, True, "OOMKilled", id="oom"),
        pytest.param(0, True, "Completed", id="survived-oom-of-a-child"),
    ],
)
def test_exit_reason(code: int, oom: bool, reason: str) -> None:
    assert plan_exit_reason(code, oom) == reason


def test_limits_of_an_update() -> None:
    resources = cri.LinuxContainerResources(cpu_quota=-1, memory_limit_in_bytes=5)
    limits = plan_limits(resources, swap_accounting=True)
    assert (limits.cpu_quota_us, limits.memory_bytes, limits.memory_swap_bytes) == (UNLIMITED, 5, 5)
    assert plan_limits(resources, swap_accounting=False).memory_swap_bytes is None
    assert plan_limits(cri.LinuxContainerResources(), True).cpu_quota_us is None


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        pytest.param(
            "executable file `foo` not found in $PATH: No such file or directory\n",
            'exec: "foo": executable file not found in $PATH',
            id="name",
        ),
        pytest.param(
            "executable file `/a/b` not found in $PATH: No such file or directory",
            'exec: "/a/b": stat /a/b: no such file or directory',
            id="path",
        ),
        pytest.param("open executable: Operation not permitted", 'exec: "/etc": permission denied', id="folder"),
        pytest.param("", "unknown error", id="silence"),
        pytest.param("a\nb\n", "b", id="last-line"),
    ],
)
def test_start_errors(said: str, expected: str) -> None:
    assert plan_start_error(said, "/etc") == expected


def test_resolv_conf_and_hosts() -> None:
    dns = cri.DNSConfig(servers=["1.2.3.4", "5.6.7.8"], searches=["a", "b"], options=["ndots:5"])
    expected = "search a b\nnameserver 1.2.3.4\nnameserver 5.6.7.8\noptions ndots:5\n"
    assert plan_resolv_conf(dns) == expected
    assert plan_resolv_conf(cri.DNSConfig()) == ""
    assert plan_hosts("pod", "10.0.0.1").endswith("10.0.0.1\tpod\n")
    assert "pod" not in plan_hosts("pod", "")


def sample(at: int, cpu: int) -> Sample:
    return Sample(at, cpu, 0, 0, 0, 0, 0, 0, 0, 0, 0)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.integers(0, 10**12))
def test_rate_needs_a_second_and_is_never_negative(start: int, width: int, used: int) -> None:
    base, now = sample(start, 10**12), sample(start + width, 10**12 + used)
    kept, rate = plan_rate(base, now, None)
    if width < 1_000_000_000:
        assert (kept, rate) == (base, None)
    else:
        assert kept is now
        assert rate == used * 1_000_000_000 // width
