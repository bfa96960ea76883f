"""Which option is taken: the chain of expanders, of which one may be a server elsewhere.

Owns the call of cluster-autoscaler's gRPC expander contract and what is believed of its answer: a server that fails,
knows no better or names groups that were not offered narrows nothing, as upstream. The other expanders are pure.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any, Final

from api import codec
from cluster_autoscaler import expanders
from cluster_autoscaler.expanders import Knowledge, Option
from machinery import grpc as transport
from machinery import log, protobuf
from machinery.log import kv
from proto.expander.v1 import expander_pb2 as pb

GRPC: Final = "grpc"
TIMEOUT: Final = 5.0  # real seconds of one call
NODE_MESSAGE: Final = "k8s.io.api.core.v1.Node"
POD_MESSAGE: Final = "k8s.io.api.core.v1.Pod"
Remote = Callable[[Sequence[Option]], Awaitable[list[Option]]]
_log = log.get(__name__)


class GrpcExpander:
    """A server that speaks the contract, over one channel."""

    def __init__(self, target: str, ca: Path | None = None, timeout: float = TIMEOUT) -> None:
        """`ca`: who signed the server's certificate; none for a socket of this machine. Raises OSError."""
        from proto.expander.v1 import expander_pb2_grpc

        self._channel = transport.channel(target, authority=ca)
        self._stub: Any = expander_pb2_grpc.ExpanderStub(self._channel)
        self._timeout = timeout

    async def close(self) -> None:
        await self._channel.close()

    async def __call__(self, options: Sequence[Option]) -> list[Option]:
        import grpc.aio

        try:
            answer = await self._stub.BestOptions(_request(options), timeout=self._timeout)
        except grpc.aio.AioRpcError as error:
            _log.warning("The expander did not answer", extra=kv(error=error.details() or error.code().name))
            return list(options)
        named = {each.nodeGroupId for each in answer.options}
        unknown = named - {option.group for option in options}
        if unknown:
            _log.warning("The expander named groups that were not offered", extra=kv(groups=sorted(unknown)))
        return [option for option in options if option.group in named] or list(options)


def _request(options: Sequence[Option]) -> pb.BestOptionsRequest:
    request = pb.BestOptionsRequest()
    for option in options:
        pods = [protobuf.encode_message(POD_MESSAGE, _plain(info.pod)) for info in option.pods]
        node = protobuf.encode_message(NODE_MESSAGE, _plain(option.template.node))
        debug = f"{option.nodes} nodes for {len(pods)} pods"
        request.options.add(nodeGroupId=option.group, nodeCount=option.nodes, debug=debug, pod=pods, podBytes=pods)
        request.nodeMap[option.group] = request.nodeBytesMap[option.group] = node
    return request


def _plain(obj: Any) -> dict[str, Any]:
    return codec.decode_dict(codec.encode(obj))


async def choose(
    options: Sequence[Option], chain: Sequence[str], known: Knowledge, rng: random.Random, remote: Remote | None
) -> Option | None:
    """The one that the chain leaves; None when there are none. Chance decides ties."""
    left = list(options)
    for name in chain:
        if len(left) < 2:
            break
        if name != GRPC:
            left = expanders.EXPANDERS[name](left, known)
        elif remote is not None:
            left = await remote(left)
    return rng.choice(left) if left else None
