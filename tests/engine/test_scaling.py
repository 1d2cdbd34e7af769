"""Replicas to zero and back: the whole controller on the embedded cluster, beside a scripted activity source."""

import dataclasses
from collections.abc import Callable

import pytest

from autoscaler.backtest.models import NothingForSale
from autoscaler.embedded import checker
from autoscaler.embedded.world import EmbeddedWorld
from autoscaler.engine.capacity import PoolSettings
from autoscaler.engine.controller import Controller
from autoscaler.engine.log import DecisionLog, Record
from autoscaler.engine.scaling import Scaling, ScalingSettings
from autoscaler.model import kinds, ports
from autoscaler.model.ports import Activity
from policies import compaction, keep_alive, provisioning, scale_to_zero
from policies.signals import Signal, SignalState
from tests.engine.conftest import Outside
from vgpu.inventory import Device, Shape

IDLE_S = 300.0
SPEC = scale_to_zero.Spec(keep_alive="fixed", idle_after_s=IDLE_S, min_uptime_s=120, start_deadline_s=600)
POLL_S = 30.0
CHAT = "ml/chat"


def signal(value: float | None = 0.0, state: SignalState = SignalState.VALID) -> Signal:
    return Signal(name="scripted", state=state, value=value, age_s=5.0 if value is not None else None)


def idle(last_active_s: float | None = 0.0, **more: object) -> Activity:
    """Measured, quiet, and nobody waits."""
    known = Activity(activity=(signal(),), presence=signal(1.0), wake=(signal(),), last_active_s=last_active_s)
    return dataclasses.replace(known, **more)  # type: ignore[arg-type]


def demanded(waiting: float = 2.0) -> Activity:
    """At zero replicas: the pods' own signals have gone with them."""
    gone = signal(None, SignalState.ABSENT)
    return Activity(activity=(gone,), presence=gone, wake=(signal(waiting),))


Answer = Callable[[float], Activity]


class Script:
    """Answers for each workload as its function of time says; remembers who asked when."""

    def __init__(self, answers: dict[str, Answer]) -> None:
        self.answers = answers
        self.asked: list[tuple[str, float]] = []

    def activity(self, workload: str, *, at: float) -> Activity:
        self.asked.append((workload, at))
        return self.answers[workload](at)


@dataclasses.dataclass
class Rig:
    """A cluster with GPUs of its own, and the parts of a controller beside it."""

    source: Script
    spec: scale_to_zero.Spec = SPEC
    gpus: int = 8
    world: EmbeddedWorld = dataclasses.field(default_factory=EmbeddedWorld)
    records: list[Record] = dataclasses.field(default_factory=list[Record])
    through: Callable[[ports.ClusterApi], ports.ClusterApi] = lambda cluster: cluster

    def __post_init__(self) -> None:
        devices = tuple(Device(uuid=f"GPU-{index}", model="L4", memory_mib=24000) for index in range(self.gpus))
        node = kinds.Node(
            meta=kinds.Meta(name="n"), provider_id="x:///n", ready=True, cpu_milli=96000, memory_mib=500000,
            devices=devices,
        )  # fmt: skip
        self.world.cluster.create(node)

    def add(
        self, name: str, replicas: int, annotations: dict[str, str] | None = None, *, start_delay_s: float = 0.0
    ) -> None:
        self.world.cluster.create(
            kinds.Workload(
                meta=kinds.Meta(name=name, namespace="ml", annotations=annotations or {}),
                replicas=replicas,
                shape=Shape(cpu_milli=1000, memory_mib=1024, gpus=1, milli=1000),
                start_delay_s=start_delay_s,
            )
        )

    def controller(self) -> Controller:
        settings = ScalingSettings(spec=self.spec, poll_s=POLL_S)
        return Controller(
            cluster=self.through(self.world.cluster),
            provider=NothingForSale(),
            clock=self.world.clock,
            pool=PoolSettings(name="pool", provisioning=provisioning.Spec(), compaction=compaction.Spec()),
            log=DecisionLog(self.records.append),
            scaling=Scaling(settings=settings, source=self.source, started_s=self.world.clock.now()),
        )

    def get(self, key: str = CHAT) -> kinds.Workload:
        return self.world.cluster.get(kinds.Workload, key)

    def replicas(self, *keys: str) -> list[int]:
        return [self.get(key).replicas for key in keys]

    def marks(self, key: str = CHAT) -> dict[str, str]:
        return dict(self.get(key).meta.annotations)

    def pods(self) -> int:
        return len(self.world.cluster.list(kinds.Pod).items)

    def decided(self, key: str = CHAT) -> list[tuple[float, str, str]]:
        """(second, action, reason) of every entry about a workload."""
        return [(r.time_s, r.action, r.reason) for r in self.records if r.subject == key]

    def edit(self, at: float, key: str, **changes: object) -> None:
        """A user's write at a moment."""
        self.world.at(at, lambda: self.world.cluster.patch(self.get(key), **changes))  # type: ignore[func-returns-value]


