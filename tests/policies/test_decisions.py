"""Reasons and actions are one enumerated language, fit for logs, conditions, events and labels."""

import dataclasses
import re
from collections.abc import Callable

import msgspec
import pytest

from policies.decisions import Action, Buy, Decision, Reason, Scale, Step, Vacate
from vgpu.inventory import Placement, Request, Shape

# What Kubernetes accepts as the reason of a condition or an event, without punctuation.
WORD = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+)*")


@pytest.mark.parametrize("word", [*Action, *Reason])
def test_every_word_is_fit_for_a_condition_and_follows_its_name(word: Action | Reason) -> None:
    assert WORD.fullmatch(word.value)
    assert word.name.replace("_", "").lower() == word.value.lower()


def test_no_word_means_two_things() -> None:
    assert len({word.value for word in Reason}) == len(Reason.__members__)
    assert len({word.value for word in Action}) == len(Action.__members__)
    assert not {word.value for word in Reason} & {word.value for word in Action}


def decision() -> Decision:
    return Decision(policy="p", action=Action.NOTHING, subject="s", reason=Reason.NOTHING_PENDING)


def test_a_decision_shares_nothing_with_another() -> None:
    assert decision() == decision()
    assert decision().evidence is not decision().evidence
    assert (decision().plan, decision().recheck_s, decision().steps) == (None, None, ())


PLACEMENT = Placement(request=Request(id="p", shape=Shape()), node="n")


@pytest.mark.parametrize(
    "build",
    [
        decision,
        lambda: Step(name="a", value=1),
        lambda: Buy(offers=(), for_requests=()),
        lambda: Vacate(node="n", moves=(PLACEMENT,)),
        lambda: Scale(workload="ns/w", replicas=0),
    ],
)
def test_a_decision_cannot_be_changed_afterwards(build: Callable[[], object]) -> None:
    value = build()
    assert dataclasses.is_dataclass(value)
    for field in dataclasses.fields(value):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, field.name, None)


def test_a_decision_can_be_written_down() -> None:
    text = msgspec.json.encode(dataclasses.replace(decision(), plan=Vacate(node="n", moves=(PLACEMENT,))))
    assert b'"reason":"NothingPending"' in text
    assert b'"node":"n"' in text
