"""The story of one subject, put together from a report folder: decisions, stays and machines in time order, in words.

Must not know: the run in memory, clusters, how files are read. A subject that nothing names has no story (None).
"""

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from autoscaler.engine.log import Record
from autoscaler.model.records import MachineRecord, Stay
from autoscaler.report import files, reasons, wording
from autoscaler.report.reading import History
from autoscaler.report.run import PodRecord
from policies.decisions import Action

MOST_AROUND = 12
"""Decisions around a pod that are told in sentences; a pod that waits for days sees hundreds."""

NODE = "node-"
"""A replay's cluster names the node of a claim ``node-CLAIM``; asking for either tells of both."""

REPLACEMENT = "-mv-"
"""A pod that takes another's place is called ``POD-mv-HASH``; its decisions belong to the pod's story."""

BUYER = "provisioning"
"""The policy that a waiting pod waits for."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What is known about one subject."""

    subject: str
    origin_s: float
    pod: PodRecord | None
    stays: tuple[Stay, ...]
    """Of the pod, or on the claim; by time."""
    machines: tuple[MachineRecord, ...]
    """The claim's own, or those of the pod's stays."""
    decisions: tuple[Record, ...]
    """About the subject, or with it in their evidence or steps; by time."""
    around: tuple[Record, ...] = ()
    """For a pod: what was done to its machines while it was there, and what the buyer decided while it waited."""


def about(history: History, subject: str) -> Story | None:
    """All that ``history`` knows about ``subject``; None when it knows nothing."""
    # A pod is called by its own name or with its namespace in front; the files hold the one, the log may hold either.
    namespace, _, bare = subject.rpartition("/")
    pod = history.pods.get(bare)
    if pod is not None and namespace not in ("", pod.namespace):
        pod = None
    claims = {
        machine.claim
        for machine in history.machines
        if subject in (machine.claim, machine.machine_id, f"{NODE}{machine.claim}")
    }
    name = pod.name if pod else subject
    stays = sorted(
        (stay for stay in history.stays if stay.pod == name or stay.claim in claims),
        key=lambda stay: (stay.start_s, stay.pod),
    )
    names = {subject, name} | claims | {f"{NODE}{claim}" for claim in claims}
    decisions = _naming(history.decisions, names)
    if pod is None and not stays and not decisions and not claims:
        return None
    visited = claims or {stay.claim for stay in stays}
    return Story(
        subject=subject,
        origin_s=history.origin_s,
        pod=pod,
        stays=tuple(stays),
        machines=tuple(machine for machine in history.machines if machine.claim in visited),
        decisions=tuple(decisions),
        around=tuple(_around(history, pod, stays, decisions)) if pod else (),
    )


def _naming(decisions: Iterable[Record], names: Iterable[str]) -> list[Record]:
    """The decisions about one of ``names``, or with one as a whole word in their evidence or steps, by time."""
    spelled = frozenset(names)
    words = "|".join(re.escape(word) for word in sorted(spelled, key=len, reverse=True))
    mention = re.compile(rf"(?<![\w-])(?<!\w\.)(?:{words})(?:{REPLACEMENT}[0-9a-f]+)?(?![\w-]|\.\w)")

    def named(decision: Record) -> bool:
        values = (decision.subject, *decision.evidence.values(), *(part for step in decision.steps for part in step))
        return decision.id in spelled or any(isinstance(value, str) and mention.search(value) for value in values)

    return sorted(filter(named, decisions), key=lambda decision: decision.time_s)


def _around(history: History, pod: PodRecord, stays: Sequence[Stay], told: Sequence[Record]) -> list[Record]:
    """Decisions that do not name the pod and yet explain what happened to it."""
    seen = {decision.id for decision in told}
    found: dict[str, Record] = {}
    start_s = math.inf if pod.start_s is None else pod.start_s
    if start_s > pod.arrival_s:
        for decision in history.decisions:
            if decision.policy == BUYER and pod.arrival_s <= decision.time_s <= start_s:
                found[decision.id] = decision
    for stay in stays:
        end_s = math.inf if stay.end_s is None else stay.end_s
        for decision in _naming(history.decisions, (stay.claim, f"{NODE}{stay.claim}")):
            if decision.action != Action.NOTHING and stay.start_s <= decision.time_s <= end_s:
                found[decision.id] = decision
    kept = (decision for key, decision in found.items() if key not in seen)
    return sorted(kept, key=lambda decision: decision.time_s)


