"""Changing objects of a resource: update, patch, apply, and the subresources that are writes of their parent.

Owns the order of things: build, canonicalize, default, account, admission, prepare, validate, reserve, write. Every
write is a compare-and-swap on the revision it was computed from. Mixed into `ResourceStore`.
"""

from __future__ import annotations

from collections.abc import Callable

from apiserver.registry import deletion
from apiserver.registry.accounting import Account, as_it_was, as_sent, set_managed
from apiserver.registry.binding import bind
from apiserver.registry.context import RequestContext
from apiserver.registry.creating import Creating
from apiserver.registry.hooks import UPDATE, Obj
from apiserver.registry.listing import parse_revision
from apiserver.registry.owners import drop_twins
from apiserver.registry.patching import patcher
from apiserver.registry.reading import storage_errors
from apiserver.registry.strategy import Strategy
from apiserver.registry.tracking import Tracker
from apiserver.registry.writer import ATTEMPTS, Current, take_back
from apiserver.storage.form import decode, encode
from machinery.errors import (
    AlreadyExists,
    BadRequest,
    Conflict,
    NotFound,
    StatusError,
    UnsupportedMediaType,
)
from machinery.field_errors import FieldError, invalid
from machinery.meta import rfc3339

Build = Callable[[Obj], Obj]


