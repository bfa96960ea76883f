"""What block volumes are made of, and how a machine gets one.

Owns the files of volumes and each machine's folder `devices/`, in which an attached volume is a link called by its id,
as /dev/disk/by-id shows disks: a driver on that machine can use what it finds there and nothing else. Two kinds, chosen
by `up` and told to this process by a flag (docs/adr/0011): a sparse file behind a loop device, with a file system of
its own and a real size, or a folder, where loop devices cannot be had. `FakeMedia` is for tests. All calls block, may
be repeated, and raise OSError.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

from linux import loop, mount

DEVICES: Final = "devices"


Farewell = Literal["ask", "pull", "bury"]
"""ask: a machine that has it mounted keeps it; pull: what is mounted there is dead from now on, but stays until the
machine unmounts it, lest somebody write into the folder below; bury: the machine is dead and has no mounts any more."""


class Media(Protocol):
    """Disks."""

    def shape(self, volume: str, size: int) -> None:
        """Have a disk of this size; never called with a smaller one than before."""

    def plug(self, volume: str, machine: str) -> None:
        """Let the machine see it."""

    def unplug(self, volume: str, machine: str, how: Farewell) -> bool:
        """Take it from the machine. False: it is in use there and was only asked for."""

    def remove(self, volume: str) -> None:
        """Destroy the data; nothing there is fine."""


class _Folders:
    """Where volumes and machines are on this host."""

    def __init__(self, volumes: Path, machines: Path) -> None:
        self._volumes = volumes
        self._machines = machines

    def _disk(self, volume: str) -> Path:
        return self._volumes / volume

    def _device(self, volume: str, machine: str) -> Path:
        return self._machines / machine / DEVICES / volume

    def _link(self, volume: str, machine: str, target: str) -> None:
        link = self._device(volume, machine)
        link.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if link.is_symlink() and os.readlink(link) == target:
            return
        scratch = link.with_name(f".{volume}")
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(target)
        scratch.replace(link)

    def _unlink(self, volume: str, machine: str) -> None:
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            self._device(volume, machine).unlink()

    def _mounts(self, machine: str, is_its: Callable[[os.stat_result], bool]) -> Iterator[str]:
        """Mount points of the machine that are the disk's."""
        folder = str(self._machines / machine)
        for point in mount.mounts_below(folder):
            with contextlib.suppress(OSError):  # gone meanwhile, or the dead file system of another disk
                if is_its(Path(point).stat()):
                    yield point


class LoopMedia(_Folders):
    """A sparse file behind a loop device."""

    def shape(self, volume: str, size: int) -> None:
        self._volumes.mkdir(parents=True, exist_ok=True, mode=0o700)
        disk = self._disk(volume)
        with disk.open("ab") as file:
            if file.tell() < size:
                os.truncate(file.fileno(), size)
        device = loop.find(str(disk))
        if device:
            loop.refresh_size(device)

    def plug(self, volume: str, machine: str) -> None:
        self._link(volume, machine, loop.attach(str(self._disk(volume))))

    def unplug(self, volume: str, machine: str, how: Farewell) -> bool:
        device = loop.find(str(self._disk(volume)))
        if device:
            number = Path(device).stat().st_rdev
            filesystems = mount.mounts_of(number, str(self._machines / machine))
            raw = list(self._mounts(machine, lambda found: found.st_rdev == number))
            unseen = not filesystems and loop.is_mounted(device)  # of it the file would have two writers
            if (filesystems or raw or unseen) and how == "ask":
                return False
            if filesystems:
                self._shut_down(filesystems[0])
            if raw or unseen:
                loop.cut_off(device)
            if how == "bury":
                for point in (*filesystems, *raw):
                    mount.umount(point)
        self._unlink(volume, machine)
        if device:
            loop.detach(device)
        return True

    @staticmethod
    def _shut_down(point: str) -> None:
        try:
            loop.shut_down(point)
        except OSError as error:
            if error.errno != errno.EIO:  # it has been before
                raise

    def remove(self, volume: str) -> None:
        disk = self._disk(volume)
        device = loop.find(str(disk))
        if device:
            loop.detach(device)
        disk.unlink(missing_ok=True)


class FolderMedia(_Folders):
    """A folder: its data outlives machines, its size is only a number."""

    def shape(self, volume: str, size: int) -> None:
        self._disk(volume).mkdir(parents=True, exist_ok=True, mode=0o755)

    def plug(self, volume: str, machine: str) -> None:
        self._link(volume, machine, str(self._disk(volume)))

    def unplug(self, volume: str, machine: str, how: Farewell) -> bool:
        disk = self._disk(volume)
        if disk.exists():
            own = disk.stat()
            mounts = list(self._mounts(machine, lambda found: os.path.samestat(found, own)))
            if mounts and how == "ask":
                return False
            for point in mounts:
                if how == "bury":
                    mount.umount(point)
                else:
                    mount.make_read_only(point)
        self._unlink(volume, machine)
        return True

    def remove(self, volume: str) -> None:
        disk = self._disk(volume)
        if disk.exists():
            shutil.rmtree(disk)


@dataclass
class FakeMedia:
    """Disks as dictionaries. `mounted`: what machines use; `broken`: what fails, by verb."""

    sizes: dict[str, int] = field(default_factory=dict)
    plugged: set[tuple[str, str]] = field(default_factory=set)
    mounted: set[tuple[str, str]] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    pulled: list[tuple[str, str]] = field(default_factory=list)

    def _try(self, verb: str) -> None:
        if verb in self.broken:
            raise OSError(f"{verb} is out of order")

    def shape(self, volume: str, size: int) -> None:
        self._try("shape")
        self.sizes[volume] = size

    def plug(self, volume: str, machine: str) -> None:
        self._try("plug")
        self.plugged.add((volume, machine))

    def unplug(self, volume: str, machine: str, how: Farewell) -> bool:
        self._try("unplug")
        used = (volume, machine)
        if used in self.mounted:
            if how == "ask":
                return False
            self.mounted.discard(used)
            self.pulled.append(used)
        self.plugged.discard(used)
        return True

    def remove(self, volume: str) -> None:
        self._try("remove")
        self.sizes.pop(volume, None)


def media(kind: str, volumes: Path, machines: Path) -> Media:
    """`loop` or `folder`."""
    return LoopMedia(volumes, machines) if kind == "loop" else FolderMedia(volumes, machines)