def chat(answer: Answer, **more: object) -> Rig:
    return Rig(Script({CHAT: answer}), **more)  # type: ignore[arg-type]


# To zero and back -----------------------------------------------------------------------------------------------------


def test_to_zero_by_proof_and_back_by_demand() -> None:
    def story(at: float) -> Activity:
        if at < 100:
            return idle(at, activity=(signal(40.0),))
        if rig.get().replicas:
            return idle(100.0)
        # Somebody waits from second 1000 on, until they are served.
        return demanded(2.0 if at >= 1000 and kinds.LAST_WAKE not in rig.marks() else 0.0)

    rig = chat(story)
    rig.add("chat", 3)
    controller = rig.controller()
    rig.world.run([controller], until=399)
    assert rig.replicas(CHAT) == [3]
    rig.world.run([controller], until=402)
    assert (rig.replicas(CHAT), rig.pods()) == ([0], 0)
    assert rig.marks() == {kinds.ZEROED_BY: "tidegate", kinds.RESTORE_REPLICAS: "3"}

    rig.world.run([controller], until=999)
    assert rig.replicas(CHAT) == [0]
    rig.world.run([controller], until=1000 + POLL_S)
    assert (rig.replicas(CHAT), rig.pods(), rig.get().ready_replicas) == ([3], 3, 3)
    woken = float(rig.marks()[kinds.LAST_WAKE])
    assert 1000 <= woken <= 1000 + POLL_S
    assert rig.marks().keys() == {kinds.LAST_WAKE}, "nothing of the zero is left behind"

    # Idle for long, and yet up for its minimum: then zero again, with what it had.
    rig.world.run([controller], until=woken + SPEC.min_uptime_s - 1)
    assert rig.replicas(CHAT) == [3]
    rig.world.run([controller], until=woken + SPEC.min_uptime_s + 2)
    assert rig.replicas(CHAT) == [0]
    assert rig.marks() == {
        kinds.ZEROED_BY: "tidegate", kinds.RESTORE_REPLICAS: "3", kinds.LAST_WAKE: repr(woken),
    }  # fmt: skip

    assert [(action, reason) for _, action, reason in rig.decided()] == [
        ("Nothing", "Active"),
        ("Nothing", "IdleTooShort"),
        ("ScaleToZero", "IdleProven"),
        ("Nothing", "AlreadyZero"),
        ("ScaleUp", "WakeSignal"),
        ("Nothing", "MinimumUptime"),
        ("ScaleToZero", "IdleProven"),
        ("Nothing", "AlreadyZero"),
    ]
    zero = next(record for record in rig.records if record.action == "ScaleToZero")
    assert zero.time_s == pytest.approx(400, abs=2)
    assert zero.evidence["idle_since"] == "last activity"
    assert checker.check(rig.world.cluster) == []
    assert controller.problems == []


def test_the_idle_time_is_met_to_the_second_not_to_the_poll() -> None:
    rig = chat(lambda at: idle(7.0))
    rig.add("chat", 1)
    rig.world.run([rig.controller()], until=2000)
    assert [time for time, action, _ in rig.decided() if action == "ScaleToZero"] == [pytest.approx(307, abs=0.01)]


@pytest.mark.parametrize(("waiting", "wakes"), [(0.0, False), (1.0, True)])
def test_a_zero_of_ours_is_undone_by_whoever_comes_next(*, waiting: float, wakes: bool) -> None:
    rig = chat(lambda at: idle(0.0) if rig.get().replicas else demanded(waiting if at > 500 else 0))
    rig.add("chat", 2)
    rig.world.run([rig.controller()], until=400)
    assert rig.replicas(CHAT) == [0]
    # A new controller knows nothing but the cluster.
    rig.world.run([rig.controller()], until=600)
    assert rig.replicas(CHAT) == [2 if wakes else 0]


