"""What the contract suite needs of a cloud: a provider on its double, and handles that make the double misbehave."""

import dataclasses
import datetime as dt
import time
from typing import Protocol

from providers import catalog
from providers.aws.client import DOUBLE_KEYS
from providers.aws.double.server import Ec2Double
from providers.aws.provider import AwsProvider
from providers.offers import CapacityType, Offer, Order, Provider

TYPE = "g5.xlarge"


class Harness(Protocol):
    """One cloud under the contract suite."""

    zones: tuple[str, str]

    def provider(self, owner: str = "ours", *, seconds_later: float = 0) -> Provider:
        """A new provider object without memory, as after a restart, with a clock that is ahead."""
        ...

    def order(self, key: str, *, spot: bool = False, zone: str = "") -> Order: ...
    def dry(self) -> None:
        """No machine is left of the ordered type in the first zone."""
        ...

    def running(self) -> int:
        """Machines that are billed now, whoever owns them."""
        ...

    def lose_the_answer(self) -> None:
        """The next purchase happens and its answer does not arrive."""
        ...

    def refuse(self, kind: str) -> None:
        """Refuse the next purchase: spot-quota, quota, throttled, auth."""
        ...

    def refuse_reads(self, kind: str, times: int) -> None: ...
    def show_late(self, reads: int) -> None:
        """Machines bought from now on are missing from that many reads."""
        ...

    def end(self, machine_id: str, *, for_capacity: bool) -> None:
        """The cloud ends a machine by itself."""
        ...

    def stay_pending(self) -> None:
        """Machines bought from now on stay pending."""
        ...


@dataclasses.dataclass
class AwsHarness:
    double: Ec2Double
    zones: tuple[str, str] = ("us-east-1a", "us-east-1b")

    def provider(self, owner: str = "ours", *, seconds_later: float = 0, page_size: int = 1000) -> AwsProvider:
        return AwsProvider(
            offers=catalog.aws_offers(self.zones, spot_percent=40),
            owner=owner,
            image_id="ami-0123456789abcdef0",
            endpoint_url=self.double.url,
            keys=DOUBLE_KEYS,
            page_size=page_size,
            read_wait_s=0,
            now=lambda: time.time() + seconds_later,
        )

    def offer(self, *, spot: bool = False, zone: str = "", instance_type: str = TYPE) -> Offer:
        market = CapacityType.SPOT if spot else CapacityType.ON_DEMAND
        wanted = f"aws/{zone or self.zones[0]}/{instance_type}/{market.value}"
        return next(offer for offer in catalog.aws_offers(self.zones, spot_percent=40) if offer.id == wanted)

    def order(self, key: str, *, spot: bool = False, zone: str = "") -> Order:
        return Order(key=key, offer=self.offer(spot=spot, zone=zone), user_data="#cloud-config", labels={"pool": "a"})

    def dry(self) -> None:
        for market in ("on-demand", "spot"):
            self.double.set_capacity(TYPE, self.zones[0], market, 0)

    def running(self) -> int:
        return sum(record.state in {"pending", "running"} for record in self.double.instances())

    def lose_the_answer(self) -> None:
        self.double.inject("RunInstances", lost=True, after=True)

    def refuse(self, kind: str) -> None:
        self.double.inject("RunInstances", code=AWS_CODES[kind])

    def refuse_reads(self, kind: str, times: int) -> None:
        self.double.inject("DescribeInstances", code=AWS_CODES[kind], times=times)

    def show_late(self, reads: int) -> None:
        self.double.delay(hidden_describes=reads)

    def end(self, machine_id: str, *, for_capacity: bool) -> None:
        code = "Server.InsufficientInstanceCapacity" if for_capacity else "Client.UserInitiatedShutdown"
        self.double.end_instance(machine_id, code)

    def stay_pending(self) -> None:
        self.double.delay(pending_describes=1000)


AWS_CODES = {
    "spot-quota": "MaxSpotInstanceCountExceeded",
    "quota": "VcpuLimitExceeded",
    "throttled": "RequestLimitExceeded",
    "auth": "UnauthorizedOperation",
    "server": "InternalError",
}

LONG_AFTER = dt.timedelta(minutes=10).total_seconds()
