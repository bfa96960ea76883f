"""What a cluster needs from the machine: checks, and installs from the machine's own distribution.

Owns the tools folder under the state root. etcd 3.5, kubectl and Prometheus are unpacked there from a newer suite of
the same distribution with a private apt configuration, so that the system itself is left alone; the system's own etcd
is the announced fallback. A warm start checks a few paths and installs nothing.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cli.errors import CommandError
from cli.layout import state_root

Say = Callable[[str], None]
APT_TIMEOUT = 600.0
NEWER_SUITE = "trixie"  # Debian 13: etcd 3.5.16, kubectl 1.32
OLDEST_PROMETHEUS = (2, 43)  # the first with scrape_config_files
OLDEST_ETCD = (3, 5, 3)  # 3.5.0-3.5.2 could lose data (etcd-io/etcd#13766)

# program -> Debian package
_BASE = {"ip": "iproute2", "nft": "nftables"}
_WORKER = {"conmon": "conmon", "crun": "crun", "busybox": "busybox-static", "conntrack": "conntrack"}


def require_root() -> None:
    """Raises CommandError when the process may not make namespaces and cgroups."""
    if os.geteuid() != 0:
        raise CommandError(
            "nanokube needs root: it makes network namespaces, cgroups and containers (try: sudo ./nanokube …)"
        )


def _which(program: str) -> str | None:
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/local/sbin")


def _busybox_is_static() -> bool:
    """The built-in image is a single file, so a dynamically linked busybox will not do."""
    path = _which("busybox")
    if path is None:
        return False
    with Path(path).open("rb") as file:
        return b"/ld-linux" not in file.read(4096)


def missing_packages(*, workers: bool, more: Mapping[str, str] | None = None) -> list[str]:
    """Debian packages whose programs this machine lacks. `more`: program -> package that this cluster needs too."""
    wanted = {**_BASE, **(_WORKER if workers else {}), **(more or {})}
    missing = [package for program, package in wanted.items() if _which(program) is None]
    if workers and "busybox-static" not in missing and not _busybox_is_static():
        missing.append("busybox-static")
    return missing


def _run(argv: Sequence[str], what: str, **env: str) -> str:
    """Run an install step. Raises CommandError with the end of its output."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=APT_TIMEOUT,
            env={**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C", **env},
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"{what}: {error}") from error
    if done.returncode != 0:
        tail = " | ".join(done.stdout.strip().splitlines()[-3:])
        raise CommandError(f"{what} failed ({done.returncode}): {tail}")
    return done.stdout


def install_packages(packages: Sequence[str], say: Say) -> None:
    """Install distribution packages. Raises CommandError where there is no apt."""
    if not packages:
        return
    if shutil.which("apt-get") is None:
        raise CommandError(f"missing: {', '.join(packages)}; install them with your distribution's package manager")
    say(f"installing {', '.join(packages)}")
    install = ["apt-get", "install", "-y", "-q", "--no-install-recommends", *packages]
    try:
        _run(install, "apt-get install")
    except CommandError:  # most often a package list that is missing or old
        _run(["apt-get", "update", "-q"], "apt-get update")
        _run(install, "apt-get install")