def sentences(story: Story) -> Iterator[str]:
    """The story in plain sentences, one event per paragraph."""
    if story.pod is not None:
        yield from _pod_sentences(story, story.pod)
    else:
        yield from _machine_sentences(story)
    if not story.decisions:
        yield "No decision names it."
    else:
        number = len(story.decisions)
        yield f"{wording.count(number)} {'decision names' if number == 1 else 'decisions name'} it:"
        yield from _paragraphs(story.decisions, story.origin_s)
    if story.around:
        yield ""
        yield "What was decided about its machines, and while it waited:"
        yield from _paragraphs(story.around[:MOST_AROUND], story.origin_s)
    if len(story.around) > MOST_AROUND:
        yield f"And {wording.count(len(story.around) - MOST_AROUND)} more; --json lists all."


def _paragraphs(decisions: Iterable[Record], origin_s: float) -> Iterator[str]:
    for decision in decisions:
        yield ""
        yield from _decision_sentences(decision, origin_s)


def _when(time_s: float, origin_s: float) -> str:
    return f"{wording.moment(time_s, origin_s)} (second {files.number(time_s)})"


def _pod_sentences(story: Story, pod: PodRecord) -> Iterator[str]:
    machines = {machine.claim: machine for machine in story.machines}
    share = wording.plain(pod.gpu_milli / 1000)
    yield f"Pod {pod.name} of namespace {pod.namespace} asks for {share} GPU."
    yield f"It arrived on {_when(pod.arrival_s, story.origin_s)}."
    if pod.start_s is None:
        yield "It never started."
    for index, stay in enumerate(story.stays):
        devices = ", ".join(map(str, stay.devices)) or "none"
        word = "device" if len(stay.devices) == 1 else "devices"
        place = f"{stay.claim} ({word} {devices}, {stay.milli} milli each)"
        if index:
            yield f"It was moved on {_when(stay.start_s, story.origin_s)} to {place}."
            continue
        waited = stay.start_s - pod.arrival_s
        when = _when(stay.start_s, story.origin_s)
        yield f"It started on {when} on {place}, after waiting {wording.seconds(waited)}."
        machine = machines.get(stay.claim)
        if machine and machine.ready_s is not None and waited > 0 and machine.ready_s > pod.arrival_s:
            ordered, boot_s = _when(machine.ordered_s, story.origin_s), machine.ready_s - machine.ordered_s
            yield f"It waited for that machine, ordered on {ordered} and ready {wording.seconds(boot_s)} later."
    if pod.end_s is not None:
        yield f"It {'was lost' if pod.lost else 'finished'} on {_when(pod.end_s, story.origin_s)}."
    elif pod.start_s is not None:
        yield "It still ran when the run ended."


def _machine_sentences(story: Story) -> Iterator[str]:
    for machine in story.machines:
        yield (
            f"Claim {machine.claim} is machine {machine.machine_id}: {machine.instance_type}, {machine.capacity_type}, "
            f"{machine.gpus} GPUs."
        )
        ready = "never ready" if machine.ready_s is None else f"ready on {_when(machine.ready_s, story.origin_s)}"
        gone = (
            "still there when the run ended"
            if machine.terminated_s is None
            else f"terminated on {_when(machine.terminated_s, story.origin_s)}"
        )
        yield f"It was ordered on {_when(machine.ordered_s, story.origin_s)}, {ready}, {gone}."
        pods = {stay.pod for stay in story.stays if stay.claim == machine.claim}
        yield f"Pods that were on it: {wording.count(len(pods))}."


def _decision_sentences(decision: Record, origin_s: float) -> Iterator[str]:
    head = f"On {_when(decision.time_s, origin_s)} {decision.policy} decided {decision.action} for {decision.subject}"
    yield f"{head}, because {reasons.meaning(decision.reason)} ({decision.reason}). [{decision.id}]"
    if decision.evidence:
        known = ", ".join(f"{key} = {wording.value(value)}" for key, value in sorted(decision.evidence.items()))
        yield f"  Evidence: {known}."
    if decision.steps:
        yield f"  Steps: {'; '.join(f'{name}: {wording.value(value)}' for name, value in decision.steps)}."


def as_data(story: Story) -> dict[str, Any]:
    """The story as JSON holds it."""
    return {
        "subject": story.subject,
        "pod": None if story.pod is None else dataclasses.asdict(story.pod),
        "stays": [dataclasses.asdict(stay) for stay in story.stays],
        "machines": [dataclasses.asdict(machine) for machine in story.machines],
        "decisions": [json.loads(files.decision_line(decision)) for decision in story.decisions],
        "around": [json.loads(files.decision_line(decision)) for decision in story.around],
    }
