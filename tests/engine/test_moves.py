"""Moving pods off a node: make before break, within the cluster's disruption budgets, and taken back when it cannot
be.
"""

from collections.abc import Callable

from autoscaler.embedded import checker
from autoscaler.embedded.jobs import JobState
from autoscaler.model import kinds
from tests.engine.conftest import Outside, Supervisor

BUILD = Callable[..., Outside]


def two_nodes(outside: BUILD) -> tuple[Outside, Supervisor]:
    """``second`` runs alone on the second node once ``filler`` has left the first one: it will be moved there."""
    world = outside()
    world.submit("long", at=0, run_s=30_000, gpus=4)
    world.submit("filler", at=1, run_s=600, gpus=4)
    world.submit("second", at=30, run_s=29_000, gpus=2)
    return world, Supervisor(world.controller)


def budget(world: Outside, job: str, least: int) -> None:
    meta = kinds.Meta(name=f"keep-{job}", namespace="default")
    world.world.cluster.create(kinds.DisruptionBudget(meta=meta, workload=f"default/{job}", min_available=least))


def phases(world: Outside) -> list[str]:
    return [migration.phase.value for migration in world.world.cluster.list(kinds.Migration).items]


def pods(world: Outside) -> list[str]:
    return sorted(pod.meta.name.split("-mv-")[0] for pod in world.world.cluster.list(kinds.Pod).items)


def test_a_pod_is_ready_elsewhere_before_it_goes(outside: BUILD) -> None:
    world, supervisor = two_nodes(outside)
    budget(world, "second", 1)
    world.world.run([supervisor], until=3000)
    assert phases(world) == ["Succeeded"]
    assert pods(world) == ["long", "second"]
    assert world.alive() == 1
    assert world.world.jobs.lost == 0


def test_a_budget_that_never_allows_it_takes_the_drain_back(outside: BUILD) -> None:
    world, supervisor = two_nodes(outside)
    budget(world, "second", 2)
    budget(world, "long", 2)
    world.world.run([supervisor], until=20_000)
    assert phases(world) == ["Failed"] * 2, "each node was tried once and is then left alone for a day"
    assert pods(world) == ["long", "second"], "the replacement is gone, the pod still runs"
    assert [claim.state for claim in world.claims()] == [kinds.ClaimState.READY] * 2
    assert not any(node.unschedulable for node in world.world.cluster.list(kinds.Node).items)
    assert ("Cancel", "DeadlinePassed") in world.reasons("claims")
    assert world.world.jobs.lost == 0
    assert checker.check(world.world.cluster) == []


def test_a_deleted_claim_moves_its_pods_and_ends_its_machine(outside: BUILD) -> None:
    world, supervisor = two_nodes(outside)
    world.world.run([supervisor], until=400)
    first, second = world.claims()
    leaving = first if pods_of(world, first) == ["second"] else second
    world.world.cluster.delete(leaving)
    world.world.run([supervisor], until=4000)
    assert leaving.meta.name not in {claim.meta.name for claim in world.claims()}
    assert world.alive() == len(world.claims())
    assert world.world.jobs.get("default", "second").state is JobState.RUNNING


def pods_of(world: Outside, claim: kinds.NodeClaim) -> list[str]:
    return [pod.meta.name for pod in world.world.cluster.list(kinds.Pod).items if pod.node == claim.node]


def test_a_protected_pod_keeps_its_node(outside: BUILD) -> None:
    world, supervisor = two_nodes(outside)
    world.world.run([supervisor], until=400)
    for pod in world.world.cluster.list(kinds.Pod).items:
        world.world.cluster.patch(pod, annotations={kinds.DO_NOT_DISRUPT: "true"})
    world.world.run([supervisor], until=6000)
    assert phases(world) == []
    assert world.alive() == 2
    assert ("Nothing", "Protected") in world.reasons("compaction")
