"""GPU machines of one EC2 region: RunInstances with the order's own token, tags in the same call, reads by tag.

One order buys one instance in one zone, because EC2 keeps client tokens per zone. Knows no Kubernetes object and keeps
no state: what is owned is asked of EC2. Every failure is a BuyError; reads and terminations raise it with ``launched``
None, since they say nothing about a purchase.
"""

import dataclasses
import datetime as dt
import functools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import tenacity

from providers.aws import client, errors
from providers.errors import BuyError, Why
from providers.offers import CapacityType, Caps, Machine, MachineState, Notice, Offer, Order

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import InstanceTypeDef

OWNER_TAG = "tidegate-owner"
KEY_TAG = "tidegate-key"

VISIBLE_WITHIN_S = 300.0
"""EC2's reads are eventually consistent: a new instance may be missing from Describe for about five minutes."""

USER_DATA_LIMIT = 16_384
"""EC2's limit on raw user data, bytes."""

STATES: Mapping[str, MachineState] = {
    "pending": MachineState.PENDING,
    "running": MachineState.RUNNING,
    "shutting-down": MachineState.STOPPING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPING,
    "terminated": MachineState.GONE,
}
_LISTED = [name for name, state in STATES.items() if state is not MachineState.GONE]

_LIFECYCLES: Mapping[str, CapacityType] = {"spot": CapacityType.SPOT, "capacity-block": CapacityType.RESERVED}

_USER = "Client.UserInitiatedShutdown"

Answer = TypeVar("Answer")


