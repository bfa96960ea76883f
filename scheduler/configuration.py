"""The KubeSchedulerConfiguration file: profiles, which plugins they run where, with which weights and arguments.

Owns reading and judging the file (kubescheduler.config.k8s.io/v1); turns each profile into a framework. What it does
not know is refused with the field's path, never ignored in silence; settings that have no meaning here (parallelism,
percentageOfNodesToScore: all nodes are always scored) are accepted. Called by the process at its start.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any, Final

import msgspec

from scheduler.extenders import TIMEOUT, Extender, ExtenderConfig, Extenders, seconds_of
from scheduler.framework.framework import Framework, PluginEntry
from scheduler.framework.interface import Plugin
from scheduler.framework.pod_info import DEFAULT_SCHEDULER
from scheduler.plugin_args import API_VERSION, ArgumentError, plugin_with
from scheduler.plugins.default_binder import CreateBinding, DefaultBinder
from scheduler.plugins.registry import default_entries
from scheduler.queue import INITIAL_BACKOFF, MAX_BACKOFF

KIND: Final = "KubeSchedulerConfiguration"
ALL: Final = "*"


class ConfigurationError(ValueError):
    """The file cannot be used; the text says where and why."""


class PluginRef(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    weight: int = 0


class PluginSet(msgspec.Struct, forbid_unknown_fields=True):
    enabled: list[PluginRef] = []
    disabled: list[PluginRef] = []


class PluginConfig(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    args: dict[str, Any] = {}


class Plugins(msgspec.Struct, forbid_unknown_fields=True):
    """By extension point."""

    preEnqueue: PluginSet = msgspec.field(default_factory=PluginSet)
    queueSort: PluginSet = msgspec.field(default_factory=PluginSet)
    preFilter: PluginSet = msgspec.field(default_factory=PluginSet)
    filter: PluginSet = msgspec.field(default_factory=PluginSet)
    postFilter: PluginSet = msgspec.field(default_factory=PluginSet)
    preScore: PluginSet = msgspec.field(default_factory=PluginSet)
    score: PluginSet = msgspec.field(default_factory=PluginSet)
    reserve: PluginSet = msgspec.field(default_factory=PluginSet)
    permit: PluginSet = msgspec.field(default_factory=PluginSet)
    preBind: PluginSet = msgspec.field(default_factory=PluginSet)
    bind: PluginSet = msgspec.field(default_factory=PluginSet)
    postBind: PluginSet = msgspec.field(default_factory=PluginSet)
    multiPoint: PluginSet = msgspec.field(default_factory=PluginSet)


class Profile(msgspec.Struct, forbid_unknown_fields=True):
    schedulerName: str = DEFAULT_SCHEDULER
    plugins: Plugins = msgspec.field(default_factory=Plugins)
    pluginConfig: list[PluginConfig] = []
    percentageOfNodesToScore: int | None = None


class LeaderElection(msgspec.Struct):
    leaderElect: bool = True


class Configuration(msgspec.Struct, forbid_unknown_fields=True):
    """The file."""

    apiVersion: str = API_VERSION
    kind: str = KIND
    profiles: list[Profile] = msgspec.field(default_factory=lambda: [Profile()])
    podInitialBackoffSeconds: float = INITIAL_BACKOFF
    podMaxBackoffSeconds: float = MAX_BACKOFF
    parallelism: int | None = None
    percentageOfNodesToScore: int | None = None
    leaderElection: LeaderElection | None = None
    clientConnection: dict[str, Any] | None = None
    enableProfiling: bool | None = None
    enableContentionProfiling: bool | None = None
    extenders: list[ExtenderConfig] = []


def read(path: str) -> Configuration:
    """Raises ConfigurationError."""
    try:
        return parse(Path(path).read_bytes())
    except OSError as error:
        raise ConfigurationError(f"{path}: {error.strerror}") from error


def parse(raw: bytes) -> Configuration:
    """Raises ConfigurationError."""
    try:
        made = msgspec.yaml.decode(raw, type=Configuration)
    except msgspec.MsgspecError as error:
        raise ConfigurationError(str(error)) from error
    if (made.apiVersion, made.kind) != (API_VERSION, KIND):
        raise ConfigurationError(f"wanted a {KIND} of {API_VERSION}, not {made.kind} of {made.apiVersion}")
    if not made.profiles:
        raise ConfigurationError("profiles: Required value")
    names = [profile.schedulerName for profile in made.profiles]
    for name in names:
        if not name:
            raise ConfigurationError("profiles[*].schedulerName: Required value")
        if names.count(name) > 1:
            raise ConfigurationError(f'profiles[*].schedulerName: Duplicate value: "{name}"')
    if made.podInitialBackoffSeconds <= 0 or made.podMaxBackoffSeconds < made.podInitialBackoffSeconds:
        raise ConfigurationError("podMaxBackoffSeconds: must be at least podInitialBackoffSeconds, and both positive")
    return made


# --- extenders -----------------------------------------------------------------------------------------------------


def extenders(configuration: Configuration) -> Extenders:
    """Raises ConfigurationError."""
    made = []
    binders = 0
    seen: set[str] = set()
    for index, each in enumerate(configuration.extenders):
        path = f"extenders[{index}]"
        if each.prioritizeVerb and each.weight <= 0:
            raise ConfigurationError(f"{path}.weight: must have a positive weight applied to it")
        binders += bool(each.bindVerb)
        for resource in each.managedResources:
            if "/" not in resource.name:
                raise ConfigurationError(
                    f"{path}.managedResources: {resource.name} is an invalid extended resource name"
                )
            if resource.name in seen:
                raise ConfigurationError(f"{path}.managedResources: duplicate extender managed resource name")
            seen.add(resource.name)
        try:
            seconds = seconds_of(each.httpTimeout) if each.httpTimeout else TIMEOUT
            made.append(Extender(each, seconds))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{path}: {error}") from error
    if binders > 1:
        raise ConfigurationError(f"extenders: found {binders} extenders implementing bind")
    return Extenders(made)


def _unmanaged(profile: Profile, configuration: Configuration) -> None:
    """What extenders account for is no matter of NodeResourcesFit, where they say so."""
    names = [each.name for one in configuration.extenders for each in one.managedResources if each.ignoredByScheduler]
    if not names:
        return
    fit = next((each for each in profile.pluginConfig if each.name == "NodeResourcesFit"), None)
    if fit is None:
        fit = PluginConfig("NodeResourcesFit", {})
        profile.pluginConfig = [*profile.pluginConfig, fit]
    fit.args = {**fit.args, "ignoredResources": [*fit.args.get("ignoredResources", ()), *names]}


def _configured(config: PluginConfig) -> Plugin:
    try:
        return plugin_with(config.name, config.args)
    except ArgumentError as error:
        raise ConfigurationError(f"pluginConfig[{config.name}].args: {error}") from error


# --- profiles ------------------------------------------------------------------------------------------------------

_POINTS: Final = tuple(
    name for name in Plugins.__struct_fields__ if name not in ("multiPoint", "preFilter", "preScore")
)
# A plugin's preparation is no use without it, and the other way round.
_PREPARED: Final = {"filter": ("preFilter", "filter"), "score": ("preScore", "score")}


def entries_of(profile: Profile, available: list[PluginEntry]) -> list[PluginEntry]:
    """The profile's plugins in order: `available` ones unless disabled. Raises ConfigurationError."""
    made = {config.name: _configured(config) for config in profile.pluginConfig}
    entries = []
    known = {entry.plugin.name for entry in available}
    plugins = profile.plugins
    for point in Plugins.__struct_fields__:
        chosen: PluginSet = getattr(plugins, point)
        for ref in (*chosen.enabled, *chosen.disabled):
            if ref.name not in known and not (ref.name == ALL and ref in chosen.disabled):
                raise ConfigurationError(f'plugins.{point}: there is no plugin "{ref.name}"')
    for entry in available:
        name = entry.plugin.name
        on, weight = _switched(plugins.multiPoint, name)
        points = set()
        for point in _POINTS:
            here: bool | None = None
            for part in _PREPARED.get(point, (point,)):
                switch, own_weight = _switched(getattr(plugins, part), name)
                weight = own_weight or weight
                here = switch if switch is not None else here
            if here if here is not None else on is not False:
                points.add(point)
        if points:
            plugin = made.get(name, entry.plugin)
            entries.append(PluginEntry(plugin, weight or entry.weight, frozenset(points)))
    return entries


def _switched(chosen: PluginSet, name: str) -> tuple[bool | None, int]:
    """(enabled, disabled or not mentioned; the weight given). Enabling wins: `*` is disabled to list a few."""
    for ref in chosen.enabled:
        if ref.name == name:
            return True, ref.weight
    if any(ref.name in (name, ALL) for ref in chosen.disabled):
        return False, 0
    return None, 0


def frameworks(
    configuration: Configuration, create_binding: CreateBinding | None, rng: random.Random
) -> dict[str, Framework]:
    """One framework per profile. Raises ConfigurationError."""
    made = {}
    for profile in configuration.profiles:
        _unmanaged(profile, configuration)
        available = default_entries(rng=rng)
        if create_binding is not None:
            available.append(PluginEntry(DefaultBinder(create_binding)))
        name = profile.schedulerName
        try:
            framework = Framework(entries_of(profile, available), name=name, rng=rng)
        except ValueError as error:
            raise ConfigurationError(f"profiles[{name}]: {error}") from error
        if create_binding is not None and not framework.bind:
            raise ConfigurationError(f"profiles[{name}]: at least one bind plugin is needed")
        made[name] = framework
    return made
