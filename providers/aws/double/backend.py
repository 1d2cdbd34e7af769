"""moto's EC2 of one region with indexes: instances by id and by tag, ended ones apart.

moto walks all instances, and for each of them all tags, on every call, and keeps ended instances for ever. Here a call
costs what it finds. Images and volumes are left out: a launch names any image, and no disk is modelled.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any, cast

from moto.core.types import Base64EncodedString
from moto.ec2.models import EC2Backend
from moto.ec2.models.instances import Instance, InstanceState, Reservation, StateReason
from moto.ec2.models.subnets import Subnet
from moto.ec2.utils import random_reservation_id

from providers.aws.double import refusals
from providers.aws.double.state import InstanceRecord, Pool

# moto counts its objects in ``__new__``, whose annotation hides the class that is made.
_make_instance = cast("Callable[..., Instance]", Instance)


@dataclasses.dataclass(slots=True, kw_only=True)
class Entry:
    """One instance and what moto does not know about it."""

    number: int
    """Order of launch."""
    instance: Instance
    reservation: Reservation
    pool: Pool
    token: str
    hidden: int
    """Describe calls that still miss it."""
    pending: int
    """Describe calls that still see it pending."""

    @property
    def ended(self) -> bool:
        return self.instance.state_code == 48


class TagIndex:
    """Entries by (key, value) of their tags."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], dict[str, Entry]] = {}

    def add(self, entry: Entry, tags: Mapping[str, str]) -> None:
        for pair in tags.items():
            self._entries.setdefault(pair, {})[entry.instance.id] = entry

    def remove(self, entry: Entry, tags: Mapping[str, str]) -> None:
        for pair in tags.items():
            found = self._entries.get(pair)
            if found is not None:
                found.pop(entry.instance.id, None)
                if not found:
                    del self._entries[pair]

    def find(self, key: str, values: Iterable[str]) -> dict[str, Entry]:
        found: dict[str, Entry] = {}
        for value in values:
            found.update(self._entries.get((key, value), {}))
        return found


class IndexedBackend(EC2Backend):
    """One region of one account."""

    def __init__(self, region_name: str, account_id: str) -> None:
        # Before moto's part: it creates tags while it builds the default network.
        self.entries: dict[str, Entry] = {}
        self.live: dict[str, Entry] = {}
        self.by_tag = TagIndex()
        self.live_by_tag = TagIndex()
        super().__init__(region_name, account_id)

    def _load_amis(self) -> None:
        # Hundreds of images of no use here: their ids are not the caller's.
        return

    # Instances ----------------------------------------------------------------------------------------------------

    def launch(
        self,
        *,
        count: int,
        pool: Pool,
        subnet_id: str,
        token: str,
        image_id: str,
        user_data: Base64EncodedString | None,
        security_group_ids: list[str],
        tags: dict[str, str],
        metadata_options: dict[str, Any],
        hidden: int,
        pending: int,
    ) -> Reservation:
        """Make ``count`` instances of one reservation, all of them pending."""
        groups = [self._group(group_id) for group_id in security_group_ids]
        reservation = Reservation(reservation_id=random_reservation_id(), owner_id=self.account_id)
        for index in range(count):
            instance = _make_instance(
                self,
                image_id,
                user_data,
                groups,
                instance_type=pool.instance_type,
                region_name=self.region_name,
                subnet_id=subnet_id or self.default_subnets[pool.zone].id,
                client_token=token,
                lifecycle="spot" if pool.market == "spot" else None,
                ami_launch_index=index,
                metadata_options=metadata_options,
            )
            instance._state = InstanceState("pending", 0)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
            entry = Entry(
                number=len(self.entries),
                instance=instance,
                reservation=reservation,
                pool=pool,
                token=token,
                hidden=hidden,
                pending=pending,
            )
            reservation.instances.append(instance)
            self.entries[instance.id] = self.live[instance.id] = entry
            self.create_tags([instance.id], tags)
        self.reservations[reservation.id] = reservation
        return reservation

    def end(self, entry: Entry, code: str = "", message: str = "") -> None:
        """Terminate an instance; with a code it is EC2's doing, without one the caller's."""
        instance = entry.instance
        instance.terminate()
        if code:
            instance.state_reason = StateReason(f"{code}: {message}", code)
        # moto keeps the network interface and the address of an ended instance: a month of launches would run dry.
        for interface in list(instance.nics.values()):
            if interface.id in self.enis:
                interface.delete()
        instance._private_ips.clear()  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]
        self.live.pop(instance.id, None)
        self.live_by_tag.remove(entry, self.tags.get(instance.id, {}))

    def entry(self, instance_id: str) -> Entry | None:
        return self.entries.get(instance_id)

    def records(self) -> list[InstanceRecord]:
        return [
            InstanceRecord(
                id=entry.instance.id,
                instance_type=entry.pool.instance_type,
                zone=entry.pool.zone,
                market=entry.pool.market,
                state=entry.instance.state,
                token=entry.token,
                tags=dict(self.tags.get(entry.instance.id, {})),
            )
            for entry in self.entries.values()
        ]

    # What moto's own parts look up ----------------------------------------------------------------------------------

    @functools.cached_property
    def default_subnets(self) -> dict[str, Subnet]:
        return self.get_default_subnets()

    def _group(self, group_id: str) -> Any:
        group = self.get_security_group_from_id(group_id)
        if group is None:
            raise refusals.Refusal("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
        return group

    def get_instance(self, instance_id: str) -> Instance:
        entry = self.entries.get(instance_id)
        if entry is None:
            raise refusals.not_found([instance_id])
        return entry.instance

    def get_instance_by_id(self, instance_id: str) -> Instance | None:
        entry = self.entries.get(instance_id)
        return entry.instance if entry else None

    def describe_images(
        self,
        ami_ids: list[str] | None = None,
        filters: dict[str, Any] | None = None,
        exec_users: list[str] | None = None,
        owners: list[str] | None = None,
    ) -> list[Any]:
        return super().describe_images(ami_ids, filters, exec_users, owners) if self.amis else []

    def describe_tags(self, filters: dict[str, list[str]] | None = None) -> list[dict[str, str]]:
        if (
            filters
            and set(filters) == {"resource-id"}
            and not any(set(name) & set("*?") for name in filters["resource-id"])
        ):
            return [
                {"resource_id": name, "key": key, "value": value, "resource_type": ""}
                for name in filters["resource-id"]
                for key, value in self.tags.get(name, {}).items()
            ]
        return super().describe_tags(filters)

    def create_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        self._unindex(resource_ids)
        try:
            return super().create_tags(resource_ids, tags)
        finally:
            self._index(resource_ids)

    def delete_tags(self, resource_ids: list[str], tags: dict[str, str]) -> bool:
        self._unindex(resource_ids)
        try:
            return super().delete_tags(resource_ids, tags)
        finally:
            self._index(resource_ids)

    def _unindex(self, resource_ids: list[str]) -> None:
        for entry in self._known(resource_ids):
            self.by_tag.remove(entry, self.tags.get(entry.instance.id, {}))
            self.live_by_tag.remove(entry, self.tags.get(entry.instance.id, {}))

    def _index(self, resource_ids: list[str]) -> None:
        for entry in self._known(resource_ids):
            self.by_tag.add(entry, self.tags.get(entry.instance.id, {}))
            if not entry.ended:
                self.live_by_tag.add(entry, self.tags.get(entry.instance.id, {}))

    def _known(self, resource_ids: list[str]) -> list[Entry]:
        return [self.entries[name] for name in resource_ids if name in self.entries]