@pytest.mark.parametrize(
    ("mark", "restored"), [({}, 1), ({kinds.RESTORE_REPLICAS: "0"}, 1), ({kinds.RESTORE_REPLICAS: "many"}, 1),
                           ({kinds.RESTORE_REPLICAS: "-3"}, 1), ({kinds.RESTORE_REPLICAS: "4"}, 4)],
)  # fmt: skip
def test_a_spoilt_count_wakes_one(mark: dict[str, str], restored: int) -> None:
    rig = chat(lambda at: demanded())
    rig.add("chat", 0, {kinds.ZEROED_BY: "tidegate", **mark})
    rig.world.run([rig.controller()], until=10)
    assert rig.replicas(CHAT) == [restored]


# What a new controller may believe ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proof", "zero_at"),
    [
        pytest.param(None, 500.0 + IDLE_S, id="nobody can say: its own start counts"),
        pytest.param(0.0, 500.0, id="proof up to now counts at once"),
        pytest.param(450.0, 450.0 + IDLE_S, id="proof of later use"),
    ],
)
def test_after_a_restart(proof: float | None, zero_at: float) -> None:
    # Until the restart the workload is in use.
    rig = chat(lambda at: idle(proof) if at >= 500 else idle(at, activity=(signal(9.0),)))
    rig.add("chat", 1)
    rig.world.run([rig.controller()], until=499.5)
    assert rig.replicas(CHAT) == [1]
    rig.world.at(500.0, lambda: None)
    rig.world.run([], until=500.0)
    rig.world.run([rig.controller()], until=2000)
    zeroed = [time for time, action, _ in rig.decided() if action == "ScaleToZero"]
    assert zeroed == [pytest.approx(zero_at, abs=1.5)]
    just_started = ("Nothing", "ControllerJustStarted") in [(action, reason) for _, action, reason in rig.decided()]
    assert just_started is (proof is None)


def test_controllers_that_keep_dying_never_lower_without_proof() -> None:
    rig = chat(lambda at: idle(None))
    rig.add("chat", 1)
    for end_s in range(250, 4000, 250):
        rig.world.run([rig.controller()], until=end_s)
    assert rig.replicas(CHAT) == [1]
    assert {action for _, action, _ in rig.decided()} == {"Nothing"}


# Others ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("annotations", "own", "replicas", "reason"),
    [
        pytest.param({}, False, 0, "ZeroedByUser", id="a user's zero"),
        pytest.param({kinds.ZEROED_BY: "keda"}, False, 0, "ZeroedByUser", id="another scaler's zero"),
        pytest.param({kinds.RESTORE_REPLICAS: "3"}, True, 3, "WakeSignal", id="a user's zero that we may wake"),
        pytest.param({kinds.ZEROED_BY: "tidegate", kinds.RESTORE_REPLICAS: "3"}, False, 3, "WakeSignal", id="ours"),
    ],
)
def test_whose_zero(annotations: dict[str, str], *, own: bool, replicas: int, reason: str) -> None:
    rig = chat(lambda at: demanded(), spec=SPEC.model_copy(update={"own_manual_zero": own}))
    rig.add("chat", 0, annotations)
    rig.world.run([rig.controller()], until=200)
    assert rig.replicas(CHAT) == [replicas]
    assert rig.decided()[0][2] == reason


def test_a_user_who_takes_over_our_zero_is_respected() -> None:
    """Ours, then a user runs it and stops it again: the old marks no longer speak for the zero."""
    rig = chat(lambda at: demanded() if at > 700 and not rig.get().replicas else idle(0.0 if at < 450 else at))
    rig.add("chat", 3)
    controller = rig.controller()
    rig.world.run([controller], until=449)
    assert rig.marks()[kinds.ZEROED_BY] == "tidegate"
    rig.edit(450, CHAT, replicas=2)
    rig.world.run([controller], until=599)
    assert rig.replicas(CHAT) == [2]
    assert kinds.ZEROED_BY not in rig.marks()
    rig.edit(600, CHAT, replicas=0)
    rig.world.run([controller], until=1500)
    assert rig.replicas(CHAT) == [0]
    assert rig.decided()[-1][2] == "ZeroedByUser"


class Meddling:
    """The cluster, with somebody who writes to a workload right before the controller does."""

    def __init__(self, inner: ports.ClusterApi, meddle: Callable[[kinds.Workload], None]) -> None:
        self._inner = inner
        self._meddle = meddle
        self.list, self.watch, self.get = inner.list, inner.watch, inner.get
        self.create, self.delete, self.evict = inner.create, inner.delete, inner.evict

    def patch(self, obj: kinds.K, **changes: object) -> kinds.K:
        if isinstance(obj, kinds.Workload) and "replicas" in changes:
            self._meddle(obj)
        return self._inner.patch(obj, **changes)


