"""The decision log: every decision once, with an id that depends on nothing but the decision.

A "nothing, because …" is entered when its reason or its subject's situation changes, not in every cycle: the log says
what changed, and until the next entry of the same policy and subject the last one holds.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping

import msgspec

from policies.decisions import Action, Decision, Evidence


class Record(msgspec.Struct, frozen=True, kw_only=True):
    """One line of ``decisions.jsonl``."""

    id: str
    time_s: float
    policy: str
    action: str
    subject: str
    reason: str
    evidence: Mapping[str, Evidence]
    steps: tuple[tuple[str, Evidence], ...]


class DecisionLog:
    """Collects records and hands each to ``sink`` as it is made."""

    def __init__(self, sink: Callable[[Record], None]) -> None:
        self._sink = sink
        self._last_nothing: dict[tuple[str, str], str] = {}

    def add(self, decision: Decision, now: float) -> str:
        """Enter a decision; returns its id. A repeated "nothing" is not entered again."""
        time_s = round(float(now), 3)
        identity = f"{decision.policy}|{decision.action.value}|{decision.subject}|{decision.reason.value}|{time_s}"
        record_id = hashlib.sha256(f"{identity}|{sorted(decision.evidence.items())}".encode()).hexdigest()[:12]
        key = (decision.policy, decision.subject)
        if decision.action is Action.NOTHING:
            if self._last_nothing.get(key) == decision.reason.value:
                return record_id
            self._last_nothing[key] = decision.reason.value
        else:
            self._last_nothing.pop(key, None)
        self._sink(
            Record(
                id=record_id,
                time_s=time_s,
                policy=decision.policy,
                action=decision.action.value,
                subject=decision.subject,
                reason=decision.reason.value,
                evidence=dict(decision.evidence),
                steps=tuple((step.name, step.value) for step in decision.steps),
            )
        )
        return record_id

    def retain(self, policy: str, subjects: Collection[str]) -> None:
        """Forget what was last said of a policy's other subjects: they are settled, and the log must not grow with
        every pod that ever waited.
        """
        self._last_nothing = {
            key: reason for key, reason in self._last_nothing.items() if key[0] != policy or key[1] in subjects
        }
