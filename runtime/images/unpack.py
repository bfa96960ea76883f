"""Unpack one image layer into a folder that overlayfs can stack: standard library only, no way out of the folder.

Whiteouts become 0/0 character devices and opaque marks extended attributes, as overlayfs spells them. Nothing is ever
written through a symbolic link of the layer: every parent is opened below the target one component at a time. Runs in
the caller's process for small layers and as a script (`unpack.py BLOB TARGET`, prints the uncompressed digest) for
large ones. Called by the content store.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import sys
import tarfile
import zlib
from contextlib import suppress
from typing import IO, Any

_GZIP, _ZSTD, _XZ, _BZIP2 = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"\xfd7zXZ", b"BZh"
_XATTR = "SCHILY.xattr."
_CHUNK = 1 << 20
MAX_DEPTH = 256


class LayerError(Exception):
    """The layer cannot or must not be unpacked."""


class _Hashing:
    """A reader that hashes what passes, for a digest of the uncompressed layer."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.hasher = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        data = self._source.read(size)
        self.hasher.update(data)
        return data


def split(name: str) -> list[str]:
    """Path components of an archive member. Raises LayerError when it points upwards."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise LayerError(f"entry {name!r} escapes the layer")
    if len(parts) > MAX_DEPTH or "\0" in name:
        raise LayerError("entry with an unusable name")
    return parts


class _Tree:
    """The target folder, through descriptors only."""

    def __init__(self, target: str) -> None:
        os.makedirs(target)
        self.root = os.open(target, os.O_PATH | os.O_DIRECTORY)
        os.chmod(target, 0o755)
        self._parent: tuple[tuple[str, ...], int] | None = None

    def parent(self, parts: list[str]) -> int:
        """Descriptor of the folder holding the entry, created if missing; a link on the way is an error."""
        key = tuple(parts[:-1])
        if self._parent is not None:
            if self._parent[0] == key:
                return self._parent[1]
            os.close(self._parent[1])
            self._parent = None
        fd = os.dup(self.root)
        try:
            for part in key:
                try:
                    inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                except FileNotFoundError:
                    os.mkdir(part, 0o755, dir_fd=fd)
                    inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                except (NotADirectoryError, OSError) as error:
                    raise LayerError(
                        f"entry {'/'.join(parts)!r} leads through {part!r}, no folder of the layer"
                    ) from error
                os.close(fd)
                fd = inner
        except BaseException:
            os.close(fd)
            raise
        self._parent = (key, fd)
        return fd

    def folder(self, parts: list[str]) -> int | None:
        """Descriptor of a folder, or None when a later entry put something else there."""
        fd = os.dup(self.root)
        for part in parts:
            try:
                inner = os.open(part, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
            except OSError:
                return None
            finally:
                os.close(fd)
            fd = inner
        return fd

    def close(self) -> None:
        if self._parent is not None:
            os.close(self._parent[1])
        os.close(self.root)


def _clear(name: str, parent: int, keep_folder: bool) -> bool:
    """Make room for an entry: later ones replace earlier ones. True when a folder was kept."""
    try:
        mode = os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISDIR(mode):
        if keep_folder:
            return True
        _remove_tree(name, parent)
        return False
    os.unlink(name, dir_fd=parent)
    return False


def _remove_tree(name: str, parent: int) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
    try:
        for entry in os.listdir(fd):
            if stat.S_ISDIR(os.stat(entry, dir_fd=fd, follow_symlinks=False).st_mode):
                _remove_tree(entry, fd)
            else:
                os.unlink(entry, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=parent)


def _through(parent: int, name: str) -> str:
    """A path to an entry for calls without dir_fd; the kernel resolves the descriptor, not a name of the layer."""
    return f"/proc/self/fd/{parent}/{name}"


def _extract(
    archive: tarfile.TarFile, member: tarfile.TarInfo, tree: _Tree, folders: list[tuple[list[str], tarfile.TarInfo]]
) -> None:
    parts = split(member.name)
    if not parts:
        if member.isdir():
            folders.append((parts, member))
        return
    parent, name = tree.parent(parts), parts[-1]
    if name == ".wh..wh..opq":
        os.setxattr(f"/proc/self/fd/{parent}", "trusted.overlay.opaque", b"y")
        return
    if name.startswith(".wh..wh."):
        return  # bookkeeping of aufs
    if name.startswith(".wh."):
        _clear(name[4:], parent, keep_folder=False)
        os.mknod(name[4:], stat.S_IFCHR, os.makedev(0, 0), dir_fd=parent)
        return
    kept = _clear(name, parent, keep_folder=member.isdir())
    if member.isdir():
        if not kept:
            os.mkdir(name, 0o755, dir_fd=parent)
        folders.append((parts, member))
    elif member.isreg():
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=parent)
        with os.fdopen(fd, "wb") as target:
            source = archive.extractfile(member)
            while source is not None and (data := source.read(_CHUNK)):
                target.write(data)
    elif member.issym():
        os.symlink(member.linkname, name, dir_fd=parent)
    elif member.islnk():
        origin = split(member.linkname)
        if not origin:
            raise LayerError(f"hard link {member.name!r} to the root")
        source_dir = os.dup(parent)
        try:
            origin_parent = tree.parent(origin)
            os.link(origin[-1], name, src_dir_fd=origin_parent, dst_dir_fd=source_dir, follow_symlinks=False)
        except FileNotFoundError as error:
            raise LayerError(f"hard link {member.name!r} to {member.linkname!r}, which the layer lacks") from error
        finally:
            os.close(source_dir)
        return
    elif member.ischr() or member.isblk():
        kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
        os.mknod(name, kind | 0o600, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
    elif member.isfifo():
        os.mkfifo(name, 0o600, dir_fd=parent)
    else:
        return
    if not member.isdir():
        _finish(parent, name, member)


def _finish(parent: int, name: str, member: tarfile.TarInfo) -> None:
    os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
    path = _through(parent, name)
    if not member.issym():
        os.chmod(path, member.mode & 0o7777)
    _extended(path, member, follow=False)
    with suppress(OverflowError, OSError):
        os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)


def _finish_folder(fd: int | None, member: tarfile.TarInfo) -> None:
    """By descriptor, never by name: the name may be a link out of the layer by now."""
    if fd is None:
        return
    path = f"/proc/self/fd/{fd}"
    try:
        os.chown(path, member.uid, member.gid)
        os.chmod(path, member.mode & 0o7777)
        _extended(path, member, follow=True)
        with suppress(OverflowError, OSError):
            os.utime(path, (member.mtime, member.mtime))
    finally:
        os.close(fd)


def _extended(path: str, member: tarfile.TarInfo, *, follow: bool) -> None:
    for key, value in member.pax_headers.items():
        if key.startswith(_XATTR):
            with suppress(OSError):
                os.setxattr(path, key[len(_XATTR) :], value.encode("utf-8", "surrogateescape"), follow_symlinks=follow)


def unpack(blob: str, target: str) -> str:
    """Unpack the layer file into the new folder `target`; returns the digest of the uncompressed layer."""
    with open(blob, "rb") as raw:  # noqa: PTH123
        magic = raw.read(6)
        raw.seek(0)
        if magic.startswith(_ZSTD):
            raise LayerError("layer is compressed with zstd, which is not supported; push the image with gzip layers")
        if magic.startswith((_XZ, _BZIP2)):
            raise LayerError("layer compression is not supported; use gzip or none")
        source: Any = gzip.GzipFile(fileobj=raw) if magic.startswith(_GZIP) else raw
        hashing = _Hashing(source)
        tree = _Tree(target)
        folders: list[tuple[list[str], tarfile.TarInfo]] = []
        try:
            with tarfile.open(fileobj=hashing, mode="r|", bufsize=1 << 18) as archive:  # type: ignore[call-overload]
                for member in archive:
                    _extract(archive, member, tree, folders)
                    archive.members = []  # else a large layer keeps every header in memory
            for parts, member in folders:  # last, so that read-only folders can be filled and keep their times
                _finish_folder(tree.folder(parts), member)
            while hashing.read(_CHUNK):
                pass
        except (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error, UnicodeError) as error:
            raise LayerError(f"layer is damaged: {error}") from error
        finally:
            tree.close()
    return "sha256:" + hashing.hasher.hexdigest()


if __name__ == "__main__":
    try:
        print(unpack(sys.argv[1], sys.argv[2]))
    except (LayerError, OSError) as failure:
        sys.exit(str(failure))