class Changing(Creating):
    """PUT and PATCH; a PUT or an apply of what is not there creates it."""

    async def update(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        body: Obj,
        *,
        subresource: str = "",
        tracker: Tracker | None = None,
    ) -> tuple[bytes, bool]:
        """Replace an object or what a subresource shows of it. The flag tells that it was created."""
        self.check_subresource(subresource)
        strategy = self.strategy.for_subresource(subresource)
        meta = self._metadata(body, namespace)
        self._check_name(meta, name)
        drop_twins(ctx, meta, admitted=False)
        uid, version = meta.get("uid"), meta.get("resourceVersion") or ""
        pristine, unused = encode(body), [body]

        def build(current: Obj) -> Obj:
            if uid and uid != current["metadata"].get("uid"):
                raise self._uid_conflict(namespace, name, uid, current["metadata"].get("uid", ""))
            if not version and not strategy.allow_unconditional_update:
                text = FieldError.invalid("metadata.resourceVersion", 0, "must be specified for an update")
                raise invalid(self.resource.plural, name, self.resource.group, [text])
            wanted = unused.pop() if unused else decode(pristine)
            return strategy.merge(ctx, current, wanted)

        try:
            account = self._account(ctx, subresource, tracker)
            raw = await self._rewrite(ctx, namespace, name, build, strategy, subresource, account)
        except NotFound as error:
            missing = (error.details or {}).get("kind") == self.resource.plural
            if subresource or not strategy.allow_create_on_update or not missing:
                raise
            if ctx.may_create is not None:
                ctx.may_create()
            fresh = decode(pristine)
            fresh["metadata"].pop("resourceVersion", None)
            fresh["metadata"].pop("uid", None)
            return await self.create(ctx, namespace, fresh, tracker=tracker), True
        return raw, False

    async def patch(
        self, ctx: RequestContext, namespace: str, name: str, patch_type: str, patch: bytes, *, subresource: str = ""
    ) -> bytes:
        """Change an object by a patch of the given content type."""
        self.check_subresource(subresource)
        strategy = self.strategy.for_subresource(subresource)
        apply = patcher(self.resource, subresource, patch_type, patch, ctx)

        def build(current: Obj) -> Obj:
            patched = apply(strategy.draft(current))
            self._check_name(self._metadata(patched, namespace), name)
            return strategy.merge(ctx, current, patched)

        account = self._account(ctx, subresource, None)
        return await self._rewrite(ctx, namespace, name, build, strategy, subresource, account)

    async def apply(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        config: Obj,
        *,
        subresource: str = "",
        tracker: Tracker | None = None,
        inward: Callable[[Obj, Obj | None], Obj] = lambda obj, current: obj,
    ) -> tuple[bytes, bool]:
        """Server-side apply of a configuration. The flag tells that the object was created.

        `tracker` and `inward` are of another version that is written: its owners, and its way to the stored form.
        """
        self.check_subresource(subresource)
        strategy, owners = self.strategy.for_subresource(subresource), tracker or self.tracker
        if owners is None:
            raise UnsupportedMediaType("field ownership is not kept by this server", details={})
        owners.check_config(config, subresource)
        pristine = encode(config)

        def made(live: Obj) -> Obj:
            applied = owners.applied(ctx, live, decode(pristine), subresource)
            self._check_name(self._metadata(applied, namespace), name)
            return applied

        def build(current: Obj) -> Obj:
            if subresource == "scale":
                strategy.merge(ctx, current, decode(pristine))  # raises what a PUT would
                return made(current)
            return strategy.merge(ctx, current, inward(made(current), current))

        for _ in range(ATTEMPTS):
            try:
                raw = await self._rewrite(ctx, namespace, name, build, strategy, subresource, as_sent)
                return raw, False
            except NotFound as error:
                if subresource or (error.details or {}).get("kind") != self.resource.plural:
                    raise
            if ctx.may_create is not None:
                ctx.may_create()
            fresh = made({})
            if uid := fresh["metadata"].get("uid"):
                why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                raise Conflict.of(self.resource.plural, name, self.resource.group, why)
            fresh["metadata"].pop("resourceVersion", None)
            try:
                return await self._create_once(ctx, namespace, inward(fresh, None), None), True
            except AlreadyExists:
                continue  # somebody else created it meanwhile
        raise Conflict.of(self.resource.plural, name, self.resource.group)

    def _account(self, ctx: RequestContext, subresource: str, tracker: Tracker | None) -> Account:
        found = tracker or self.tracker
        if found is None:
            return as_it_was
        return lambda old, new, given: found.updated(ctx, old, new, given, subresource)

    async def mutate(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        change: Build,
        subresource: str = "",
        tracker: Tracker | None = None,
    ) -> bytes:
        """Change an object by a function, for rules inside the server; the function must not modify its argument.

        Only with a tracker does the request's manager come to own what changed.
        """

        def build(current: Obj) -> Obj:
            changed = change(current)
            return dict(changed, metadata=dict(changed["metadata"]))

        account = as_it_was if tracker is None else self._account(ctx, subresource, tracker)
        strategy = self.strategy.for_subresource(subresource)
        return await self._rewrite(ctx, namespace, name, build, strategy, subresource, account)

    async def _rewrite(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        build: Build,
        strategy: Strategy,
        subresource: str,
        account: Account,
    ) -> bytes:
        """Read, change, validate, compare-and-swap; again when somebody else was faster."""
        base = await self._current(namespace, name)
        for _ in range(ATTEMPTS):
            if base is None:
                raise self.not_found(name)
            old = decode(base.raw)
            try:
                new = await self._changed(ctx, namespace, name, build, strategy, subresource, base, old, account)
            except StatusError:
                base, confirmed = await self._confirmed(namespace, name, base)
                if confirmed:
                    raise
                continue
            if new == old:
                base, confirmed = await self._confirmed(namespace, name, base)
                if confirmed and base is not None:
                    return self._answer(strategy, new, base.raw)
                continue
            try:
                undo = await self._check(ctx, UPDATE, namespace, name, new, old, subresource)
            except StatusError:
                base, confirmed = await self._confirmed(namespace, name, base)
                if confirmed:
                    raise
                continue
            if ctx.dry_run:
                ctx.warnings.extend(strategy.warnings(new, old))
                return self._answer(strategy, new, self.form.with_revision(self.form.encode(new), base.revision))
            finish = strategy.begin_update(ctx, new, old)
            done, gone = False, deletion.finished(new, old)
            key, stored = self._key(namespace, name), self.form.encode(new)
            try:
                with storage_errors():
                    if gone:
                        result = await self._store.delete(key, base.revision)
                    else:
                        result = await self._store.replace(key, stored, base.revision, self._ttl)
                done = result.ok
            finally:
                if finish is not None:
                    finish(done)
            if done:
                if gone:
                    self.strategy.after_delete(new)
                ctx.warnings.extend(strategy.warnings(new, old))
                return self._answer(strategy, new, self.form.with_revision(stored, result.revision))
            await take_back(undo)
            base = self._from_store(result.current)
        raise Conflict.of(self.resource.plural, name, self.resource.group)

    async def _changed(
        self,
        ctx: RequestContext,
        namespace: str,
        name: str,
        build: Build,
        strategy: Strategy,
        subresource: str,
        base: Current,
        old: Obj,
        account: Account,
    ) -> Obj:
        """The object as this request wants it, checked. It carries the base's resourceVersion, as `old` does."""
        new = build(decode(base.raw))  # a copy of its own: what is built may share parts with it
        meta = new["metadata"]
        version = meta.get("resourceVersion") or ""
        try:
            asked = parse_revision(version)
        except ValueError as error:
            raise StatusError(str(error), code=500, reason="") from error
        if asked and asked != base.revision:
            raise Conflict.of(self.resource.plural, name, self.resource.group)
        given = meta.pop("managedFields", None)
        strategy.canonicalize(new)
        strategy.default(new)
        managed = account(old, new, given)
        await self._admit(ctx, UPDATE, namespace, name, new, old, subresource)
        meta = new["metadata"]
        drop_twins(ctx, meta, admitted=True)
        meta["resourceVersion"] = old["metadata"]["resourceVersion"]
        new["kind"], new["apiVersion"] = old["kind"], old["apiVersion"]
        strategy.prepare_update(ctx, new, old)
        set_managed(new, old, managed)
        self._raise_findings(name, strategy.validate_update(ctx, new, old))
        return new

    def _answer(self, strategy: Strategy, new: Obj, raw: bytes) -> bytes:
        if type(strategy).view is Strategy.view:
            return raw
        return encode(strategy.view(decode(raw)))

    async def bind(self, ctx: RequestContext, namespace: str, name: str, body: Obj) -> bytes:
        """`POST pods/{name}/binding`: assign the pod to a node."""
        strategy = _Binding(self.strategy)
        meta = body.get("metadata") or {}
        if (meta.get("name") or "") != name:
            raise BadRequest("name in URL does not match name in Binding object")
        if not name:
            raise BadRequest("Name parameter required.")
        uid = meta.get("uid")

        def build(current: Obj) -> Obj:
            if uid and uid != current["metadata"].get("uid"):
                raise self._uid_conflict(namespace, name, uid, current["metadata"].get("uid", ""))
            return bind(current, body, rfc3339(self._clock.now()))

        await self._rewrite(ctx, namespace, name, build, strategy, "binding", as_it_was)
        return encode({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201})


class _Binding(Strategy):
    """A binding is checked by `bind` alone; everything else of the pod stays as it is."""

    def __init__(self, parent: Strategy) -> None:
        super().__init__(parent.resource, parent.rules)

    def canonicalize(self, obj: Obj) -> None:
        pass

    def default(self, obj: Obj) -> None:
        pass

    def prepare_update(self, ctx: RequestContext, new: Obj, old: Obj) -> None:
        pass

    def validate_update(self, ctx: RequestContext, new: Obj, old: Obj) -> list[FieldError]:
        return []

    def warnings(self, obj: Obj, old: Obj | None = None) -> list[str]:
        return []
