"""Whose value a series is: pod and device identities out of the label names that exporters and scrape settings produce.

With ``honor_labels: false`` Prometheus renames the exporter's pod label to ``exported_pod`` and puts the exporter's own
pod under ``pod``. A device that nobody uses then looks as if the exporter's pod held it; ``Owners`` sees through that.
Pure; knows no source. Never raises.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from autoscaler.metrics.rows import Row

# Preference per plain name: what the exporter said, however the scrape renamed it, before what the target says.
_POD_NAMES: Mapping[str, tuple[str, ...]] = {
    "pod": ("exported_pod", "pod_name"),
    "namespace": ("exported_namespace", "pod_namespace"),
    "container": ("exported_container", "container_name"),
}
_RENAMED = frozenset(name for names in _POD_NAMES.values() for name in names)
_OWNER_NAMES = ("namespace", "pod", "container")
# One name per device label; exporters changed the case over time.
_DEVICE_NAMES: Mapping[str, tuple[str, ...]] = {
    "UUID": ("UUID", "uuid"),
    "gpu": ("gpu",),
    "device": ("device",),
    "modelName": ("modelName",),
    "Hostname": ("Hostname", "hostname"),
    "GPU_I_ID": ("GPU_I_ID",),
    "GPU_I_PROFILE": ("GPU_I_PROFILE",),
}
# Two Prometheus servers of one pair write these; they say nothing about what was measured.
_REPLICA_NAMES = frozenset({"__name__", "prometheus", "prometheus_replica", "__replica__"})
_EXPORTER_POD = "dcgm-exporter"
"""Part of the pod or container name of the exporter itself in its own chart and in the GPU operator."""

Key = tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """The pod that a row is about."""

    namespace: str
    pod: str
    container: str

    def labels(self) -> dict[str, str]:
        named = {"namespace": self.namespace, "pod": self.pod, "container": self.container}
        return {name: value for name, value in named.items() if value}


def target(labels: Mapping[str, str]) -> tuple[str, str]:
    """The scrape target; empty strings where the series was not scraped but imported."""
    return labels.get("job", ""), labels.get("instance", "")


class Owners:
    """Which pod each device row belongs to, judged over all rows of one answer."""

    def __init__(self, series: Iterable[Mapping[str, str]]) -> None:
        # One row with both names proves how the whole job is scraped: its plain labels are the exporter's own.
        self._renaming_jobs = {
            labels.get("job", "")
            for labels in series
            if labels.get("pod") and any(labels.get(name) for name in _POD_NAMES["pod"])
        }

    def of(self, labels: Mapping[str, str]) -> Owner | None:
        """The pod that holds the device of this row; None where the row names none."""
        renamed = any(labels.get(name) for name in _POD_NAMES["pod"])
        if not renamed and (labels.get("job", "") in self._renaming_jobs or _is_exporter(labels)):
            return None
        # Beside a renamed pod label, a plain one proves that the plain labels are the exporter's own.
        found = pod_labels(labels, plain_too=not (renamed and labels.get("pod")))
        if not found.get("pod"):
            return None
        return Owner(namespace=found.get("namespace", ""), pod=found["pod"], container=found.get("container", ""))


def _is_exporter(labels: Mapping[str, str]) -> bool:
    return _EXPORTER_POD in labels.get("pod", "") or _EXPORTER_POD in labels.get("container", "")


def pod_labels(labels: Mapping[str, str], *, plain_too: bool = True) -> dict[str, str]:
    """``pod``, ``namespace`` and ``container`` of the thing measured: the renamed label wins over the plain one, which
    counts only with ``plain_too``.
    """
    found: dict[str, str] = {}
    for plain, renamed in _POD_NAMES.items():
        for name in (*renamed, plain) if plain_too else renamed:
            if labels.get(name):
                found[plain] = labels[name]
                break
    return found


def device_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """The labels that say which device it is, under one spelling."""
    found: dict[str, str] = {}
    for plain, names in _DEVICE_NAMES.items():
        value = next((labels[name] for name in names if labels.get(name)), "")
        if value:
            found[plain] = value
    if "UUID" not in found and "Hostname" not in found and ("gpu" in found or "device" in found):
        # An index alone names a device of every host; the scrape target tells which.
        found |= {"instance": labels["instance"]} if labels.get("instance") else {}
    return found


def device_key(labels: Mapping[str, str], owner: Owner | None) -> Key:
    """What makes two rows rows of one device: the UUID (any case) and the MIG instance; without a UUID the host and
    index; without those the pod; at last all labels.
    """
    device = device_labels(labels)
    instance = device.get("GPU_I_ID", "")
    if "UUID" in device:
        return ("uuid", device["UUID"].casefold(), instance)
    index = device.get("gpu") or device.get("device")
    if index:
        host = device.get("Hostname") or labels.get("instance", "")
        return ("index", host, index, instance)
    if owner is not None:
        return ("pod", owner.namespace, owner.pod, owner.container)
    return ("series", *(f"{name}={value}" for name, value in sorted(labels.items()) if name not in _REPLICA_NAMES))


def series_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """All labels of a workload's series with the pod's under their plain names, less what tells replicas of one
    Prometheus apart.
    """
    kept = {
        name: value
        for name, value in labels.items()
        if name not in _REPLICA_NAMES and name not in _RENAMED and name not in _OWNER_NAMES
    }
    return {**kept, **pod_labels(labels)}


def target_labels(labels: Mapping[str, str]) -> dict[str, str]:
    """What identifies a scrape target, and where it runs."""
    named = {"job": labels.get("job", ""), "instance": labels.get("instance", "")}
    for name in ("node", "namespace", "pod"):
        named[name] = labels.get(name, "")
    named["Hostname"] = labels.get("Hostname") or labels.get("hostname", "")
    return {name: value for name, value in named.items() if value}


def owners_of(rows: Iterable[Row]) -> Owners:
    return Owners(row.labels for row in rows)
