"""What a cloud can do to a purchase, and what becomes of it: table of faults through real boto3 over real HTTP."""

import dataclasses
from collections.abc import Callable

import pytest

from autoscaler.embedded import checker
from autoscaler.embedded.jobs import JobState
from autoscaler.engine.claims import Timing
from autoscaler.model import kinds
from policies import provisioning
from providers.aws.double.server import Ec2Double
from providers.offers import CapacityType, Machine, MachineShape, Offer
from tests.engine.conftest import Gate, GatedProvider, Outside
from vgpu.inventory import Shape

SHAPE = MachineShape(gpu_model="T4", gpus=1, gpu_memory_mib=16384, cpu_milli=4000, memory_mib=16384)
BUILD = Callable[..., Outside]


def offer(instance_type: str, zone: str, usd: float, market: CapacityType = CapacityType.ON_DEMAND) -> Offer:
    return Offer(
        provider="aws",
        region="us-east-1",
        zone=zone,
        instance_type=instance_type,
        capacity_type=market,
        shape=SHAPE,
        price_micro_usd=round(usd * 1e6),
        as_of="2026-01-01",
    )


CHEAP = offer("g4dn.xlarge", "us-east-1a", 0.5)
NEXT = offer("g4dn.xlarge", "us-east-1b", 0.6)
DEAR = offer("g4dn.2xlarge", "us-east-1a", 0.8)
SPOT = offer("g4dn.xlarge", "us-east-1a", 0.2, CapacityType.SPOT)


def play(world: Outside, *, until: float = 2000, run_s: float = 600) -> Outside:
    world.submit("job", at=0, run_s=run_s)
    world.world.run([world.controller()], until=until)
    return world


def bought(world: Outside) -> list[tuple[str, str]]:
    return [(record.instance_type, record.zone) for record in world.double.instances()]


def judge(world: Outside) -> None:
    assert [job.state for job in world.world.jobs.facts()] == [JobState.FINISHED]
    assert world.alive() == 0
    assert world.claims() == ()
    assert checker.check(world.world.cluster) == []


@dataclasses.dataclass(frozen=True)
class Case:
    """One fault of the first RunInstances call, and where the machine comes from in the end."""

    name: str
    spoil: Callable[[Ec2Double], None]
    comes_from: tuple[str, str]
    decision: tuple[str, str]


def refuse(code: str, **how: object) -> Callable[[Ec2Double], None]:
    return lambda double: double.inject("RunInstances", code=code, **how)  # type: ignore[arg-type]


FIRST = ("g4dn.xlarge", "us-east-1a")
SECOND = ("g4dn.xlarge", "us-east-1b")
THIRD = ("g4dn.2xlarge", "us-east-1a")

CASES = (
    Case("dry zone", lambda double: double.set_capacity("g4dn.xlarge", "us-east-1a", "on-demand", 0), SECOND,
         ("FailOver", "Capacity")),
    Case("dry everywhere for one type", lambda double: double.set_capacity("g4dn.xlarge", None, "on-demand", 0), THIRD,
         ("FailOver", "Capacity")),
    Case("quota of the region", refuse("VcpuLimitExceeded"), THIRD, ("FailOver", "Quota")),
    Case("type not sold in the zone", lambda double: double.withhold("g4dn.xlarge", "us-east-1a"), SECOND,
         ("FailOver", "Invalid")),
    Case("throttled", refuse("RequestLimitExceeded", times=2), FIRST, ("Nothing", "Throttled")),
    Case("server error, nothing happened", refuse("InternalError"), FIRST, ("Nothing", "OutcomeUnknown")),
    Case("server error after the effect", refuse("InternalError", after=True), FIRST, ("Nothing", "OutcomeUnknown")),
    Case("answer lost after the effect", lambda double: double.inject("RunInstances", after=True, lost=True), FIRST,
         ("Nothing", "OutcomeUnknown")),
    Case("call lost before the effect", lambda double: double.inject("RunInstances", lost=True), FIRST,
         ("Nothing", "OutcomeUnknown")),
)  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_spoiled_purchase_ends_with_one_machine(outside: BUILD, case: Case) -> None:
    world = outside(offers=(CHEAP, NEXT, DEAR))
    case.spoil(world.double)
    play(world)
    assert bought(world) == [case.comes_from]
    assert case.decision in world.reasons("claims")
    judge(world)