def test_a_conflicting_write_is_decided_again_on_what_there_is() -> None:
    rig = chat(lambda at: idle(0.0))
    writes: list[int] = []

    def meddle(workload: kinds.Workload) -> None:
        writes.append(workload.replicas)
        if len(writes) == 1:
            rig.world.cluster.patch(rig.get(), replicas=5)

    rig.through = lambda cluster: Meddling(cluster, meddle)
    rig.add("chat", 2)
    controller = rig.controller()
    rig.world.run([controller], until=IDLE_S + 0.5)
    assert rig.replicas(CHAT) == [5], "the user's write stands"
    assert [problem.subject for problem in controller.problems] == [CHAT]
    assert controller.problems[0].error.startswith("Conflict")
    rig.world.run([controller], until=IDLE_S + 30)
    assert writes == [2, 5]
    assert rig.replicas(CHAT) == [0]
    assert rig.marks()[kinds.RESTORE_REPLICAS] == "5", "decided on the new count, not on the old one"


def test_one_workloads_failure_is_its_own() -> None:
    down = True

    def meddle(workload: kinds.Workload) -> None:
        if down and workload.meta.name == "b":
            raise ports.Unavailable("connection refused")

    quiet: dict[str, Answer] = {f"ml/{name}": lambda _at: idle(0.0) for name in "abcd"}
    # A source that contradicts itself fails its workload, too.
    quiet["ml/c"] = lambda _at: idle(0.0, rate_rps=-1.0, gaps=(keep_alive.Gap(length_s=60.0, requests_within_load=0),))
    rig = Rig(Script(quiet), through=lambda cluster: Meddling(cluster, meddle))
    for name in "abcd":
        rig.add(name, 1)
    controller = rig.controller()
    rig.world.run([controller], until=IDLE_S + 60)
    assert rig.replicas("ml/a", "ml/b", "ml/c", "ml/d") == [0, 1, 1, 0]
    assert {problem.subject for problem in controller.problems} == {"ml/b", "ml/c"}
    assert any("rate_rps=-1.0" in problem.error for problem in controller.problems)
    assert 5 <= sum(problem.subject == "ml/b" for problem in controller.problems) <= 20, "tried again, not in a storm"
    down = False
    rig.world.run([controller], until=IDLE_S + 90)
    assert rig.replicas("ml/b") == [0], "and it goes on once the server is back"


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "yesterday", ""])
def test_a_spoilt_time_is_no_time(text: str) -> None:
    rig = chat(lambda at: idle(0.0))
    rig.add("chat", 1, {kinds.LAST_WAKE: text})
    controller = rig.controller()
    rig.world.run([controller], until=IDLE_S + 10)
    assert rig.replicas(CHAT) == [0]
    assert controller.problems == []


# Pending replicas -----------------------------------------------------------------------------------------------------


def test_nothing_is_lowered_while_replicas_start() -> None:
    rig = chat(lambda at: idle(-5000.0))
    rig.add("chat", 2, start_delay_s=400)
    controller = rig.controller()
    rig.world.run([controller], until=399)
    assert rig.replicas(CHAT) == [2]
    assert [(action, reason) for _, action, reason in rig.decided()] == [("Nothing", "ReplicasPending")]
    rig.world.run([controller], until=402)
    assert rig.replicas(CHAT) == [0]


@pytest.mark.parametrize(("wanted", "replicas"), [(0.0, 1), (1.0, 3)])
def test_replicas_that_cannot_start_are_taken_back_once_nobody_waits(*, wanted: float, replicas: int) -> None:
    """One GPU, three replicas: the one that serves stays, and nothing is marked as a zero."""
    rig = chat(lambda at: idle(0.0, wake=(signal(wanted),), activity=(signal(50.0),)), gpus=1)
    rig.add("chat", 3)
    rig.world.run([rig.controller()], until=900)
    assert rig.replicas(CHAT) == [replicas]
    assert rig.get().ready_replicas == 1
    assert not rig.marks().keys() & {kinds.ZEROED_BY, kinds.RESTORE_REPLICAS}
    stuck = [(action, reason) for _, action, reason in rig.decided() if reason == "ReplicasStuck"]
    assert stuck[0] == ("Cancel" if replicas == 1 else "Nothing", "ReplicasStuck")


# Cost -----------------------------------------------------------------------------------------------------------------


