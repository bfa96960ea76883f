"""Images: names, content shared by a cluster's nodes, archives, the registry puller and the built-in busybox.

Usable as a library without a running node: `ContentStore(path)` with `archive.load(store, file)` and `store.loaded()`.
Content is written once and renamed into place, under file locks, so processes may share a store.
"""

from runtime.images.archive import load
from runtime.images.reference import Reference, normalize
from runtime.images.store import ContentStore, ImageRecord

__all__ = ["ContentStore", "ImageRecord", "Reference", "load", "normalize"]
