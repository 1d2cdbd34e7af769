"""What is EC2's alone: one try per purchase, zonal tokens, paging, tags, and the requests that are refused at home."""

import dataclasses
import subprocess
import sys
from typing import Any

import pytest

from providers.aws import errors
from providers.aws.client import DOUBLE_KEYS
from providers.aws.provider import KEY_TAG, OWNER_TAG, AwsProvider
from providers.errors import BuyError, Scope, Why
from providers.offers import CapacityType, Order
from tests.providers.harness import TYPE, AwsHarness


def provider_with(aws: AwsHarness, **settings: Any) -> AwsProvider:
    return AwsProvider(
        offers=(), owner="ours", image_id="ami-1", endpoint_url=aws.double.url, keys=DOUBLE_KEYS, **settings
    )


def refused(provider: AwsProvider, order: Order) -> BuyError:
    with pytest.raises(BuyError) as caught:
        provider.launch(order)
    return caught.value


@pytest.mark.parametrize(
    "code", ["InsufficientInstanceCapacity", "RequestLimitExceeded", "InternalError", "VcpuLimitExceeded"]
)
def test_a_purchase_is_tried_once(aws: AwsHarness, code: str) -> None:
    aws.double.inject("RunInstances", code=code, times=5)
    refused(aws.provider(), aws.order("k"))
    assert [call.action for call in aws.double.call_log()] == ["RunInstances"]


def test_a_purchase_is_tried_once_when_the_connection_ends(aws: AwsHarness) -> None:
    aws.double.inject("RunInstances", lost=True, times=5)
    assert refused(aws.provider(), aws.order("k")).launched is None
    assert [call.outcome for call in aws.double.call_log()] == ["lost"]


def test_nobody_at_the_other_end_is_an_unknown_outcome(aws: AwsHarness) -> None:
    provider = AwsProvider(
        offers=(), owner="ours", image_id="ami-1", endpoint_url="http://127.0.0.1:9", keys=DOUBLE_KEYS
    )
    error = refused(provider, aws.order("k"))
    assert (error.why, error.scope, error.launched) == (Why.UNKNOWN, Scope.OFFER, None)


def test_an_answer_that_is_not_ec2s_is_an_unknown_outcome(aws: AwsHarness) -> None:
    # As from a proxy in between: botocore's parser gives up, and the purchase may have happened.
    provider = AwsProvider(
        offers=(), owner="ours", image_id="ami-1", endpoint_url=f"{aws.double.url}/tidegate/nothing", keys=DOUBLE_KEYS
    )
    error = refused(provider, aws.order("k"))
    assert (error.code, error.why, error.launched) == ("ResponseParserError", Why.UNKNOWN, None)


def test_tokens_are_zonal(aws: AwsHarness) -> None:
    first = aws.provider().launch(aws.order("k", zone=aws.zones[0]))
    second = aws.provider().launch(aws.order("k", zone=aws.zones[1]))
    assert first.id != second.id
    assert aws.running() == 2


def test_failed_order_cannot_be_changed_under_its_key(aws: AwsHarness) -> None:
    aws.dry()
    assert refused(aws.provider(), aws.order("k")).why is Why.CAPACITY
    error = refused(aws.provider(), aws.order("k", spot=True))
    assert (error.code, error.why, error.launched) == ("IdempotentParameterMismatch", Why.INVALID, None)


def test_key_of_an_ended_machine_buys_nothing(aws: AwsHarness) -> None:
    provider = aws.provider()
    provider.terminate(provider.launch(aws.order("k")))
    error = refused(provider, aws.order("k"))
    assert (error.code, error.why, error.launched) == ("IdempotentInstanceTerminated", Why.INVALID, False)
    assert aws.running() == 0


def test_type_that_is_unknown_or_not_sold_in_the_zone(aws: AwsHarness) -> None:
    order = aws.order("k")
    odd = dataclasses.replace(order, offer=dataclasses.replace(order.offer, instance_type="g99.huge"))
    error = refused(aws.provider(), odd)
    assert (error.why, error.scope, error.launched) == (Why.INVALID, Scope.OFFER, False)
    assert "g99.huge" in error.message
    aws.double.withhold(TYPE, aws.zones[0])
    error = refused(aws.provider(), order)
    assert (error.code, error.why, error.scope) == ("Unsupported", Why.INVALID, Scope.ZONE)
    assert aws.provider().launch(aws.order("k2", zone=aws.zones[1])).zone == aws.zones[1]


