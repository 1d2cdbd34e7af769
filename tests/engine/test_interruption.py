"""The controller dies after every single effect of a purchase, a move and a termination, and nothing is lost or
doubled.

Cluster and cloud are the outside world and live on. The effects are not listed here: an undisturbed run counts them,
and every one of them is then a place to die (or to lose the answer) once.
"""

from collections.abc import Callable

import pytest

from autoscaler.embedded import checker
from autoscaler.embedded.jobs import JobState
from providers import catalog
from providers.aws.double.server import Ec2Double
from tests.engine.conftest import Gate, Outside, Supervisor

END_S = 6000.0

OFFERS = tuple(
    offer for offer in catalog.aws_offers() if offer.instance_type in ("g4dn.xlarge", "g4dn.2xlarge", "g6.xlarge")
)


def play(outside: Callable[..., Outside], gate: Gate) -> tuple[Outside, Supervisor]:
    """Two machines are bought, one is compacted away by a move, the other goes when the work is done."""
    world = outside()
    world.submit("long", at=0, run_s=3000, gpus=4)
    world.submit("filler", at=1, run_s=600, gpus=4)
    world.submit("second", at=30, run_s=2500, gpus=2)
    supervisor = Supervisor(lambda: world.controller(gate))
    world.world.run([supervisor], until=END_S)
    return world, supervisor


def judge(world: Outside) -> None:
    """What must hold at the end, whatever happened on the way."""
    jobs = world.world.jobs.facts()
    assert [job.state for job in jobs] == [JobState.FINISHED] * 3
    assert world.world.jobs.lost == 0
    assert checker.check(world.world.cluster) == []
    assert world.launched() == 2, "one machine per claim, whatever was repeated"
    assert world.alive() == 0, "nothing is left running once the work is done"
    assert world.claims() == (), "every claim is accounted for and gone"


def effects(outside: Callable[..., Outside]) -> list[str]:
    gate = Gate()
    world, _ = play(outside, gate)
    judge(world)
    return gate.names


def test_the_undisturbed_run_buys_moves_and_ends(outside: Callable[..., Outside]) -> None:
    names = effects(outside)
    for needed in ("create NodeClaim", "launch", "create Migration", "create Pod", "evict default/second", "terminate"):
        assert needed in names, f"the scenario never reaches {needed!r}, so interrupting it proves nothing"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("lose_answer", [False, True], ids=["crash", "answer-lost"])
def test_interrupted_after_every_effect(outside: Callable[..., Outside], *, lose_answer: bool) -> None:
    total = len(effects(outside))
    for stop_at in range(1, total + 1):
        gate = Gate(stop_at, lose_answer=lose_answer)
        world, supervisor = play(outside, gate)
        try:
            judge(world)
        except AssertionError as error:
            raise AssertionError(f"after effect {stop_at} of {total} ({gate.names[stop_at - 1]}): {error}") from error
        assert supervisor.crashes == (0 if lose_answer else 1)


def buy(outside: Callable[..., Outside], spoil: Callable[[Ec2Double], None], gate: Gate) -> Outside:
    """One machine is bought under a fault, used and given back."""
    world = outside(offers=OFFERS)
    spoil(world.double)
    world.submit("only", at=0, run_s=600)
    world.world.run([Supervisor(lambda: world.controller(gate))], until=END_S)
    return world


FAULTS: dict[str, Callable[[Ec2Double], None]] = {
    "dry": lambda double: double.set_capacity("g4dn.xlarge", "us-east-1a", "on-demand", 0),
    "throttled": lambda double: double.inject("RunInstances", code="RequestLimitExceeded", times=2),
    "quota": lambda double: double.inject("RunInstances", code="VcpuLimitExceeded"),
    "invalid type": lambda double: double.inject("RunInstances", code="InvalidParameterValue"),
    "effect and then an error": lambda double: double.inject("RunInstances", code="InternalError", after=True),
    "terminate throttled": lambda double: double.inject("TerminateInstances", code="RequestLimitExceeded", times=4),
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("fault", FAULTS)
def test_interrupted_after_every_effect_of_a_spoiled_purchase(outside: Callable[..., Outside], fault: str) -> None:
    undisturbed = Gate()
    judge_one(buy(outside, FAULTS[fault], undisturbed), "undisturbed")
    for stop_at in range(1, undisturbed.count + 1):
        for lose_answer in (False, True):
            gate = Gate(stop_at, lose_answer=lose_answer)
            where = f"after effect {stop_at} ({undisturbed.names[stop_at - 1]}), answer lost: {lose_answer}"
            judge_one(buy(outside, FAULTS[fault], gate), where)


def judge_one(world: Outside, where: str) -> None:
    assert [job.state for job in world.world.jobs.facts()] == [JobState.FINISHED], where
    assert world.launched() == 1, where
    assert world.alive() == 0, where
    assert world.claims() == (), where
    assert checker.check(world.world.cluster) == [], where
