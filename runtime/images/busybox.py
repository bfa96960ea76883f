"""The built-in image: docker.io/library/busybox:latest made from this machine's static busybox, without any network.

Deterministic for one busybox binary. Blocking, about 0.1 s, once per image store. Called at runtime start.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

import msgspec

from runtime.images.archive import ARCHITECTURE
from runtime.images.store import ContentStore, ImageRecord, digest_of

NAME = "docker.io/library/busybox:latest"
_CANDIDATES = ("/bin/busybox", "/usr/bin/busybox")
_FOLDERS = {"bin": 0o755, "dev": 0o755, "etc": 0o755, "home": 0o755, "lib": 0o755, "proc": 0o755, "root": 0o700,
            "sys": 0o755, "tmp": 0o1777, "usr": 0o755, "usr/bin": 0o755, "usr/sbin": 0o755, "sbin": 0o755,
            "var": 0o755, "var/www": 0o755, "var/spool": 0o755, "var/spool/mail": 0o755}  # fmt: skip
_FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n"
    "bin:x:2:2:bin:/bin:/bin/false\nsys:x:3:3:sys:/dev:/bin/false\nmail:x:8:8:mail:/var/spool/mail:/bin/false\n"
    "www-data:x:33:33:www-data:/var/www:/bin/false\noperator:x:37:37:Operator:/var:/bin/false\n"
    "nobody:x:65534:65534:nobody:/home:/bin/false\n",
    "etc/group": "root:x:0:\ndaemon:x:1:\nbin:x:2:\nsys:x:3:\ntty:x:5:\nmail:x:8:\nwheel:x:10:root\n"
    "www-data:x:33:\noperator:x:37:\nusers:x:100:\nnogroup:x:65534:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


def find_busybox() -> str | None:
    """Path of a static busybox on this machine."""
    found = next((path for path in _CANDIDATES if os.access(path, os.X_OK)), None) or shutil.which("busybox")
    return found


def make_layer(binary: bytes, applets: list[str]) -> bytes:
    """The root file system as a tar. Pure."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, mode: int, kind: bytes, data: bytes = b"", link: str = "") -> None:
            entry = tarfile.TarInfo(name)
            entry.mode, entry.type, entry.size, entry.linkname = mode, kind, len(data), link
            entry.uname = entry.gname = "root"
            archive.addfile(entry, io.BytesIO(data))

        for folder, mode in _FOLDERS.items():
            add(folder, mode, tarfile.DIRTYPE)
        add("bin/busybox", 0o755, tarfile.REGTYPE, binary)
        for applet in sorted(set(applets) - {"busybox"}):
            add(f"bin/{applet}", 0o777, tarfile.SYMTYPE, link="busybox")
        add("usr/bin/env", 0o777, tarfile.SYMTYPE, link="../../bin/busybox")
        for name, text in _FILES.items():
            add(name, 0o644, tarfile.REGTYPE, text.encode())
    return buffer.getvalue()


def ensure(store: ContentStore) -> ImageRecord | None:
    """Make the image unless a busybox:latest is there; None when this machine has no busybox."""
    known = store.loaded().names.get(NAME)
    if known is not None and known in store.ids():
        return store.image(known)
    path = find_busybox()
    if path is None:
        return None
    with store.lock("busybox"):
        known = store.loaded().names.get(NAME)
        if known is not None and known in store.ids():
            return store.image(known)
        listed = subprocess.run([path, "--list"], capture_output=True, text=True, timeout=10, check=True)
        layer = make_layer(Path(path).read_bytes(), listed.stdout.split())
        blob = store.put_blob(io.BytesIO(layer))
        config = msgspec.json.encode(
            {
                "architecture": ARCHITECTURE,
                "os": "linux",
                "created": "1970-01-01T00:00:00Z",
                "config": {
                    "Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
                    "Cmd": ["sh"],
                },
                "rootfs": {"type": "layers", "diff_ids": [digest_of(layer)]},
            }
        )
        store.put_blob(io.BytesIO(config))
        image = store.add_image(config, [blob])
        store.add_loaded([NAME], image.id, built_in=True)
        return image