def test_lists_page_to_the_end(aws: AwsHarness) -> None:
    provider = aws.provider(page_size=5)
    bought = {provider.launch(aws.order(f"k{number}")).id for number in range(23)}
    aws.provider("theirs").launch(aws.order("foreign"))
    assert {machine.id for machine in provider.list()} == bought
    pages = [call for call in aws.double.call_log() if call.action == "DescribeInstances"]
    assert len(pages) == 5


@pytest.mark.timeout(120)
def test_lists_more_than_a_thousand(aws: AwsHarness) -> None:
    provider = aws.provider()
    bought = {provider.launch(aws.order(f"k{number}")).id for number in range(1003)}
    assert {machine.id for machine in provider.list()} == bought
    assert sum(call.action == "DescribeInstances" for call in aws.double.call_log()) == 2


def test_tags_travel_with_the_purchase(aws: AwsHarness) -> None:
    order = dataclasses.replace(aws.order("claim/0"), labels={"team": "ml", OWNER_TAG: "somebody else"})
    aws.provider().launch(order)
    assert [call.action for call in aws.double.call_log()] == ["RunInstances"]
    (record,) = aws.double.instances()
    assert record.tags == {"team": "ml", OWNER_TAG: "ours", KEY_TAG: "claim/0", "Name": order.token}
    assert record.token == order.token


def test_subnet_of_the_zone_is_used_and_its_zone_is_the_machines(aws: AwsHarness) -> None:
    subnet = aws.double.backend("us-east-1").default_subnets[aws.zones[1]].id
    provider = provider_with(aws, subnets={aws.zones[1]: subnet})
    assert provider.launch(aws.order("k", zone=aws.zones[1])).zone == aws.zones[1]
    error = refused(provider, aws.order("k2", zone=aws.zones[0]))
    assert (error.code, error.launched) == ("SubnetMissing", False)
    assert len(aws.double.call_log()) == 1


def test_security_group_that_does_not_exist_is_our_mistake(aws: AwsHarness) -> None:
    error = refused(provider_with(aws, security_groups=["sg-0"]), aws.order("k"))
    assert (error.code, error.why, error.launched) == ("InvalidGroup.NotFound", Why.INVALID, False)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"zone": ""}, "ZoneMissing"),
        ({"region": "eu-west-1"}, "WrongProvider"),
        ({"provider": "gcp"}, "WrongProvider"),
        ({"capacity_type": CapacityType.RESERVED}, "ReservedNotSupported"),
    ],
)
def test_orders_refused_at_home(aws: AwsHarness, change: dict[str, Any], code: str) -> None:
    order = Order(key="k", offer=dataclasses.replace(aws.offer(), **change))
    error = refused(aws.provider(), order)
    assert (error.code, error.why, error.launched) == (code, Why.INVALID, False)
    assert aws.double.call_log() == []


def test_user_data_has_a_limit(aws: AwsHarness) -> None:
    order = Order(key="k", offer=aws.offer(), user_data="ü" * 8_193)
    assert refused(aws.provider(), order).code == "UserDataTooLarge"
    assert aws.provider().launch(dataclasses.replace(order, user_data="x" * 16_384)).key == "k"


@pytest.mark.parametrize("settings", [{"owner": ""}, {"owner": "a*"}, {"page_size": 1}, {"page_size": 2000}])
def test_settings_that_ec2_would_refuse(settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"^{next(iter(settings))}="):
        AwsProvider(offers=(), image_id="ami-1", owner=settings.pop("owner", "a"), **settings)


def test_machine_without_ticket_that_is_absent_stays_what_it_was(aws: AwsHarness) -> None:
    provider = aws.provider()
    machine = provider.launch(aws.order("k"))
    unknown = dataclasses.replace(machine, id="i-00000000000000000", ticket="")
    assert provider.poll(unknown) == unknown


