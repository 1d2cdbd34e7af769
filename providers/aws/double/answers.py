"""Instances as EC2's answers show them, and their way into XML.

moto's serializer tries several spellings of every field of every object: seven milliseconds per instance. What is
written here has EC2's own spelling already, so that a field is looked up once. A field without a value is left out, as
EC2 does.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from botocore.model import Shape
from moto.core import responses
from moto.core.common_types import TYPE_RESPONSE
from moto.core.serialize import EC2Serializer
from moto.ec2.models.instances import Instance

from providers.aws.double.backend import Entry


class PlainSerializer(EC2Serializer):
    """Serializes dictionaries whose keys are the members of EC2's shapes."""

    def get_value(self, value: Any, key: str, shape: Shape) -> Any:
        del shape
        return value.get(key)


class PlainResult(responses.ActionResult):
    """A result in the shape that boto3 shows to its caller."""

    def execute_result(self, context: responses.ActionContext) -> TYPE_RESPONSE:
        serializer = PlainSerializer(operation_model=context.operation_model)
        done = serializer.serialize(self.result)
        return done["status_code"], dict(done["headers"]), done["body"]


def reservations(entries: Iterable[Entry], tags: Mapping[str, Mapping[str, str]]) -> list[dict[str, Any]]:
    """Reservations that hold just these instances, in the order in which their first one comes."""
    groups: dict[str, dict[str, Any]] = {}
    for entry in entries:
        reservation = entry.reservation
        group = groups.get(reservation.id)
        if group is None:
            group = groups[reservation.id] = {
                "ReservationId": reservation.id,
                "OwnerId": reservation.owner_id,
                "Groups": [],
                "Instances": [],
            }
        group["Instances"].append(_instance(entry, tags.get(entry.instance.id, {})))
    return list(groups.values())


def _instance(entry: Entry, tags: Mapping[str, str]) -> dict[str, Any]:
    instance = entry.instance
    shown: dict[str, Any] = {
        "InstanceId": instance.id,
        "ImageId": instance.image_id,
        "State": {"Code": instance.state_code, "Name": instance.state},
        "StateTransitionReason": instance.state_transition_reason,
        "AmiLaunchIndex": instance.ami_launch_index,
        "ClientToken": entry.token or None,
        "InstanceType": instance.instance_type,
        "LaunchTime": instance.launch_time,
        "Placement": {"AvailabilityZone": entry.pool.zone, "Tenancy": "default"},
        "Monitoring": {"State": instance.monitoring_state},
        "SubnetId": instance.subnet_id,
        "Architecture": instance.architecture,
        "RootDeviceType": instance.root_device_type,
        "InstanceLifecycle": instance.lifecycle,
        "SecurityGroups": [{"GroupId": group.id, "GroupName": group.name} for group in instance.security_groups],
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()] or None,
    }
    if instance.state_reason.code:
        shown["StateReason"] = {"Code": instance.state_reason.code, "Message": instance.state_reason.message}
    if not entry.ended:
        shown.update(_network(instance))
    return shown


def _network(instance: Instance) -> dict[str, Any]:
    """What an instance loses when it ends."""
    return {
        "VpcId": instance.vpc_id,
        "PrivateIpAddress": instance.private_ip_address,
        "PrivateDnsName": instance.private_dns_name,
    }
