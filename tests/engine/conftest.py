"""The outside world of the engine's tests: the embedded cluster, EC2's double over real HTTP, and a gate at every
effect.
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import pytest

from autoscaler.embedded.world import EmbeddedWorld
from autoscaler.engine.capacity import PoolSettings
from autoscaler.engine.claims import Timing
from autoscaler.engine.controller import Controller
from autoscaler.engine.log import DecisionLog, Record
from autoscaler.model import kinds, ports
from policies import compaction, provisioning
from providers import catalog, errors
from providers.aws.client import DOUBLE_KEYS
from providers.aws.double.server import Ec2Double
from providers.aws.provider import KEY_TAG, STATES, AwsProvider
from providers.offers import CapacityType, Caps, Machine, MachineState, Notice, Offer, Order, Provider
from vgpu.inventory import Shape


class Crash(BaseException):
    """The controller's process ends here. Not an Exception: nothing in the engine may catch it."""


class Gate:
    """Counts every effect that leaves the controller and can interrupt one of them after it has happened."""

    def __init__(self, stop_at: int | None = None, *, lose_answer: bool = False) -> None:
        self.count = 0
        self.names: list[str] = []
        self._stop_at = stop_at
        self._lose_answer = lose_answer

    def passed(self, name: str, lost: Exception) -> None:
        """An effect has happened: crash now, lose its answer now, or go on."""
        self.count += 1
        self.names.append(name)
        if self.count == self._stop_at:
            if self._lose_answer:
                raise lost
            raise Crash(name)


class GatedCluster:
    """The cluster port with a gate behind every write."""

    def __init__(self, inner: ports.ClusterApi, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate
        self.list = inner.list
        self.watch = inner.watch
        self.get = inner.get

    def create(self, obj: kinds.K) -> kinds.K:
        stored = self._inner.create(obj)
        self._passed("create", obj)
        return stored

    def patch(self, obj: kinds.K, **changes: object) -> kinds.K:
        stored = self._inner.patch(obj, **changes)
        if stored.meta.resource_version != obj.meta.resource_version:
            self._passed(f"patch {','.join(sorted(changes))}", obj)
        return stored

    def delete(self, obj: kinds.Kind) -> None:
        self._inner.delete(obj)
        self._passed("delete", obj)

    def evict(self, pod: str) -> None:
        self._inner.evict(pod)
        self._gate.passed(f"evict {pod}", ports.Unavailable("connection reset"))

    def _passed(self, verb: str, obj: kinds.Kind) -> None:
        self._gate.passed(f"{verb} {type(obj).__name__}", ports.Unavailable("connection reset"))


class GatedProvider:
    """The purchase port with a gate behind every purchase and every end."""

    name = "aws"

    def __init__(self, inner: AwsProvider, gate: Gate) -> None:
        self._inner = inner
        self._gate = gate
        self.caps: Caps = inner.caps

    def offers(self) -> Iterable[Offer]:
        return self._inner.offers()

    def launch(self, order: Order) -> Machine:
        machine = self._inner.launch(order)
        self._gate.passed("launch", lost_answer())
        return machine

    def poll(self, machine: Machine) -> Machine:
        return self._inner.poll(machine)

    def list(self) -> Sequence[Machine]:
        return self._inner.list()

    def terminate(self, machine: Machine) -> None:
        self._inner.terminate(machine)
        self._gate.passed("terminate", lost_answer())

    def notices(self) -> Iterable[Notice]:
        return ()


def lost_answer() -> errors.BuyError:
    return errors.BuyError(
        why=errors.Why.UNKNOWN,
        scope=errors.Scope.OFFER,
        code="ConnectionClosed",
        message="the connection was closed before the answer",
        launched=None,
    )


class Eye:
    """What the machines' own boot knows of the cloud: read past the wire, so that no injected fault hits it."""

    def __init__(self, double: Ec2Double) -> None:
        self._double = double

    def list(self) -> Sequence[Machine]:
        return [
            Machine(
                id=record.id,
                key=record.tags.get(KEY_TAG, ""),
                state=STATES[record.state],
                provider_id=f"aws:///{record.zone}/{record.id}",
                zone=record.zone,
                instance_type=record.instance_type,
                capacity_type=CapacityType(record.market),
            )
            for record in self._double.instances()
            if STATES[record.state] is not MachineState.GONE
        ]


class Supervisor:
    """Restarts the controller whenever it crashes: the new one knows nothing but the cluster and the cloud."""

    def __init__(self, build: Callable[[], Controller]) -> None:
        self._build = build
        self.controller = build()
        self.crashes = 0

    def cycle(self) -> float | None:
        while True:
            try:
                return self.controller.cycle()
            except Crash:
                self.crashes += 1
                self.controller = self._build()


@dataclasses.dataclass
class Outside:
    """Cluster and cloud of one test, and how to put a controller beside them."""

    world: EmbeddedWorld
    double: Ec2Double
    offers: tuple[Offer, ...]
    spec: compaction.Spec = dataclasses.field(default_factory=lambda: compaction.Spec(headroom_gpus=0, boot_s=10))
    buying: provisioning.Spec = dataclasses.field(default_factory=provisioning.Spec)
    timing: Timing = dataclasses.field(default_factory=Timing)
    records: list[Record] = dataclasses.field(default_factory=list[Record])

    def provider(self, offers: tuple[Offer, ...] = ()) -> AwsProvider:
        return AwsProvider(
            offers=offers,
            owner="test",
            image_id="ami-test",
            endpoint_url=self.double.url,
            keys=DOUBLE_KEYS,
            read_wait_s=0,
        )

    def controller(self, gate: Gate | None = None, provider: Provider | None = None) -> Controller:
        gate = gate or Gate()
        return Controller(
            cluster=GatedCluster(self.world.cluster, gate),
            provider=provider or GatedProvider(self.provider(self.offers), gate),
            clock=self.world.clock,
            pool=PoolSettings(name="pool", provisioning=self.buying, compaction=self.spec),
            log=DecisionLog(self.records.append),
            timing=self.timing,
        )

    def submit(self, name: str, at: float, run_s: float, *, gpus: int = 1, milli: int = 1000) -> None:
        shape = Shape(cpu_milli=1000, memory_mib=1024, gpus=gpus, milli=milli)
        self.world.jobs.submit(name, "default", shape, run_s, at=at)

    def claims(self) -> tuple[kinds.NodeClaim, ...]:
        return self.world.cluster.list(kinds.NodeClaim).items

    def reasons(self, policy: str) -> list[tuple[str, str]]:
        return [(record.action, record.reason) for record in self.records if record.policy == policy]

    def launched(self) -> int:
        """Instances that the cloud ever started."""
        return len(self.double.instances())

    def alive(self) -> int:
        return len(self.provider().list())


@pytest.fixture(scope="session")
def ec2() -> Iterator[Ec2Double]:
    with Ec2Double() as double:
        yield double


@pytest.fixture
def outside(ec2: Ec2Double) -> Callable[..., Outside]:
    """Builds a fresh world on the (emptied) double; more than one per test is fine, one after the other."""

    def build(offers: tuple[Offer, ...] = (catalog.benchmark_offer(),), **world: object) -> Outside:
        ec2.reset()
        result = Outside(world=None, double=ec2, offers=offers)  # type: ignore[arg-type]
        result.world = EmbeddedWorld(machines_from=Eye(ec2), **world)  # type: ignore[arg-type]
        return result

    return build
