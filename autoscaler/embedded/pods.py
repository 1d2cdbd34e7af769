"""What the controllers of the embedded world read off a pod. Pure; knows no store."""

import math

from autoscaler.model import kinds

START_DELAY = "tidegate.dev/start-delay-s"
"""Annotation on a pod: seconds from its start to Ready. Outranks the workload's own delay."""


def moved_from(pod: kinds.Pod) -> str | None:
    """Key of the pod whose place this one takes, when it is the replacement of a move."""
    meta = pod.meta
    return meta.annotations.get(kinds.MOVED_FROM) or meta.labels.get(kinds.MOVED_FROM)


def owner(pod: kinds.Pod) -> str:
    """Workload or job that the pod belongs to; empty for none."""
    return pod.meta.labels.get(kinds.WORKLOAD_LABEL, "")


def active(pod: kinds.Pod) -> bool:
    """Whether the pod has not ended: only such a pod holds what it was given."""
    return pod.phase is kinds.PodPhase.PENDING or pod.phase is kinds.PodPhase.RUNNING


def serving(pod: kinds.Pod) -> bool:
    """Whether the pod counts as healthy for a disruption budget and for its workload."""
    return pod.ready and pod.phase is kinds.PodPhase.RUNNING and pod.meta.deleting_s is None


def start_delay_s(pod: kinds.Pod) -> float | None:
    """The pod's own start delay, None when it names none. Raises ValueError for anything but zero or more seconds."""
    text = pod.meta.annotations.get(START_DELAY)
    if text is None:
        return None
    delay = float(text)
    if not 0 <= delay < math.inf:
        raise ValueError(text)
    return delay
