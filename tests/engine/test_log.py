"""The decision log: what changed, once, under an id that depends on the decision alone."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping

import msgspec
import pytest

from autoscaler.engine.log import DecisionLog, Record
from policies.decisions import Action, Decision, Evidence, Reason, Step


def decision(
    action: Action = Action.NOTHING,
    reason: Reason = Reason.NOTHING_PENDING,
    *,
    policy: str = "provisioning",
    subject: str = "pool",
    evidence: Mapping[str, Evidence] | None = None,
) -> Decision:
    return Decision(policy=policy, action=action, subject=subject, reason=reason, evidence=evidence or {})


class Log:
    def __init__(self) -> None:
        self.records: list[Record] = []
        self.log = DecisionLog(self.records.append)

    def add(self, entry: Decision, now: float = 0.0) -> str:
        return self.log.add(entry, now)

    @property
    def reasons(self) -> list[str]:
        return [record.reason for record in self.records]


def test_a_record_holds_the_whole_decision() -> None:
    log = Log()
    entry = dataclasses.replace(
        decision(Action.BUY, Reason.PENDING_SHARES, evidence={"pods": 3, "price": 1.5, "offer": "x", "none": None}),
        steps=(Step(name="pending", value=3), Step(name="chosen", value="x")),
    )
    record_id = log.add(entry, 12.34567)
    assert log.records == [
        Record(
            id=record_id,
            time_s=12.346,
            policy="provisioning",
            action="Buy",
            subject="pool",
            reason="PendingShares",
            evidence={"pods": 3, "price": 1.5, "offer": "x", "none": None},
            steps=(("pending", 3), ("chosen", "x")),
        )
    ]
    line = msgspec.json.encode(log.records[0])
    assert msgspec.json.decode(line, type=Record) == log.records[0]


def test_nothing_is_entered_once() -> None:
    log = Log()
    for second in range(5):
        log.add(decision(evidence={"pending": second}), second)
    assert [record.time_s for record in log.records] == [0.0]


def test_nothing_is_entered_again_for_another_reason_and_for_the_first_one_again() -> None:
    log = Log()
    for reason in (Reason.NOTHING_PENDING, Reason.WAITING_FOR_NODE, Reason.WAITING_FOR_NODE, Reason.NOTHING_PENDING):
        log.add(decision(reason=reason))
    assert log.reasons == ["NothingPending", "WaitingForNode", "NothingPending"]


def test_nothing_is_entered_again_after_something() -> None:
    log = Log()
    log.add(decision(), 1)
    log.add(decision(Action.BUY, Reason.PENDING_SHARES), 2)
    log.add(decision(), 3)
    log.add(decision(), 4)
    assert log.reasons == ["NothingPending", "PendingShares", "NothingPending"]


def test_nothing_of_another_policy_or_subject_is_its_own() -> None:
    log = Log()
    for policy in ("provisioning", "compaction"):
        for subject in ("a", "b"):
            log.add(decision(policy=policy, subject=subject))
    assert len(log.records) == 4
    assert len({record.id for record in log.records}) == 4


def test_actions_are_entered_every_time() -> None:
    log = Log()
    entry = decision(Action.BUY, Reason.PENDING_SHARES)
    assert log.add(entry, 1) != log.add(entry, 2)
    assert len(log.records) == 2


@pytest.mark.parametrize(
    "other",
    [
        decision(Action.BUY),
        decision(reason=Reason.GPU_LIMIT),
        decision(policy="compaction"),
        decision(subject="other"),
        decision(evidence={"pods": 2}),
    ],
)
def test_another_decision_has_another_id(other: Decision) -> None:
    assert Log().add(decision(evidence={"pods": 1})) != Log().add(other)


def test_the_id_is_a_function_of_the_decision() -> None:
    one = decision(evidence={"a": 1, "b": 2.5})
    same = decision(evidence={"b": 2.5, "a": 1})
    assert Log().add(one, 7) == Log().add(same, 7) == Log().add(one, 7.0001)
    assert Log().add(one, 7) != Log().add(one, 8)
    assert Log().add(one, 7) != Log().add(dataclasses.replace(one, evidence={"a": 1, "b": 2.25}), 7)


def test_an_unrepeated_nothing_still_answers_with_an_id() -> None:
    log = Log()
    first = log.add(decision(), 1)
    assert log.add(decision(), 1) == first
    assert len(log.records) == 1


def test_ids_survive_a_restart() -> None:
    """Hashes of strings differ between interpreters; ids must not."""
    script = (
        "from autoscaler.engine.log import DecisionLog\n"
        "from policies.decisions import Action, Decision, Reason\n"
        "d = Decision(policy='p', action=Action.BUY, subject='s', reason=Reason.CAPACITY, evidence={'a': 1})\n"
        "print(DecisionLog(lambda record: None).add(d, 3.0))\n"
    )
    ids = {
        subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(ids) == 1
    assert len(ids.pop().strip()) == 12