class AwsProvider:
    """EC2 behind the purchase port. Thread-safe as far as boto3 clients are."""

    name = "aws"
    caps = Caps(spot=True, zones=True)

    def __init__(
        self,
        *,
        offers: Sequence[Offer],
        owner: str,
        image_id: str,
        region: str = "us-east-1",
        endpoint_url: str | None = None,
        subnets: Mapping[str, str] | None = None,
        security_groups: Sequence[str] = (),
        instance_profile: str = "",
        keys: client.StaticKeys | None = None,
        page_size: int = 1000,
        read_attempts: int = 3,
        read_wait_s: float = 0.5,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Build a provider of one region; EC2 is contacted by the first call that needs it.

        ``owner`` names this installation; machines of other owners are never seen. ``subnets`` maps zones to subnet
        ids; when it is given, zones without one are refused. ``read_attempts`` and ``read_wait_s`` (the longest first
        wait, seconds; doubled each time, with full jitter) bound the retries of reads. ``now`` is seconds since 1970,
        against which EC2's launch times are held. Raises ValueError for an owner or a page size that EC2 would refuse.
        """
        if not 1 <= len(owner) <= 256 or any(sign in owner for sign in "*?\\"):
            raise ValueError(f"owner={owner!r}: give 1 to 256 characters without * ? or backslash; it is a tag filter")
        if not 5 <= page_size <= 1000:
            raise ValueError(f"page_size={page_size!r}: EC2 pages hold 5 to 1000 instances")
        self._offers = tuple(offer for offer in offers if offer.provider == self.name and offer.region == region)
        self._owner = owner
        self._image_id = image_id
        self._region = region
        self._subnets = dict(subnets or {})
        self._security_groups = list(security_groups)
        self._instance_profile = instance_profile
        self._page_size = page_size
        self._now = now
        self._build = functools.partial(client.clients, region=region, endpoint_url=endpoint_url, keys=keys)
        self._built: client.Clients | None = None
        self._retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception(_passing),
            stop=tenacity.stop_after_attempt(read_attempts),
            wait=tenacity.wait_random_exponential(multiplier=read_wait_s, max=8 * read_wait_s),
            reraise=True,
        )

    @property
    def _ec2(self) -> client.Clients:
        # Built on first use: an installation that never buys loads no SDK.
        if self._built is None:
            self._built = self._build()
        return self._built

    def offers(self) -> Iterable[Offer]:
        """The offers of this region, as given; calls nobody."""
        return self._offers

    def launch(self, order: Order) -> Machine:
        """Buy one instance under the order's token; the same order again returns the same instance.

        Raises BuyError; ``launched`` None means that an instance may run under the order's key.
        """
        request = self._request(order)
        try:
            answer = self._ec2.buy.run_instances(**request)
        except Exception as error:
            # Whatever goes wrong here, a purchase hangs on it: nothing may escape without its outcome.
            raise errors.buy_error(error) from error
        return self._machine(answer["Instances"][0], key=order.key)

    def poll(self, machine: Machine) -> Machine:
        """The machine as EC2 describes it now.

        Absent within five minutes of its launch is ``pending``: EC2 shows new instances late. Later it is ``gone``. A
        machine whose launch time is unknown (no ticket) stays as it was. Raises BuyError when an accepted purchase
        failed: pending before, terminated now, and nobody asked for it.
        """
        found = self._read(lambda: self._describe(machine.id))
        if found is None:
            return self._absent(machine)
        seen = self._machine(found, key=machine.key)
        reason = found.get("StateReason", {})
        code = reason.get("Code", "")
        if seen.state is MachineState.GONE and machine.state is MachineState.PENDING and code not in {"", _USER}:
            raise errors.state_error(code, reason.get("Message", ""))
        return seen

    def list(self) -> Sequence[Machine]:
        """All instances with our owner tag that are not terminated, in the order of their ids."""
        found = self._read(self._owned)
        return sorted((self._machine(instance) for instance in found), key=lambda machine: machine.id)

    def terminate(self, machine: Machine) -> None:
        """Ask EC2 to end the instance; one that is absent or ended already is a success.

        An instance so new that EC2 does not show it yet is absent too: the sweep by ``list`` finds it later.
        """

        def ask() -> None:
            try:
                self._ec2.read.terminate_instances(InstanceIds=[machine.id])
            except Exception as error:
                if errors.code_of(error) != errors.NOT_FOUND:
                    raise

        self._read(ask)

    def notices(self) -> Iterable[Notice]:
        """None: EC2's warnings come through a queue that this provider does not read yet."""
        return ()

    # Requests -----------------------------------------------------------------------------------------------------

    def _request(self, order: Order) -> dict[str, Any]:
        """Arguments of RunInstances: a function of order and settings alone, so that a repeat is the same call."""
        offer = order.offer
        if offer.provider != self.name or offer.region != self._region:
            raise errors.refused("WrongProvider", f"offer {offer.id} is not of aws {self._region}")
        if not offer.zone:
            raise errors.refused("ZoneMissing", f"offer {offer.id} names no zone; EC2 keeps tokens per zone: name one")
        if offer.capacity_type is CapacityType.RESERVED:
            raise errors.refused("ReservedNotSupported", f"offer {offer.id}: reservations cannot be bought here yet")
        if len(order.user_data.encode()) > USER_DATA_LIMIT:
            raise errors.refused("UserDataTooLarge", f"user data is longer than {USER_DATA_LIMIT} bytes; shorten it")
        # Our own tags win over labels of the same name: the sweep depends on them.
        tags = {"Name": order.token, **order.labels, OWNER_TAG: self._owner, KEY_TAG: order.key}
        tag_list = [{"Key": key, "Value": value} for key, value in sorted(tags.items())]
        request: dict[str, Any] = {
            "ClientToken": order.token,
            "ImageId": self._image_id,
            "InstanceType": offer.instance_type,
            "MinCount": 1,
            "MaxCount": 1,
            # User data may hold a bootstrap token: only the instance itself may read it, not its containers.
            "MetadataOptions": {"HttpTokens": "required", "HttpPutResponseHopLimit": 1},
            "TagSpecifications": [{"ResourceType": kind, "Tags": tag_list} for kind in ("instance", "volume")],
        }
        if self._subnets:
            if offer.zone not in self._subnets:
                raise errors.refused("SubnetMissing", f"no subnet for zone {offer.zone}; the settings name none")
            request["SubnetId"] = self._subnets[offer.zone]
        else:
            request["Placement"] = {"AvailabilityZone": offer.zone}
        if offer.capacity_type is CapacityType.SPOT:
            request["InstanceMarketOptions"] = {
                "MarketType": "spot",
                "SpotOptions": {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"},
            }
        if self._security_groups:
            request["SecurityGroupIds"] = self._security_groups
        if self._instance_profile:
            request["IamInstanceProfile"] = {"Name": self._instance_profile}
        if order.user_data:
            request["UserData"] = order.user_data
        return request

    def _describe(self, instance_id: str) -> "InstanceTypeDef | None":
        try:
            answer = self._ec2.read.describe_instances(InstanceIds=[instance_id])
        except Exception as error:
            if errors.code_of(error) == errors.NOT_FOUND:
                return None
            raise
        return next((found for group in answer["Reservations"] for found in group.get("Instances", ())), None)

    def _owned(self) -> "list[InstanceTypeDef]":
        pages = self._ec2.read.get_paginator("describe_instances").paginate(
            Filters=[
                {"Name": f"tag:{OWNER_TAG}", "Values": [self._owner]},
                {"Name": "instance-state-name", "Values": _LISTED},
            ],
            PaginationConfig={"PageSize": self._page_size},
        )
        return [found for page in pages for group in page["Reservations"] for found in group.get("Instances", ())]

    def _read(self, call: Callable[[], Answer]) -> Answer:
        """An idempotent call, tried again while the failure may pass by itself."""
        try:
            return self._retrying(call)
        except Exception as error:
            failure = errors.buy_error(error)
            raise BuyError(
                why=failure.why,
                scope=failure.scope,
                code=failure.code,
                message=failure.message,
                launched=None,
                retry_after_s=failure.retry_after_s,
            ) from error

    # Answers ------------------------------------------------------------------------------------------------------

    def _machine(self, instance: "InstanceTypeDef", key: str = "") -> Machine:
        tags = {tag.get("Key", ""): tag.get("Value", "") for tag in instance.get("Tags", ())}
        zone = instance.get("Placement", {}).get("AvailabilityZone", "")
        instance_id = instance.get("InstanceId", "")
        launched = instance.get("LaunchTime")
        return Machine(
            id=instance_id,
            key=key or tags.get(KEY_TAG, ""),
            state=STATES.get(instance.get("State", {}).get("Name", ""), MachineState.PENDING),
            provider_id=f"aws:///{zone}/{instance_id}",
            zone=zone,
            instance_type=instance.get("InstanceType", ""),
            capacity_type=_LIFECYCLES.get(instance.get("InstanceLifecycle", ""), CapacityType.ON_DEMAND),
            # The launch time is all that is needed later: it tells "not visible yet" from "gone".
            ticket=launched.astimezone(dt.UTC).isoformat(timespec="seconds") if launched else "",
        )

    def _absent(self, machine: Machine) -> Machine:
        if not machine.ticket:
            return machine
        launched = dt.datetime.fromisoformat(machine.ticket).timestamp()
        fresh = self._now() - launched < VISIBLE_WITHIN_S
        return dataclasses.replace(machine, state=MachineState.PENDING if fresh else MachineState.GONE)


def _passing(error: BaseException) -> bool:
    """Whether a failed read may succeed when it is repeated."""
    return isinstance(error, Exception) and errors.buy_error(error).why in {Why.THROTTLED, Why.TRANSIENT, Why.UNKNOWN}
