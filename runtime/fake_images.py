"""The image half of the fake runtime, and what both halves share: recorded calls, injected failures, held verbs.

For tests of callers; used through `runtime.fake.FakeRuntime`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from dataclasses import dataclass, field
from typing import Any

from proto.cri.v1 import cri_pb2 as cri
from proto.cri.v1 import cri_pb2_grpc
from runtime.door import Context, verb
from runtime.faults import PullUnknown, RuntimeFault
from runtime.images.reference import is_digest, normalize


@dataclass
class FakeImages(cri_pb2_grpc.ImageServiceServicer):
    """CRI ImageService in memory."""

    images: dict[str, cri.Image] = field(default_factory=dict)  # by id
    registry: dict[str, str] = field(default_factory=dict)  # normalised name → image id that a pull brings
    calls: list[tuple[str, Any]] = field(default_factory=list)
    _failures: dict[str, list[RuntimeFault]] = field(default_factory=dict)
    _held: dict[str, asyncio.Event] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.add_image("busybox")

    def add_image(self, name: str, *, present: bool = True, size: int = 1 << 20) -> str:
        """An image that is here, or (present=False) only in the registry. Returns its id."""
        reference = normalize(name)
        identity = "sha256:" + secrets.token_hex(32)
        self.registry[reference.tagged] = identity
        if present:
            self._bring(reference.tagged, identity, size)
        return identity

    def _bring(self, name: str, identity: str, size: int = 1 << 20) -> None:
        repository = name.rpartition(":")[0]
        self.images[identity] = cri.Image(
            id=identity, repo_tags=[name], repo_digests=[f"{repository}@{identity}"], size=size
        )

    def fail_next(self, name: str, code: str, message: str, times: int = 1) -> None:
        """Let the next calls of a verb fail."""
        self._failures.setdefault(name, []).extend([RuntimeFault(message, code)] * times)

    def hold(self, name: str) -> asyncio.Event:
        """Let calls of a verb wait until the returned event is set."""
        return self._held.setdefault(name, asyncio.Event())

    async def _called(self, name: str, request: Any) -> None:
        self.calls.append((name, request))
        if name in self._held:
            await self._held[name].wait()
        failures = self._failures.get(name)
        if failures:
            raise failures.pop(0)

    # images

    def _find_image(self, name: str) -> cri.Image | None:
        bare = name if name.startswith("sha256:") else f"sha256:{name}"
        if is_digest(bare):
            return self.images.get(bare)
        wanted = str(normalize(name))
        return next(
            (each for each in self.images.values() if wanted in each.repo_tags or wanted in each.repo_digests), None
        )

    @verb
    async def ListImages(self, request: cri.ListImagesRequest, context: Context) -> cri.ListImagesResponse:
        await self._called("ListImages", request)
        wanted = request.filter.image.image
        if wanted:
            found = self._find_image(wanted)
            return cri.ListImagesResponse(images=[found] if found else [])
        return cri.ListImagesResponse(images=list(self.images.values()))

    @verb
    async def ImageStatus(self, request: cri.ImageStatusRequest, context: Context) -> cri.ImageStatusResponse:
        await self._called("ImageStatus", request)
        return cri.ImageStatusResponse(image=self._find_image(request.image.image))

    @verb
    async def PullImage(self, request: cri.PullImageRequest, context: Context) -> cri.PullImageResponse:
        await self._called("PullImage", request)
        reference = normalize(request.image.image)
        identity = self.registry.get(reference.tagged)
        if identity is None:
            raise PullUnknown(f'failed to pull and unpack image "{reference}": {reference}: not found')
        if identity not in self.images:
            self._bring(reference.tagged, identity)
        return cri.PullImageResponse(image_ref=identity)

    @verb
    async def RemoveImage(self, request: cri.RemoveImageRequest, context: Context) -> cri.RemoveImageResponse:
        await self._called("RemoveImage", request)
        found = self._find_image(request.image.image)
        if found is not None:
            del self.images[found.id]
        return cri.RemoveImageResponse()

    @verb
    async def ImageFsInfo(self, request: cri.ImageFsInfoRequest, context: Context) -> cri.ImageFsInfoResponse:
        usage = cri.FilesystemUsage(timestamp=time.time_ns(), fs_id=cri.FilesystemIdentifier(mountpoint="/"))
        usage.used_bytes.value = sum(each.size for each in self.images.values())
        return cri.ImageFsInfoResponse(image_filesystems=[usage])