def test_credentials_refused_stop_the_account_and_say_so(outside: BUILD) -> None:
    world = outside(offers=(CHEAP, NEXT, DEAR))
    world.double.inject("RunInstances", code="UnauthorizedOperation", times=1)
    world.submit("job", at=0, run_s=100)
    controller = world.controller()
    world.world.run([controller], until=600)
    assert bought(world) == []
    assert ("FailOver", "Auth") in world.reasons("claims")
    assert ("Nothing", "OffersCooling") in world.reasons("provisioning")
    assert world.claims() == (), "a claim that could not be bought leaves nothing behind"
    # Fifteen minutes later the account is tried again, without anybody's help.
    world.world.run([controller], until=3000)
    assert bought(world) == [FIRST]
    judge(world)


def test_nothing_is_bought_twice_when_every_offer_is_dry(outside: BUILD) -> None:
    world = outside(offers=(CHEAP, NEXT, DEAR, SPOT))
    for instance_type in ("g4dn.xlarge", "g4dn.2xlarge"):
        for market in ("on-demand", "spot"):
            world.double.set_capacity(instance_type, None, market, 0)
    world.submit("job", at=0, run_s=100)
    controller = world.controller()
    world.world.run([controller], until=1000)
    calls = [call for call in world.double.call_log() if call.action == "RunInstances"]
    # Four offers, asked again only when their three minutes are over: a drought is no storm.
    assert len(calls) <= 4 * (1 + 1000 // 180)
    world.double.set_capacity("g4dn.2xlarge", None, "on-demand", 5)
    world.world.run([controller], until=3000)
    assert bought(world) == [THIRD]
    judge(world)


def test_a_machine_that_never_joins_is_given_back_and_replaced(outside: BUILD) -> None:
    first: list[Machine] = []

    def boot_s(machine: Machine) -> float | None:
        first.append(machine)
        return None if machine == first[0] else 180.0

    world = outside(offers=(CHEAP, NEXT), boot_s=boot_s)
    play(world, until=4000)
    assert bought(world) == [FIRST, SECOND], "the offer cools, the replacement comes from the next one"
    assert ("FailOver", "DeadlinePassed") in world.reasons("claims")
    judge(world)


def test_seven_of_eight_gpus_is_a_failure_with_a_name(outside: BUILD) -> None:
    eight = dataclasses.replace(CHEAP, shape=dataclasses.replace(SHAPE, gpus=8, cpu_milli=32000))
    first: list[Machine] = []

    def missing(machine: Machine) -> int:
        first.append(machine)
        return 1 if machine == first[0] else 0

    world = outside(offers=(eight, dataclasses.replace(eight, zone="us-east-1b")), missing_devices=missing)
    world.submit("job", at=0, run_s=600, gpus=8)
    world.world.run([world.controller()], until=4000)
    failures = [record for record in world.records if record.reason == "DeadlinePassed"]
    assert [record.evidence["missing"] for record in failures] == ["7 of 8 GPUs registered"]
    judge(world)


def test_a_machine_that_vanishes_in_service_is_replaced_and_its_pods_planned_again(outside: BUILD) -> None:
    world = outside(offers=(CHEAP, NEXT))
    world.submit("job", at=0, run_s=900)
    controller = world.controller()
    world.world.run([controller], until=600)
    (first,) = world.double.instances()
    world.double.end_instance(first.id)
    world.world.boot.look()
    world.world.run([controller], until=4000)
    assert ("FailOver", "MachineLost") in world.reasons("claims")
    assert len(bought(world)) == 2
    assert world.world.jobs.lost == 1, "the run was cut short and counted, then done again"
    judge(world)


def test_a_machine_without_a_claim_is_collected_and_a_foreign_one_is_not(outside: BUILD) -> None:
    from providers.aws.client import DOUBLE_KEYS
    from providers.aws.provider import AwsProvider
    from providers.offers import Order

    world = outside(offers=(CHEAP,))
    world.provider((CHEAP,)).launch(Order(key="nobody/1", offer=CHEAP))
    other = AwsProvider(offers=(CHEAP,), owner="another cluster", image_id="ami-test",
                        endpoint_url=world.double.url, keys=DOUBLE_KEYS)  # fmt: skip
    other.launch(Order(key="theirs/1", offer=CHEAP))
    world.world.run([world.controller()], until=100)
    assert world.alive() == 1, "the grace is not over"
    world.world.run([world.controller()], until=600)
    assert world.alive() == 0
    assert len(other.list()) == 1
    assert ("Collect", "NoClaim") in world.reasons("claims")


def test_limits_are_charged_at_intent(outside: BUILD) -> None:
    world = outside(offers=(CHEAP,))
    world.buying = provisioning.Spec(max_gpus=2)
    for index in range(5):
        world.submit(f"job{index}", at=0, run_s=600)
    world.world.run([world.controller()], until=300)
    assert len(bought(world)) == 2
    assert ("Nothing", "GpuLimit") in world.reasons("provisioning")
    world.world.run([world.controller()], until=4000)
    assert all(job.state is JobState.FINISHED for job in world.world.jobs.facts()), "the others follow, two at a time"
    assert len(world.world.cluster.list(kinds.NodeClaim).items) == 0


def test_an_unlistable_cloud_terminates_nothing_and_recovers(outside: BUILD) -> None:
    world = outside(offers=(CHEAP,))
    world.double.inject("DescribeInstances", code="InternalError", times=12)
    play(world)
    judge(world)
    assert len(bought(world)) == 1


def test_an_order_without_an_answer_warns_and_never_fails_over(outside: BUILD) -> None:
    world = outside(offers=(CHEAP, NEXT))
    world.double.inject("RunInstances", lost=True, times=12)
    controller = world.controller()
    world.submit("job", at=0, run_s=600)
    world.world.run([controller], until=500)
    assert ("Nothing", "Overdue") in world.reasons("claims")
    assert {attempt.offer.id for claim in world.claims() for attempt in claim.attempts} == {CHEAP.id}
    world.world.run([controller], until=4000)
    assert bought(world) == [FIRST]
    judge(world)


def test_an_answer_lost_and_then_credentials_refused_buys_once(outside: BUILD) -> None:
    """The refusal says nothing of the first call, which did buy: failing over would buy a second machine."""
    world = outside(offers=(CHEAP, NEXT))
    world.double.inject("RunInstances", after=True, lost=True)
    world.double.inject("RunInstances", code="UnauthorizedOperation", times=2)
    play(world, until=4000)
    assert bought(world) == [FIRST]
    judge(world)


def test_a_list_that_is_wrong_ends_no_machine_that_works(outside: BUILD) -> None:
    """The cloud's list comes back empty for a while (a wrong page, a lagging index); the machines are still there."""
    world = outside(offers=(CHEAP,))
    world.submit("job", at=0, run_s=20_000)
    controller = world.controller()
    world.world.run([controller], until=600)
    blind = GatedProvider(world.provider((CHEAP,)), Gate())
    blind.list = list  # type: ignore[method-assign]
    world.world.run([world.controller(provider=blind)], until=10_000)
    assert world.alive() == 1
    assert [claim.state for claim in world.claims()] == [kinds.ClaimState.READY]
    assert world.world.jobs.lost == 0


def test_a_node_that_is_deleted_under_its_machine_has_fifteen_minutes_to_return(outside: BUILD) -> None:
    world = outside(offers=(CHEAP, NEXT))
    world.submit("job", at=0, run_s=900)
    controller = world.controller()
    world.world.run([controller], until=600)
    (node,) = world.world.cluster.list(kinds.Node).items
    world.world.cluster.delete(node)
    world.world.run([controller], until=1300)
    assert world.launched() == 2, "its pod is planned again at once"
    assert world.alive() == 2
    world.world.run([controller], until=6000)
    assert [r.evidence["missing"] for r in world.records if r.reason == "DeadlinePassed"] == ["node"]
    judge(world)


def test_a_pod_that_nothing_on_offer_holds_is_named_once_and_the_rest_goes_on(outside: BUILD) -> None:
    world = outside(offers=(CHEAP,))
    world.submit("huge", at=0, run_s=600, gpus=8)
    world.submit("job", at=0, run_s=600)
    world.submit("huge-too", at=500, run_s=600, gpus=8)
    world.world.run([world.controller()], until=4000)
    named = [record.subject for record in world.records if record.reason == "NoOfferFits"]
    assert named == ["default/huge", "default/huge-too"]
    assert len(bought(world)) == 1
    states = {job.name: job.state for job in world.world.jobs.facts()}
    assert states == {"huge": JobState.PENDING, "job": JobState.FINISHED, "huge-too": JobState.PENDING}


def test_two_purchases_that_fail_over_at_once_keep_the_limit(outside: BUILD) -> None:
    big = dataclasses.replace(
        CHEAP, instance_type="g4dn.12xlarge", shape=dataclasses.replace(SHAPE, gpus=4), price_micro_usd=4_000_000
    )
    world = outside(offers=(CHEAP, big))
    world.buying = provisioning.Spec(max_gpus=5)
    world.double.set_capacity("g4dn.xlarge", None, "on-demand", 0)
    # Four milli-CPU-hungry pods: one per machine, so that each wants a purchase of its own.
    for index in range(4):
        world.world.jobs.submit(f"job{index}", "default", Shape(cpu_milli=4000, gpus=1), 600, at=0)
    controller = world.controller()
    running: list[int] = []
    for until in range(60, 6000, 60):
        world.world.run([controller], until=until)
        running.append(sum(4 if m.instance_type == "g4dn.12xlarge" else 1 for m in world.provider().list()))
    assert 0 < max(running) <= 5
    assert all(job.state is JobState.FINISHED for job in world.world.jobs.facts())


def test_a_machine_of_a_refused_attempt_is_collected(outside: BUILD) -> None:
    """The cloud said no and bought all the same: the claim went on to the next offer, the machine belongs to nobody."""
    world = outside(offers=(CHEAP, NEXT))
    world.timing = Timing(sweep_s=300)
    world.double.inject("RunInstances", code="InsufficientInstanceCapacity", after=True)
    world.submit("job", at=0, run_s=2000)
    world.world.run([world.controller()], until=1200)
    assert bought(world) == [FIRST, SECOND]
    assert ("Collect", "NoClaim") in world.reasons("claims")
    assert world.alive() == 1


def test_a_pod_that_comes_back_under_its_name_with_less_to_ask_is_planned(outside: BUILD) -> None:
    world = outside(offers=(CHEAP,))
    controller = world.controller()
    meta = kinds.Meta(name="model", namespace="default")
    pod = world.world.cluster.create(kinds.Pod(meta=meta, shape=Shape(gpus=8)))
    world.world.run([controller], until=100)
    assert bought(world) == []
    # Both within one batch: no cycle sees the cluster without a pod of that name.
    world.world.cluster.delete(pod)
    world.world.cluster.create(kinds.Pod(meta=meta, shape=Shape(gpus=1)))
    world.world.run([controller], until=400)
    assert bought(world) == [FIRST]