class NewerSuite:
    """A private apt root that reads another suite of this machine's own Debian mirror."""

    def __init__(self, suite: str = NEWER_SUITE) -> None:
        self.suite = suite
        self.root = state_root() / "tools" / f"apt-{suite}"

    @staticmethod
    def mirror() -> str | None:
        """The mirror this machine installs Debian from, or None when it is not a Debian machine with apt."""
        if shutil.which("apt-get") is None:
            return None
        listing = _run(
            ["apt-get", "indextargets", "--format", "$(ORIGIN) $(REPO_URI)", "Created-By: Packages"],
            "apt-get indextargets",
        )
        for line in listing.splitlines():
            origin, _, uri = line.partition(" ")
            if origin == "Debian" and "security" not in uri:
                return uri.rstrip("/")
        return None

    def _options(self) -> list[str]:
        places = {
            "Dir::Etc::SourceList": self.root / "sources.list",
            "Dir::Etc::SourceParts": self.root / "none",
            "Dir::Etc::Preferences": self.root / "none",
            "Dir::Etc::PreferencesParts": self.root / "none",
            "Dir::State": self.root / "state",
            "Dir::State::status": self.root / "status",
            "Dir::Cache": self.root / "cache",
            "APT::Sandbox::User": "root",
            "APT::Update::Post-Invoke": "",
            "DPkg::Post-Invoke": "",
        }
        return [word for key, value in places.items() for word in ("-o", f"{key}={value}")]

    def download(self, package: str, target: Path) -> None:
        """Unpack one package of the suite into `target`. Raises CommandError."""
        mirror = self.mirror()
        if mirror is None:
            raise CommandError("no Debian mirror among this machine's package sources")
        for part in ("state/lists/partial", "cache/archives/partial", "deb"):
            (self.root / part).mkdir(parents=True, exist_ok=True)
        (self.root / "status").touch()
        keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        signed = f" [signed-by={keyring}]" if keyring.exists() else ""
        (self.root / "sources.list").write_text(f"deb{signed} {mirror} {self.suite} main\n")
        if not any((self.root / "state/lists").glob("*_Packages*")):
            _run(["apt-get", *self._options(), "-q", "update"], f"reading the package list of Debian {self.suite}")
        folder = self.root / "deb"
        shell = 'cd "$1" && shift && exec "$@"'
        _run(
            ["sh", "-c", shell, "sh", str(folder), "apt-get", *self._options(), "-q", "download", package],
            f"downloading {package} of Debian {self.suite}",
        )
        found = sorted(folder.glob(f"{package}_*.deb"))
        if not found:
            raise CommandError(f"downloading {package} of Debian {self.suite} left no file")
        scratch = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.rmtree(scratch, ignore_errors=True)
        _run(["dpkg-deb", "-x", str(found[-1]), str(scratch)], f"unpacking {package}")
        shutil.rmtree(target, ignore_errors=True)
        scratch.rename(target)
        found[-1].unlink()


def etcd_version(binary: str) -> tuple[int, ...]:
    """(3, 5, 16) of an etcd binary. Raises CommandError."""
    return _version(binary, r"etcd Version: (\d+)\.(\d+)\.(\d+)")


def _version(binary: str, pattern: str) -> tuple[int, ...]:
    match = re.search(pattern, _run([binary, "--version"], binary))
    if match is None:
        raise CommandError(f"{binary}: cannot tell its version")
    return tuple(int(part) for part in match.groups())


def etcd(say: Say) -> str:
    """Path of an etcd binary, brought here if needed: 3.5.3 or newer, else the system's with a warning."""
    private = state_root() / "tools" / "etcd" / "usr" / "bin" / "etcd"
    if private.exists():
        return str(private)
    system = _which("etcd")
    if system and etcd_version(system) >= OLDEST_ETCD:
        return system
    try:
        say("bringing etcd 3.5 from a newer suite into the state folder")
        NewerSuite().download("etcd-server", private.parents[2])
        return str(private)
    except CommandError as error:
        say(f"warning: {error}; using the distribution's etcd, which is slower")
    if system is None:
        install_packages(["etcd-server"], say)
        system = _which("etcd")
    if system is None:
        raise CommandError("no etcd: install etcd 3.5 or newer and put it on PATH")
    return system


def kubectl(say: Say) -> str:
    """Path of a kubectl, brought into the state folder when the machine has none."""
    found = _which("kubectl")
    private = state_root() / "tools" / "kubectl" / "usr" / "bin" / "kubectl"
    if found is None and not private.exists():
        say("bringing kubectl from the distribution into the state folder")
        NewerSuite().download("kubectl", private.parents[2])
    return found or str(private)


def prometheus_binary() -> str:
    """Where Prometheus is, or will be once it has been brought: the state folder's own, so that no service is."""
    return str(state_root() / "tools" / "prometheus" / "usr" / "bin" / "prometheus")


def prometheus(say: Say) -> None:
    """Have a Prometheus in the state folder: the system's when it is new enough. Raises CommandError."""
    private = Path(prometheus_binary())
    if private.exists():
        return
    system = _which("prometheus")
    if system and _version(system, r"prometheus, version (\d+)\.(\d+)") >= OLDEST_PROMETHEUS:
        private.parent.mkdir(parents=True, exist_ok=True)
        private.unlink(missing_ok=True)  # a link to one that is gone
        private.symlink_to(system)
        return
    say("bringing Prometheus from the distribution into the state folder")
    NewerSuite().download("prometheus", private.parents[2])


def registry(say: Say) -> str:
    """Path of docker-registry (tests push images to it), unpacked into the state folder."""
    private = state_root() / "tools" / "docker-registry" / "usr" / "bin" / "docker-registry"
    if not private.exists():
        say("bringing a container registry for the tests into the state folder")
        NewerSuite().download("docker-registry", private.parents[2])
    return str(private)