TABLE = [
    ("InsufficientInstanceCapacity", 500, Why.CAPACITY, Scope.ZONE, False),
    ("InsufficientHostCapacity", 500, Why.CAPACITY, Scope.ZONE, False),
    ("InsufficientFreeAddressesInSubnet", 400, Why.CAPACITY, Scope.ZONE, False),
    ("UnfulfillableCapacity", 400, Why.CAPACITY, Scope.OFFER, False),
    ("ReservationCapacityExceeded", 400, Why.CAPACITY, Scope.OFFER, False),
    ("SpotMaxPriceTooLow", 400, Why.CAPACITY, Scope.OFFER, False),
    ("Unsupported", 400, Why.INVALID, Scope.ZONE, False),
    ("VcpuLimitExceeded", 400, Why.QUOTA, Scope.REGION, False),
    ("InstanceLimitExceeded", 400, Why.QUOTA, Scope.REGION, False),
    ("MaxSpotInstanceCountExceeded", 400, Why.QUOTA, Scope.MARKET, False),
    ("MaxFleetCountExceeded", 400, Why.QUOTA, Scope.REGION, False),
    ("RequestLimitExceeded", 503, Why.THROTTLED, Scope.ACCOUNT, False),
    ("UnauthorizedOperation", 403, Why.AUTH, Scope.ACCOUNT, False),
    ("AuthFailure", 401, Why.AUTH, Scope.ACCOUNT, False),
    ("OptInRequired", 401, Why.AUTH, Scope.ACCOUNT, False),
    ("PendingVerification", 401, Why.AUTH, Scope.ACCOUNT, False),
    ("AuthFailure.ServiceLinkedRoleCreationNotPermitted", 403, Why.AUTH, Scope.MARKET, False),
    ("IdempotentParameterMismatch", 400, Why.INVALID, Scope.OFFER, None),
    ("IdempotentInstanceTerminated", 400, Why.INVALID, Scope.OFFER, False),
    ("InvalidAMIID.NotFound", 400, Why.INVALID, Scope.OFFER, False),
    ("SomethingNew", 418, Why.INVALID, Scope.OFFER, False),
    ("InternalError", 500, Why.TRANSIENT, Scope.OFFER, None),
    ("Unavailable", 503, Why.TRANSIENT, Scope.OFFER, None),
]


@pytest.mark.parametrize(("code", "status", "why", "scope", "launched"), TABLE)
def test_every_code_means_what_the_table_says(
    aws: AwsHarness, code: str, status: int, why: Why, scope: Scope, *, launched: bool | None
) -> None:
    aws.double.inject("RunInstances", code=code, status=status, message=f"about {code}")
    error = refused(aws.provider(), aws.order("k"))
    assert (error.code, error.why, error.scope, error.launched) == (code, why, scope, launched)
    assert error.message == f"about {code}"


def test_the_table_leaves_out_no_code() -> None:
    state_reasons = {"SpotInstanceTermination", "SpotInstanceShutdown", "VolumeLimitExceeded"}
    assert set(errors.CODES) - state_reasons == {row[0] for row in TABLE} - {
        "InvalidAMIID.NotFound",
        "SomethingNew",
        "InternalError",
        "Unavailable",
    }


@pytest.mark.parametrize(
    ("code", "why", "scope"),
    [
        ("Server.InsufficientInstanceCapacity", Why.CAPACITY, Scope.ZONE),
        ("Server.SpotInstanceTermination", Why.CAPACITY, Scope.OFFER),
        ("Client.VolumeLimitExceeded", Why.QUOTA, Scope.REGION),
        ("Client.InvalidSnapshot.NotFound", Why.INVALID, Scope.OFFER),
        ("Client.InternalError", Why.INVALID, Scope.OFFER),
        ("Server.InternalError", Why.TRANSIENT, Scope.OFFER),
    ],
)
def test_reason_of_an_instance_that_never_ran(aws: AwsHarness, code: str, why: Why, scope: Scope) -> None:
    aws.double.delay(pending_describes=10)
    machine = aws.provider().launch(aws.order("k"))
    aws.double.end_instance(machine.id, code, "because")
    with pytest.raises(BuyError) as caught:
        aws.provider().poll(machine)
    assert (caught.value.why, caught.value.scope, caught.value.launched) == (why, scope, False)
    assert caught.value.code == code


def test_without_credentials_nothing_is_sent(aws: AwsHarness, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    provider = AwsProvider(offers=(), owner="ours", image_id="ami-1", endpoint_url=aws.double.url)
    error = refused(provider, aws.order("k"))
    assert (error.code, error.why, error.launched) == ("NoCredentialsError", Why.AUTH, False)
    assert aws.double.call_log() == []


def test_the_port_the_catalogue_and_the_provider_load_no_sdk() -> None:
    program = (
        "import sys, providers.offers, providers.catalog, providers.errors, providers.aws.provider;"
        "loaded = {'boto3', 'botocore', 'moto', 'flask', 'werkzeug'} & set(sys.modules);"
        "sys.exit(f'loaded: {loaded}' if loaded else 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