def test_asking_is_bounded_by_the_period_whatever_else_happens() -> None:
    answers: dict[str, Answer] = {
        CHAT: lambda at: idle(at, activity=(signal(3.0),)),
        "ml/asleep": lambda _at: demanded(0),
        "ml/busy": idle,
    }
    rig = Rig(Script(answers))
    rig.add("chat", 1)
    rig.add("asleep", 0, {kinds.ZEROED_BY: "tidegate"})
    rig.add("busy", 1)
    for second in range(5, 3600, 5):
        rig.edit(second, "ml/busy", labels={"tick": str(second)})
    rig.world.run([rig.controller()], until=3600)
    looks = {key: sum(key == asked for asked, _ in rig.source.asked) for key in rig.source.answers}
    period = 3600 / POLL_S
    # One more for its creation and one for its pod's readiness.
    assert period - 1 <= looks["ml/asleep"] <= period + 2
    assert looks[CHAT] <= period + 3, "in use: there is no need to look more often"
    assert looks["ml/busy"] > 700, "one that changes is looked at whenever it does"


def test_a_workload_that_is_gone_is_forgotten() -> None:
    rig = chat(lambda at: idle(at, activity=(signal(None, SignalState.STALE),)))
    rig.add("chat", 1)
    settings = ScalingSettings(spec=SPEC, poll_s=POLL_S)
    scaling = Scaling(settings=settings, source=rig.source, started_s=0.0)
    controller = rig.controller()
    controller._scaling = scaling  # pyright: ignore[reportPrivateUsage]
    rig.world.run([controller], until=100)
    assert scaling.health() is SignalState.STALE
    rig.world.cluster.delete(rig.get())
    rig.world.run([controller], until=200)
    asked = len(rig.source.asked)
    rig.world.run([controller], until=1000)
    assert len(rig.source.asked) == asked
    assert scaling.health() is None, "its bad signals no longer hold anything up"


# Health ---------------------------------------------------------------------------------------------------------------

HEALTH = [
    pytest.param(idle(0.0, activity=(signal(50.0),)), None, id="good"),
    pytest.param(demanded(0), None, id="asleep: the pods' own signals went with them"),
    pytest.param(idle(0.0, activity=(signal(1.0), signal(0.0, SignalState.STALE))), "SignalStale", id="stale"),
    pytest.param(idle(0.0, activity=(signal(None, SignalState.ABSENT),)), "SignalAbsent", id="absent"),
    pytest.param(idle(0.0, activity=(signal(None, SignalState.INVALID),)), "SignalInvalid", id="invalid"),
    pytest.param(idle(0.0, wake=(signal(None, SignalState.UNREACHABLE),)), "SignalUnreachable", id="unreachable"),
    pytest.param(idle(0.0, presence=signal(None, SignalState.ABSENT)), "SignalAbsent", id="presence"),
]


@pytest.mark.parametrize(("known", "reason"), HEALTH)
def test_bad_signals_stop_compaction(outside: Callable[..., Outside], known: Activity, reason: str | None) -> None:
    """Two machines, the second one empty after ten minutes: it goes back, unless the signals cannot be believed."""
    there = outside(boot_s=10.0)
    asleep = not any(s.valid for s in known.activity) and known.presence is not None and not known.presence.valid
    there.world.cluster.create(
        kinds.Workload(
            meta=kinds.Meta(name="chat", namespace="ml", annotations={kinds.ZEROED_BY: "tidegate"} if asleep else {}),
            replicas=0 if asleep else 1,
            shape=Shape(cpu_milli=1000, memory_mib=1024, gpus=1, milli=1000),
        )
    )
    there.submit("keeps a machine", at=0, run_s=5000, gpus=7)
    there.submit("ends", at=0, run_s=600, gpus=8)
    controller = Controller(
        cluster=there.world.cluster,
        provider=there.provider(there.offers),
        clock=there.world.clock,
        pool=PoolSettings(name="pool", provisioning=there.buying, compaction=there.spec),
        log=DecisionLog(there.records.append),
        scaling=Scaling(
            settings=ScalingSettings(spec=SPEC, poll_s=POLL_S), source=Script({CHAT: lambda _at: known}), started_s=0.0
        ),
    )
    there.world.run([controller], until=500)
    assert len(there.claims()) == 2
    there.world.run([controller], until=2500)
    blocked = [decided for decided in there.reasons("compaction") if decided[1].startswith("Signal")]
    if reason is None:
        assert len(there.claims()) == 1, "good signals: the empty machine goes"
        assert blocked == []
        assert ("Remove", "NodeEmpty") in there.reasons("compaction")
    else:
        assert len(there.claims()) == 2, "missing data never takes a machine away"
        assert blocked[0] == ("Nothing", reason)
        assert not [decided for decided in there.reasons("compaction") if decided[0] in {"Remove", "Compact"}]
    assert there.world.cluster.get(kinds.Workload, CHAT).replicas == (0 if asleep else 1)
