"""Random days: pods come and go, the cloud misbehaves, the controller dies; in the end everything adds up.

Hypothesis draws the day. Whatever it draws: a pod's work is done once and never lost (no node is ever taken from
under it here), one order buys one machine, and nothing is left running when the work is over.
"""

import dataclasses
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from autoscaler.embedded import checker
from autoscaler.embedded.jobs import JobState
from providers import catalog
from tests.engine.conftest import Gate, Outside, Supervisor

OFFERS = tuple(
    offer
    for offer in catalog.aws_offers()
    if offer.instance_type in ("g4dn.xlarge", "g4dn.12xlarge", "g6.xlarge", "g6.12xlarge")
)
DAY_S = 12_000.0
CODES = ("InsufficientInstanceCapacity", "RequestLimitExceeded", "VcpuLimitExceeded", "InternalError",
         "UnauthorizedOperation", "InvalidParameterValue")  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Job:
    at: float
    run_s: float
    gpus: int
    milli: int


@dataclasses.dataclass(frozen=True)
class Fault:
    at: float
    action: str
    code: str
    times: int
    after: bool
    lost: bool


JOBS = st.lists(
    st.builds(
        Job,
        at=st.floats(0, DAY_S / 2),
        run_s=st.floats(1, 4000),
        gpus=st.sampled_from((1, 1, 1, 2, 4)),
        milli=st.sampled_from((1000, 500, 250)),
    ),
    min_size=1,
    max_size=12,
)
FAULTS = st.lists(
    st.builds(
        Fault,
        at=st.floats(0, DAY_S / 2),
        action=st.sampled_from(("RunInstances", "RunInstances", "TerminateInstances", "DescribeInstances")),
        code=st.sampled_from(CODES),
        times=st.integers(1, 4),
        after=st.booleans(),
        lost=st.booleans(),
    ),
    max_size=6,
)
CRASHES = st.lists(st.integers(1, 60), max_size=3)


@pytest.mark.timeout(300)
@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(jobs=JOBS, faults=FAULTS, crashes=CRASHES)
@example(
    # entered + 60 - entered is a little less than 60 here: the next poll was set for the very moment it was made.
    jobs=[Job(at=8.916200213368078e-05, run_s=1403.7832650095504, gpus=1, milli=1000)],
    faults=[Fault(at=5e-324, action="RunInstances", code="InternalError", times=2, after=True, lost=True)],
    crashes=[27, 25, 20],
)
def test_whatever_happens_everything_adds_up(
    outside: Callable[..., Outside], jobs: list[Job], faults: list[Fault], crashes: list[int]
) -> None:
    world = outside(offers=OFFERS)
    for index, job in enumerate(jobs):
        milli = job.milli if job.gpus == 1 else 1000
        world.submit(f"job{index}", job.at, job.run_s, gpus=job.gpus, milli=milli)
    for fault in faults:
        world.world.at(fault.at, inject(world, fault))
    gates = iter([*(Gate(stop_at) for stop_at in crashes), *(Gate() for _ in range(100))])
    supervisor = Supervisor(lambda: world.controller(next(gates)))
    world.world.run([supervisor], until=10 * DAY_S)
    facts = world.world.jobs.facts()
    assert [job.state for job in facts] == [JobState.FINISHED] * len(jobs)
    assert world.world.jobs.lost == 0
    assert checker.check(world.world.cluster) == []
    assert world.alive() == 0
    assert world.claims() == ()
    tokens = [record.token for record in world.double.instances()]
    assert len(tokens) == len(set(tokens)), "one order, one machine"


def inject(world: Outside, fault: Fault) -> Callable[[], None]:
    # A cloud that has done what was asked answers with a server error or not at all, never that it refused.
    code = "InternalError" if fault.after else fault.code
    return lambda: world.double.inject(fault.action, code=code, times=fault.times, after=fault.after, lost=fault.lost)
