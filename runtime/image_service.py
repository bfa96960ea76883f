"""The CRI's ImageService and NodeImages over the image table, the puller and the archive loader.

Owns the translation between messages and verbs. Called by the kubelet and the command line.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

from proto.cri.v1 import cri_pb2 as cri
from proto.cri.v1 import cri_pb2_grpc
from proto.runtime.v1 import images_pb2, images_pb2_grpc
from runtime.door import Context, verb
from runtime.engine import Engine
from runtime.faults import BadConfig
from runtime.images import archive
from runtime.images.puller import Puller
from runtime.images.table import NodeImage


def image_message(image: NodeImage) -> cri.Image:
    """An image as the CRI shows it. Pure."""
    record = image.record
    message = cri.Image(
        id=record.id,
        repo_tags=image.tags,
        repo_digests=image.digests,
        size=max(1, record.size),
        spec=cri.ImageSpec(image=record.id),
        pinned=image.loaded,
    )
    user = record.config.user.partition(":")[0]
    if user.isdigit():
        message.uid.value = int(user)
    elif user:
        message.username = user
    return message


class ImageService(cri_pb2_grpc.ImageServiceServicer):
    """CRI v1 ImageService."""

    def __init__(self, engine: Engine, puller: Puller) -> None:
        self._engine = engine
        self._puller = puller

    @verb
    async def ListImages(self, request: cri.ListImagesRequest, context: Context) -> cri.ListImagesResponse:
        wanted = request.filter.image.image
        if wanted:
            found = self._engine.images.find(wanted)
            return cri.ListImagesResponse(images=[image_message(found)] if found else [])
        return cri.ListImagesResponse(images=[image_message(each) for each in self._engine.images.images()])

    @verb
    async def ImageStatus(self, request: cri.ImageStatusRequest, context: Context) -> cri.ImageStatusResponse:
        found = self._engine.images.find(request.image.image)
        if found is None:
            return cri.ImageStatusResponse()
        response = cri.ImageStatusResponse(image=image_message(found))
        if request.verbose:
            response.info["nanokube.loaded"] = json.dumps(found.loaded)
            response.info["nanokube.layers"] = json.dumps(len(found.record.layers))
            if found.note:
                response.info["nanokube.pull"] = found.note
        return response

    @verb
    async def PullImage(self, request: cri.PullImageRequest, context: Context) -> cri.PullImageResponse:
        return cri.PullImageResponse(image_ref=await self._puller.pull(request.image.image, request.auth))

    @verb
    async def RemoveImage(self, request: cri.RemoveImageRequest, context: Context) -> cri.RemoveImageResponse:
        await asyncio.to_thread(self._engine.images.remove, request.image.image)
        return cri.RemoveImageResponse()

    @verb
    async def ImageFsInfo(self, request: cri.ImageFsInfoRequest, context: Context) -> cri.ImageFsInfoResponse:
        store = self._engine.store
        usage = cri.FilesystemUsage(
            timestamp=time.time_ns(), fs_id=cri.FilesystemIdentifier(mountpoint=str(store.root))
        )
        usage.used_bytes.value = await asyncio.to_thread(store.size_on_disk)
        usage.inodes_used.value = 0
        root = self._engine.settings.root
        containers = cri.FilesystemUsage(timestamp=time.time_ns(), fs_id=cri.FilesystemIdentifier(mountpoint=str(root)))
        return cri.ImageFsInfoResponse(image_filesystems=[usage], container_filesystems=[containers])


class NodeImages(images_pb2_grpc.NodeImagesServicer):
    """Image archives handed to the node."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def Import(
        self, request_iterator: AsyncIterator[images_pb2.ImportRequest], context: Context
    ) -> images_pb2.ImportResponse:
        """Load an archive from a path or from the stream."""
        return await self._import(request_iterator, context)

    @verb
    async def _import(
        self, requests: AsyncIterator[images_pb2.ImportRequest], context: Context
    ) -> images_pb2.ImportResponse:
        scratch = self._engine.store.temporary()
        path, default_name = "", ""
        try:
            fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                async for request in requests:
                    default_name = default_name or request.default_name
                    if request.path:
                        path = request.path
                        break
                    await asyncio.to_thread(os.write, fd, request.chunk)
            finally:
                os.close(fd)
            if path and not path.startswith("/"):
                raise BadConfig("path must be absolute")
            found = await asyncio.to_thread(archive.load, self._engine.store, Path(path or scratch), default_name)
        finally:
            scratch.unlink(missing_ok=True)
        return images_pb2.ImportResponse(
            images=[
                images_pb2.ImportedImage(id=each.image.id, names=each.names, size=each.image.size) for each in found
            ]
        )
