"""Images for tests: made from the machine's static busybox, as docker-save and OCI archives, and a real registry."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import shutil
import socket
import subprocess
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.harness.nanokube import STATE

MANIFEST = "application/vnd.oci.image.manifest.v1+json"


@dataclass(frozen=True)
class Image:
    """One layer, its config and its manifest, as bytes."""

    layer: bytes
    config: bytes
    manifest: bytes

    @staticmethod
    def digest(blob: bytes) -> str:
        return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def build(marker: str) -> Image:
    """busybox with a file `/marker`, whose default command sleeps."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:

        def add(name: str, data: bytes = b"", link: str = "", folder: bool = False) -> None:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.size, entry.linkname = 0o755, len(data), link
            entry.type = tarfile.SYMTYPE if link else tarfile.DIRTYPE if folder else tarfile.REGTYPE
            tar.addfile(entry, io.BytesIO(data))

        add("bin", folder=True)
        add("bin/busybox", Path(shutil.which("busybox") or "/bin/busybox").read_bytes())
        for applet in ("sh", "cat", "sleep"):
            add(f"bin/{applet}", link="busybox")
        add("marker", marker.encode())
    layer = raw.getvalue()
    config = json.dumps(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "Cmd": ["sleep", "3600"]},
            "rootfs": {"type": "layers", "diff_ids": [Image.digest(layer)]},
        }
    ).encode()
    manifest = json.dumps(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": Image.digest(config),
                "size": len(config),
            },
            "layers": [
                {
                    "mediaType": "application/vnd.oci.image.layer.v1.tar",
                    "digest": Image.digest(layer),
                    "size": len(layer),
                }
            ],
        }
    ).encode()
    return Image(layer, config, manifest)


def _archive(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    return path


def docker_archive(image: Image, name: str, path: Path) -> Path:
    """What `docker save` writes."""
    listing = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"]}]).encode()
    return _archive(path, {"manifest.json": listing, "config.json": image.config, "layer.tar": image.layer})


def oci_archive(image: Image, name: str, path: Path) -> Path:
    """An OCI layout in a tar."""
    blobs = {f"blobs/sha256/{Image.digest(blob)[7:]}": blob for blob in (image.layer, image.config, image.manifest)}
    annotations = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    entry = {
        "mediaType": MANIFEST,
        "digest": Image.digest(image.manifest),
        "size": len(image.manifest),
        "annotations": annotations,
    }
    index = json.dumps({"schemaVersion": 2, "manifests": [entry]}).encode()
    return _archive(path, {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": index, **blobs})


class Registry:
    """Debian's docker-registry on loopback, without TLS."""

    def __init__(self, address: str) -> None:
        self.address = address

    def _send(self, method: str, url: str, body: bytes | None = None, kind: str = "") -> Any:
        request = urllib.request.Request(url, data=body, method=method, headers={"Content-Type": kind} if kind else {})
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.headers

    def push(self, image: Image, repository: str, tag: str) -> str:
        """Upload by the distribution API; returns the reference to pull."""
        base = f"http://{self.address}/v2/{repository}"
        for blob in (image.layer, image.config):
            location = self._send("POST", f"{base}/blobs/uploads/", b"")["Location"]
            url = location if location.startswith("http") else f"http://{self.address}{location}"
            separator = "&" if "?" in url else "?"
            self._send("PUT", f"{url}{separator}digest={Image.digest(blob)}", blob, "application/octet-stream")
        self._send("PUT", f"{base}/manifests/{tag}", image.manifest, MANIFEST)
        return f"{self.address}/{repository}:{tag}"


def registry_binary() -> str:
    """The machine's docker-registry, or the one that `./nanokube test` brought."""
    private = STATE / "tools" / "docker-registry" / "usr" / "bin" / "docker-registry"
    found = str(private) if private.exists() else shutil.which("docker-registry")
    assert found, "no docker-registry: run `./nanokube test`, which brings one"
    return found


@contextlib.contextmanager
def registry(folder: Path) -> Iterator[Registry]:
    """A registry for the length of the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "registry.yml"
    config.write_text(
        f"version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\n"
        f"storage: {{filesystem: {{rootdirectory: {folder / 'registry'}}}}}\nhttp: {{addr: '{address}'}}\n"
    )
    with (folder / "registry.log").open("wb") as log:
        process = subprocess.Popen([registry_binary(), "serve", str(config)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 10
        while True:
            try:
                with urllib.request.urlopen(f"http://{address}/v2/", timeout=1):
                    break
            except OSError:
                assert process.poll() is None and time.monotonic() < deadline, (folder / "registry.log").read_text()
                time.sleep(0.05)
        yield Registry(address)
    finally:
        process.terminate()
        process.wait(10)
