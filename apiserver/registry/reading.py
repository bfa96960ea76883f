"""Reading a resource: get, list, watch.

Owns which reads are served from the watch cache and which go to the store (exact revisions and later pages of a list
whose resource has changed since). Never decodes an object unless a selector asks for its content. Called by both doors
through `ResourceStore`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING

from apiserver.registry.context import ListOptions, ListPage, RequestContext, WatchOptions
from apiserver.registry.listing import INCONSISTENT, ExpiredToken, Token, check_list, check_watch
from apiserver.registry.strategy import Strategy
from apiserver.storage.cache import ResourceCache
from apiserver.storage.entry import Entry, Selection
from apiserver.storage.feed import WatchCache
from apiserver.storage.form import BadObject, ObjectForm, decode, encode
from apiserver.storage.interface import (
    Compacted,
    FutureRevision,
    KeyValue,
    OutcomeUnknown,
    Store,
    StoreError,
    StoreUnavailable,
    TooLargeValue,
    prefix_end,
)
from apiserver.storage.keys import parse_suffix, suffix
from apiserver.storage.watcher import Watcher
from machinery.errors import (
    BadRequest,
    Expired,
    InternalError,
    NotFound,
    ServerTimeout,
    ServiceUnavailable,
    Timeout,
    TooLarge,
)
from machinery.selectors import FieldSelector, LabelSelector

if TYPE_CHECKING:
    from api.resources import Resource

FUTURE_SECONDS = 3.0
"""How long a read waits for a resourceVersion that this server has not seen yet, as upstream does."""
STORE_PAGE = 500


@contextlib.contextmanager
def storage_errors() -> Iterator[None]:
    """Tell the store's errors in Kubernetes' words."""
    try:
        yield
    except OutcomeUnknown as error:
        raise Timeout(f"Timeout: request did not complete within the allotted timeout: {error}") from error
    except StoreUnavailable as error:
        raise ServiceUnavailable(f"the storage cannot be reached: {error}") from error
    except TooLargeValue as error:
        raise TooLarge(f"Request entity too large: {error}") from error
    except StoreError as error:
        raise InternalError.of(str(error)) from error


class ResourceReader:
    """Reads of one resource in one version."""

    def __init__(
        self, resource: Resource, strategy: Strategy, store: Store, feed: WatchCache, cache: ResourceCache
    ) -> None:
        self.resource = resource
        self.strategy = strategy
        self.cache = cache
        self._store = store
        self._feed = feed

    @property
    def form(self) -> ObjectForm:
        """The byte form of the objects this resource answers with."""
        return self.cache.form

    # -- get ----------------------------------------------------------------------------------------------------------

    async def get(
        self, ctx: RequestContext, namespace: str, name: str, *, subresource: str = "", resource_version: str = ""
    ) -> bytes:
        """One object as JSON."""
        if resource_version in ("", "0"):
            if resource_version:
                await self._feed.wait_ready()
            else:
                await self._feed.sync()
        else:
            await self._reach(check_list(ListOptions(resource_version=resource_version)))
        entry = self.cache.get(namespace, name)
        if entry is None:
            raise self.missing(namespace, name)
        return self.shown(entry.raw, subresource) if subresource else entry.raw

    def shown(self, raw: bytes, subresource: str) -> bytes:
        """What a subresource shows of an object."""
        self.check_subresource(subresource)
        strategy = self.strategy.for_subresource(subresource)
        return raw if type(strategy).view is Strategy.view else encode(strategy.read(decode(raw)))

    def check_subresource(self, subresource: str) -> None:
        """Raises the 404 of an unknown path."""
        if subresource and subresource not in self.resource.subresources:
            raise NotFound.path()

    def not_found(self, name: str) -> NotFound:
        return NotFound.of(self.resource.plural, name, self.resource.group)

    def missing(self, namespace: str, name: str) -> NotFound | InternalError:
        """Why an object cannot be read: nothing has its key, or something that is no such object."""
        why = self.cache.unreadable.get(suffix(namespace, name))
        return self.unreadable(name, why) if why else self.not_found(name)

    def unreadable(self, name: str, why: object) -> InternalError:
        return InternalError.of(f"the stored value of {self.resource.plural} {name!r} cannot be decoded: {why}")

    def peek(self, namespace: str, name: str) -> Entry | None:
        """The cached object, possibly a moment old; for callers that can bear that (admission)."""
        return self.cache.get(namespace, name)

    def entries(self, namespace: str = "") -> Iterator[Entry]:
        """Cached objects in key order, possibly a moment old."""
        return self.cache.select(Selection(namespace))

    async def sync(self) -> None:
        """Until the cache shows every acknowledged write."""
        await self._feed.sync()

    async def _reach(self, revision: int) -> None:
        await self._feed.wait_ready()
        try:
            await self._feed.reach(revision, FUTURE_SECONDS)
        except ServerTimeout:
            error = Timeout.resource_version_too_large(revision, self._feed.revision)
            raise Timeout(f"Timeout: {error.message}", details=error.details) from None

    # -- selection ----------------------------------------------------------------------------------------------------

    def selection(self, namespace: str, label_selector: str, field_selector: str) -> Selection:
        """Parsed selectors. Raises BadRequest."""
        try:
            labels = LabelSelector.parse(label_selector) if label_selector else None
            fields = FieldSelector.parse(field_selector) if field_selector else None
        except ValueError as error:
            raise BadRequest(str(error)) from error
        if fields is not None:
            known = self.strategy.field_labels
            for requirement in fields.requirements:
                if requirement.field not in known and requirement.field != "metadata.namespace":
                    raise BadRequest(self._unknown_field(requirement.field))
        return Selection(namespace, labels, fields, self.strategy.selectable_fields)

    def _unknown_field(self, field: str) -> str:
        known = sorted(self.strategy.field_labels)
        # Kinds with field selectors of their own have a conversion function that answers more curtly.
        if set(known) - {"metadata.name", "metadata.namespace"}:
            return f"field label not supported: {field}"
        return f'"{field}" is not a known field selector: only "metadata.name", "metadata.namespace"'

    # -- list ---------------------------------------------------------------------------------------------------------

    async def list(self, ctx: RequestContext, namespace: str, options: ListOptions) -> ListPage:
        """Objects in key order."""
        revision = check_list(options)
        selection = self.selection(namespace, options.label_selector, options.field_selector)
        limit = max(options.limit, 0)
        if options.continue_:
            return await self._next_page(Token.decode(options.continue_), selection, limit)
        # A page of a numbered version is of that very version, unless the client says otherwise.
        if options.resource_version_match == "Exact" or (limit and revision and not options.resource_version_match):
            await self._reach(revision)
            return await self._list_at(revision, "", selection, limit)
        if not options.resource_version:
            await self._feed.sync()
        elif revision:
            await self._reach(revision)
        else:
            await self._feed.wait_ready()
            limit = 0  # "any version" is answered whole from the cache, as upstream does
        return self._list_cached(self._feed.revision, "", selection, limit)

    async def _next_page(self, token: Token, selection: Selection, limit: int) -> ListPage:
        if token.revision == INCONSISTENT:
            await self._feed.sync()
            return self._list_cached(self._feed.revision, token.start, selection, limit)
        await self._feed.wait_ready()
        return await self._list_at(token.revision, token.start, selection, limit)

    def _list_cached(self, revision: int, start: str, selection: Selection, limit: int) -> ListPage:
        entries = self.cache.select(selection, start)
        if not limit:
            whole = not (start or selection.selective or selection.name)
            return ListPage([entry.raw for entry in entries], revision, state=self.cache.modified if whole else 0)
        found = list(islice(entries, limit + 1))
        if len(found) <= limit:
            return ListPage([entry.raw for entry in found], revision)
        page = found[:limit]
        after = suffix(*page[-1].key) + "\0"
        remaining = None
        if not selection.selective and not selection.name:
            remaining = self.cache.count(selection.namespace, after)
        return ListPage([entry.raw for entry in page], revision, Token(revision, after).encode(), remaining)

    async def _list_at(self, revision: int, start: str, selection: Selection, limit: int) -> ListPage:
        """As of a past revision: from the cache when nothing has changed since, else from the store."""
        if self.cache.modified <= revision <= self._feed.revision:
            return self._list_cached(revision, start, selection, limit)
        prefix = self.cache.prefix + (f"{selection.namespace}/".encode() if selection.namespace else b"")
        at = max(self.cache.prefix + start.encode(), prefix) if start else prefix
        found: list[bytes] = []
        with storage_errors():
            while True:
                want = min(limit - len(found), STORE_PAGE) if limit and not selection.selective else STORE_PAGE
                try:
                    page = await self._store.range(at, prefix_end(prefix), limit=want, revision=revision)
                except Compacted as error:
                    if start:
                        raise ExpiredToken(start) from error
                    raise Expired("The resourceVersion for the provided list is too old.") from error
                except FutureRevision as error:
                    raise Timeout.resource_version_too_large(revision, self._feed.revision) from error
                for index, kv in enumerate(page.items):
                    entry = self._entry(kv)
                    if entry is None or not selection.matches(entry):
                        continue
                    found.append(entry.raw)
                    left = page.total - index - 1
                    if limit and len(found) == limit and left:
                        after = suffix(*entry.key) + "\0"
                        remaining = None if selection.selective or selection.name else left
                        return ListPage(found, revision, Token(revision, after).encode(), remaining)
                if not page.more:
                    return ListPage(found, revision)
                at = page.items[-1].key + b"\0"

    def _entry(self, kv: KeyValue) -> Entry | None:
        name = kv.key[len(self.cache.prefix) :].decode("utf-8", "replace")
        try:
            raw = self.form.with_revision(self.form.adopt(kv.value), kv.mod_revision)
        except BadObject:
            return None
        return Entry(parse_suffix(name), raw, kv.mod_revision, kv.create_revision)

    # -- watch --------------------------------------------------------------------------------------------------------

    def _progress(self) -> int:
        """The revision up to which every watcher has been given all events."""
        self.cache.push()
        return self._feed.revision

    def watch(self, ctx: RequestContext, namespace: str, options: WatchOptions) -> Watcher:
        """Changes as they happen. Errors of the options are raised here; reading starts with the first iteration."""
        after = check_watch(options)
        selection = self.selection(namespace, options.label_selector, options.field_selector)
        if not self._feed.ready:
            raise ServiceUnavailable("storage is (re)initializing")
        initial = options.send_initial_events is not False and (options.send_initial_events or not after)
        if options.send_initial_events is False and not after:
            after = self._feed.revision

        async def start(watcher: Watcher) -> None:
            if options.resource_version != "0":
                await (self._reach(after) if after else self._feed.sync())
            watcher.preload(self.cache.initial_events(selection))
            if options.send_initial_events and options.allow_bookmarks:
                watcher.bookmark(self._feed.revision, initial_events_end=True)
            self.cache.join(watcher)

        watcher = Watcher(
            selection,
            self.form,
            after=after if not initial and after > self._feed.revision else 0,
            bookmarks=options.allow_bookmarks,
            progress=self._progress,
            forget=self.cache.forget,
            start=start if initial else None,
        )
        if not initial:
            try:
                watcher.preload(self.cache.events_after(after, selection))
            except Expired as error:  # of a request that is in order: its watch begins, and ends with this error
                watcher.fail(error)
                return watcher
            self.cache.join(watcher)
        return watcher
