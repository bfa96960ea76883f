"""Where CSI volumes lie on the node, and the note beside each that survives the kubelet.

Paths and the name of the note (vol_data.json) are upstream's, because drivers and their users know them. Blocking but
small. Called by `devices` and `pod_csi`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

NOTE: Final = "vol_data.json"
PLUGIN: Final = "kubernetes.io~csi"


class Note(msgspec.Struct, rename="camel", omit_defaults=True):
    """What is needed to give a volume back when nobody remembers it."""

    driver_name: str
    volume_handle: str
    spec_vol_id: str = msgspec.field(name="specVolID", default="")
    node_name: str = ""
    attachment_id: str = msgspec.field(name="attachmentID", default="")
    """Empty for volumes that are not attached."""
    volume_lifecycle_mode: str = ""


@dataclass(frozen=True, slots=True)
class Held:
    """A pod's hold on a volume, as the disk tells it. `path`: what the driver was told to publish to."""

    folder: Path
    path: Path
    note: Note | None


class Folders:
    """Paths of one node."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._csi = root / "plugins" / "kubernetes.io" / "csi"

    # ---- of a volume on this node ----

    def device(self, driver: str, handle: str, name: str, *, block: bool) -> Path:
        """The folder of a volume's note."""
        if block:
            return self._csi / "volumeDevices" / name / "data"
        return self._csi / driver / hashlib.sha256(handle.encode()).hexdigest()

    def staging(self, driver: str, handle: str, name: str, *, block: bool) -> Path:
        if block:
            return self._csi / "volumeDevices" / "staging" / name
        return self.device(driver, handle, name, block=False) / "globalmount"

    def devices(self) -> Iterator[tuple[Path, Note, bool]]:
        """(folder, note, block) of every volume that was taken in; folders without a readable note are left out."""
        for path in sorted(self._csi.glob(f"*/*/{NOTE}")):
            if (note := read(path.parent)) is not None:
                yield path.parent, note, False
        for path in sorted(self._csi.glob(f"volumeDevices/*/data/{NOTE}")):
            if (note := read(path.parent)) is not None:
                yield path.parent, note, True

    # ---- of a pod's volume ----

    def pod(self, uid: str, name: str) -> Path:
        """The folder of a pod's hold on a file system."""
        return self._root / "pods" / uid / "volumes" / PLUGIN / name

    def target(self, uid: str, name: str) -> Path:
        return self.pod(uid, name) / "mount"

    def pod_device(self, uid: str, name: str) -> Path:
        """The link of a pod's hold on a block volume."""
        return self._root / "pods" / uid / "volumeDevices" / PLUGIN / name

    def device_target(self, uid: str, name: str) -> Path:
        return self._csi / "volumeDevices" / "publish" / name / uid

    def held(self, uid: str) -> list[Held]:
        """All holds of a pod."""
        pod = self._root / "pods" / uid
        found = [Held(folder, folder / "mount", read(folder)) for folder in _entries(pod / "volumes" / PLUGIN)]
        for link in _entries(pod / "volumeDevices" / PLUGIN):
            note = read(self.device("", "", link.name, block=True))
            found.append(Held(link, self.device_target(uid, link.name), note))
        return found

    def pods(self) -> list[str]:
        """The uids of pods that have something here."""
        return [entry.name for entry in _entries(self._root / "pods")]


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except FileNotFoundError:
        return []


def write(folder: Path, note: Note) -> None:
    """Leave the note, whole or not at all. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o750)
    scratch = folder / f".{NOTE}"
    scratch.write_bytes(msgspec.json.encode(note))
    scratch.rename(folder / NOTE)


def read(folder: Path) -> Note | None:
    """None where there is none, or none that can be read."""
    try:
        return msgspec.json.decode((folder / NOTE).read_bytes(), type=Note)
    except (OSError, msgspec.MsgspecError):
        return None


def remove(folder: Path) -> None:
    """Take the note and its (empty) folder away. Raises OSError for a folder that is not empty."""
    for name in (NOTE, f".{NOTE}"):
        (folder / name).unlink(missing_ok=True)
    if folder.is_dir():
        folder.rmdir()


def remove_target(path: Path) -> None:
    """Take away what a driver published to and has let go of; never what is in it. Raises OSError."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()
    else:
        path.unlink(missing_ok=True)
