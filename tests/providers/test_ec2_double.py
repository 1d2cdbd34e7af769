"""The double itself, through plain boto3: what it adds to moto, and that it adds it faithfully."""

import concurrent.futures
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
import moto
import pytest
from botocore.exceptions import BotoCoreError, ClientError

from providers.aws.client import DOUBLE_KEYS, clients
from providers.aws.double import server
from providers.aws.double.process import Ec2DoubleProcess
from providers.aws.double.server import Ec2Double
from providers.aws.double.state import Fault, Faults, Pool, Stock

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

ZONE = "us-east-1a"
TYPE = "p5.48xlarge"


@pytest.fixture
def ec2(double: Ec2Double) -> "EC2Client":
    return clients(region="us-east-1", endpoint_url=double.url, keys=DOUBLE_KEYS).buy


def run(ec2: "EC2Client", **changes: Any) -> list[str]:
    request: dict[str, Any] = {
        "ImageId": "ami-1",
        "InstanceType": TYPE,
        "MinCount": 1,
        "MaxCount": 1,
        "Placement": {"AvailabilityZone": ZONE},
        **changes,
    }
    return [instance.get("InstanceId", "") for instance in ec2.run_instances(**request)["Instances"]]


def refused(ec2: "EC2Client", **changes: Any) -> tuple[str, int]:
    with pytest.raises(ClientError) as caught:
        run(ec2, **changes)
    response = cast("Any", caught.value.response)
    return response["Error"]["Code"], response["ResponseMetadata"]["HTTPStatusCode"]


def shown(ec2: "EC2Client", **filters: list[str]) -> list[str]:
    wanted: Any = [{"Name": name.replace("_", "-"), "Values": values} for name, values in filters.items()]
    return [
        instance.get("InstanceId", "")
        for reservation in ec2.describe_instances(Filters=wanted)["Reservations"]
        for instance in reservation.get("Instances", [])
    ]


SPOT = {"MarketType": "spot"}
DRY = ("InsufficientInstanceCapacity", 500)


def test_capacity_runs_out_with_a_server_error_and_comes_back(double: Ec2Double, ec2: "EC2Client") -> None:
    double.set_capacity(TYPE, ZONE, "on-demand", 2)
    first = run(ec2)
    run(ec2)
    assert refused(ec2) == DRY
    ec2.terminate_instances(InstanceIds=first)
    ec2.terminate_instances(InstanceIds=first)
    assert len(run(ec2)) == 1
    assert refused(ec2) == DRY


def test_the_message_names_type_and_zone(double: Ec2Double, ec2: "EC2Client") -> None:
    double.set_capacity(TYPE, ZONE, "on-demand", 0)
    with pytest.raises(ClientError, match=rf"{TYPE}.*{ZONE}"):
        run(ec2)


def test_pools_are_per_zone_market_and_type(double: Ec2Double, ec2: "EC2Client") -> None:
    double.set_capacity(TYPE, ZONE, "on-demand", 0)
    assert run(ec2, InstanceMarketOptions=SPOT)
    assert run(ec2, Placement={"AvailabilityZone": "us-east-1b"})
    assert run(ec2, InstanceType="g5.xlarge")
    assert refused(ec2) == DRY


def test_a_limit_over_all_zones_counts_together_with_that_of_the_zone(double: Ec2Double, ec2: "EC2Client") -> None:
    double.set_capacity(TYPE, None, "spot", 2)
    double.set_capacity(TYPE, ZONE, "spot", 1)
    assert run(ec2, InstanceMarketOptions=SPOT)
    assert refused(ec2, InstanceMarketOptions=SPOT) == DRY
    elsewhere = {"AvailabilityZone": "us-east-1c"}
    assert run(ec2, InstanceMarketOptions=SPOT, Placement=elsewhere)
    assert refused(ec2, InstanceMarketOptions=SPOT, Placement=elsewhere) == DRY


def test_partial_fulfilment_between_minimum_and_maximum(double: Ec2Double, ec2: "EC2Client") -> None:
    double.set_capacity(TYPE, ZONE, "on-demand", 3)
    assert len(run(ec2, MinCount=2, MaxCount=5)) == 3
    assert refused(ec2) == DRY
    double.set_capacity(TYPE, ZONE, "on-demand", 4)
    assert refused(ec2, MinCount=2, MaxCount=5) == DRY
    assert len(run(ec2, MinCount=1, MaxCount=5)) == 1
    assert refused(ec2, MinCount=3, MaxCount=2) == ("InvalidParameterValue", 400)


def test_token_buys_once_per_zone(ec2: "EC2Client") -> None:
    first = run(ec2, ClientToken="t", MaxCount=2, MinCount=2)
    assert run(ec2, ClientToken="t", MaxCount=2, MinCount=2) == first
    assert run(ec2, ClientToken="t", MaxCount=2, MinCount=2, Placement={"AvailabilityZone": "us-east-1b"}) != first
    assert refused(ec2, ClientToken="t") == ("IdempotentParameterMismatch", 400)
    assert len(shown(ec2, client_token=["t"])) == 4
    # A call without a token of its own gets a fresh one from botocore.
    assert run(ec2) != run(ec2)


def test_token_is_bound_by_a_failed_call_but_not_by_one_that_was_never_looked_at(
    double: Ec2Double, ec2: "EC2Client"
) -> None:
    double.set_capacity(TYPE, ZONE, "on-demand", 0)
    assert refused(ec2, ClientToken="dry") == DRY
    assert refused(ec2, ClientToken="dry", InstanceType="g5.xlarge")[0] == "IdempotentParameterMismatch"
    double.set_capacity(TYPE, ZONE, "on-demand", 1)
    assert run(ec2, ClientToken="dry")
    double.inject("RunInstances", code="InternalError")
    assert refused(ec2, ClientToken="broken") == ("InternalError", 500)
    assert refused(ec2, ClientToken="broken", InstanceType="g5.xlarge")[0] == "IdempotentParameterMismatch"
    double.inject("RunInstances", code="RequestLimitExceeded")
    assert refused(ec2, ClientToken="slow") == ("RequestLimitExceeded", 503)
    assert run(ec2, ClientToken="slow", InstanceType="g5.xlarge")


def test_failed_calls_can_be_told_not_to_bind() -> None:
    with Ec2Double(failed_calls_bind=False) as double:
        ec2 = clients(region="us-east-1", endpoint_url=double.url, keys=DOUBLE_KEYS).buy
        double.set_capacity(TYPE, ZONE, "on-demand", 0)
        assert refused(ec2, ClientToken="t") == DRY
        assert run(ec2, ClientToken="t", InstanceType="g5.xlarge")


def test_token_of_an_ended_instance(ec2: "EC2Client") -> None:
    ec2.terminate_instances(InstanceIds=run(ec2, ClientToken="t"))
    assert refused(ec2, ClientToken="t") == ("IdempotentInstanceTerminated", 400)


def test_faults_come_in_order_and_as_often_as_asked(double: Ec2Double, ec2: "EC2Client") -> None:
    double.inject("RunInstances", code="VcpuLimitExceeded", times=2)
    double.inject("RunInstances", code="Odd", status=418)
    assert [refused(ec2) for _ in range(3)] == [("VcpuLimitExceeded", 400)] * 2 + [("Odd", 418)]
    assert run(ec2)
    assert len(double.instances()) == 1


def test_fault_after_the_effect(double: Ec2Double, ec2: "EC2Client") -> None:
    double.inject("RunInstances", code="InternalError", after=True)
    assert refused(ec2, ClientToken="t") == ("InternalError", 500)
    (record,) = double.instances()
    assert run(ec2, ClientToken="t") == [record.id]
    double.inject("TerminateInstances", lost=True, after=True)
    with pytest.raises(BotoCoreError):
        ec2.terminate_instances(InstanceIds=[record.id])
    assert [known.state for known in double.instances()] == ["terminated"]


@pytest.mark.parametrize("after", [True, False])
def test_lost_answer_is_a_lost_connection(double: Ec2Double, ec2: "EC2Client", *, after: bool) -> None:
    double.inject("RunInstances", lost=True, after=after)
    with pytest.raises(BotoCoreError):
        run(ec2, ClientToken="t")
    assert len(double.instances()) == after
    assert len(run(ec2, ClientToken="t")) == 1
    assert [(call.outcome, call.effect) for call in double.call_log()] == [("lost", after), ("ok", True)]
    assert len(double.instances()) == 1


def test_faults_that_would_do_nothing_are_refused(double: Ec2Double) -> None:
    with pytest.raises(ValueError, match="times"):
        double.inject("RunInstances", code="X", times=0)
    with pytest.raises(ValueError, match="code"):
        double.inject("RunInstances")
    with pytest.raises(ValueError, match="market"):
        double.set_capacity(TYPE, ZONE, "flea", 1)
    with pytest.raises(ValueError, match="count"):
        double.set_capacity(TYPE, ZONE, "spot", -1)


def test_call_log_tells_purchases_from_tries(double: Ec2Double, ec2: "EC2Client") -> None:
    (bought,) = run(ec2, ClientToken="t")
    run(ec2, ClientToken="t")
    ec2.terminate_instances(InstanceIds=[bought])
    log = [(call.number, call.action, call.token, call.outcome, call.instance_ids) for call in double.call_log()]
    assert log == [
        (1, "RunInstances", "t", "ok", (bought,)),
        (2, "RunInstances", "t", "ok", (bought,)),
        (3, "TerminateInstances", "", "ok", (bought,)),
    ]


def test_reading_by_id_tag_state_and_combinations(ec2: "EC2Client") -> None:
    def tagged(**tags: str) -> str:
        pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
        return run(ec2, TagSpecifications=[{"ResourceType": "instance", "Tags": pairs}])[0]

    one, two, three = tagged(owner="a", team="x"), tagged(owner="a"), tagged(owner="b")
    ec2.terminate_instances(InstanceIds=[two])
    live = ["pending", "running"]
    by_owner: Any = {"tag:owner": ["a"]}
    assert shown(ec2, **by_owner) == [one, two]
    assert shown(ec2, **by_owner, instance_state_name=live) == [one]
    assert shown(ec2, **by_owner, instance_state_name=["terminated"]) == [two]
    assert shown(ec2, **{"tag:owner": ["a", "b"]}, instance_state_name=live) == [one, three]
    assert shown(ec2, **{"tag:owner": ["?"], "tag:team": ["x"]}) == [one]
    assert shown(ec2, tag_key=["team"]) == [one]
    assert shown(ec2, instance_type=["t3.nano"]) == []
    ec2.create_tags(Resources=[three], Tags=[{"Key": "owner", "Value": "a"}])
    assert shown(ec2, **by_owner, instance_state_name=live) == [one, three]
    assert shown(ec2, **{"tag:owner": ["b"]}) == []
    ec2.delete_tags(Resources=[one], Tags=[{"Key": "owner"}])
    assert shown(ec2, **by_owner, instance_state_name=live) == [three]
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.describe_instances(InstanceIds=["i-0"])
    with pytest.raises(ClientError, match=r"InvalidInstanceID\.NotFound"):
        ec2.terminate_instances(InstanceIds=[one, "i-0"])
    assert one in shown(ec2, instance_state_name=live)


def test_an_instance_looks_like_one_of_ec2(ec2: "EC2Client") -> None:
    (bought,) = run(ec2, ClientToken="t", InstanceMarketOptions=SPOT)
    instance: Any = ec2.describe_instances(InstanceIds=[bought])["Reservations"][0].get("Instances", [])[0]
    assert instance["State"] == {"Code": 16, "Name": "running"}
    assert instance["Placement"]["AvailabilityZone"] == ZONE
    assert instance["InstanceLifecycle"] == "spot"
    assert (instance["InstanceType"], instance["ClientToken"], instance["ImageId"]) == (TYPE, "t", "ami-1")
    assert instance["PrivateIpAddress"].startswith("172.31.")
    assert abs(instance["LaunchTime"].timestamp() - time.time()) < 60
    assert shown(ec2, instance_lifecycle=["spot"]) == [bought]


def test_pages(ec2: "EC2Client") -> None:
    bought = run(ec2, MinCount=12, MaxCount=12)
    pages = list(ec2.get_paginator("describe_instances").paginate(PaginationConfig={"PageSize": 5}))
    sizes = [sum(len(group.get("Instances", [])) for group in page["Reservations"]) for page in pages]
    assert sizes == [5, 5, 2]
    groups = [group for page in pages for group in page["Reservations"]]
    seen = [found.get("InstanceId") for group in groups for found in group.get("Instances", [])]
    assert seen == bought
    with pytest.raises(ClientError, match="InvalidMaxResults"):
        ec2.describe_instances(MaxResults=2)


def test_refuses_what_ec2_refuses(ec2: "EC2Client") -> None:
    assert refused(ec2, InstanceType="g99.huge") == ("InvalidParameterValue", 400)
    assert refused(ec2, Placement={"AvailabilityZone": "eu-west-1a"}) == ("InvalidParameterValue", 400)
    assert refused(ec2, Placement={}, SubnetId="subnet-0")[1] == 400
    assert refused(ec2, DryRun=True) == ("DryRunOperation", 412)
    assert run(ec2, InstanceType="bench.8gpu")


def test_the_rest_of_moto_is_still_there(double: Ec2Double, ec2: "EC2Client") -> None:
    double.add_type("next.year")
    assert run(ec2, InstanceType="next.year")
    assert {zone.get("ZoneName") for zone in ec2.describe_availability_zones()["AvailabilityZones"]} >= {ZONE}
    assert len(ec2.describe_subnets()["Subnets"]) == 6
    with pytest.raises(ClientError, match="InvalidAction"):
        ec2.describe_capacity_block_offerings(CapacityDurationHours=24)


def test_addresses_do_not_run_dry(double: Ec2Double, ec2: "EC2Client") -> None:
    for _ in range(3):
        ec2.terminate_instances(InstanceIds=run(ec2, MinCount=50, MaxCount=50))
    backend = double.backend("us-east-1")
    assert backend.enis == {}
    assert len(backend.live) == 0


def test_two_doubles_in_one_process_share_nothing(double: Ec2Double, ec2: "EC2Client") -> None:
    with Ec2Double() as other:
        other_ec2 = clients(region="us-east-1", endpoint_url=other.url, keys=DOUBLE_KEYS).buy
        other.set_capacity(TYPE, ZONE, "on-demand", 0)
        (bought,) = run(ec2, ClientToken="t")
        assert refused(other_ec2, ClientToken="t") == DRY
        assert shown(other_ec2) == []
        assert shown(ec2) == [bought]
        assert len(other.call_log()) == 2
    double.reset()
    assert shown(ec2) == []
    assert [call.action for call in double.call_log()] == ["DescribeInstances"]


def test_concurrent_calls_with_one_token_buy_once(double: Ec2Double, ec2: "EC2Client") -> None:
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        bought = [buying.result() for buying in [pool.submit(run, ec2, ClientToken="t") for _ in range(16)]]
    assert len({instance_id for (instance_id,) in bought}) == 1
    assert len(double.instances()) == 1


def test_reads_stay_fast_beside_many_ended_instances(double: Ec2Double, ec2: "EC2Client") -> None:
    owner: Any = [{"ResourceType": "instance", "Tags": [{"Key": "owner", "Value": "a"}]}]
    for _ in range(5):
        ended = run(ec2, MinCount=200, MaxCount=200, TagSpecifications=owner)
        ec2.terminate_instances(InstanceIds=ended)
    live = [run(ec2, TagSpecifications=owner)[0] for _ in range(5)]
    filters: Any = {"tag:owner": ["a"], "instance_state_name": ["pending", "running"]}
    took: list[float] = []
    for _ in range(10):
        started = time.perf_counter()
        assert shown(ec2, **filters) == live
        took.append(time.perf_counter() - started)
    # moto itself takes a quarter of a second. The fastest of ten: other processes share the machine.
    assert min(took) < 0.05


def test_stopped_double_says_so() -> None:
    double = Ec2Double()
    with pytest.raises(RuntimeError, match="not running"):
        _ = double.url
    with pytest.raises(RuntimeError, match="not running"):
        _ = Ec2DoubleProcess().url


def test_bare_moto_would_prove_nothing() -> None:
    # Why the double exists. When one of these changes, ask whether our part is still needed.
    with moto.mock_aws():
        bare = cast("Any", boto3).client("ec2", region_name="us-east-1")
        request: Any = {"ImageId": "ami-1", "InstanceType": "g99.huge", "MinCount": 1, "MaxCount": 3}
        first, second = (bare.run_instances(**request, ClientToken="t")["Instances"] for _ in range(2))
        assert len(first) == 1
        assert first[0].get("InstanceId") != second[0].get("InstanceId")
        with pytest.raises(NotImplementedError):
            bare.describe_instances(Filters=[{"Name": "client-token", "Values": ["t"]}])


# Its own process -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def process() -> Iterator[Ec2DoubleProcess]:
    with Ec2DoubleProcess() as process:
        yield process


def test_process_serves_and_is_steered_over_http(process: Ec2DoubleProcess) -> None:
    process.reset()
    ec2 = clients(region="us-east-1", endpoint_url=process.url, keys=DOUBLE_KEYS).buy
    process.set_capacity(TYPE, ZONE, "on-demand", 1)
    (bought,) = run(ec2, ClientToken="t")
    assert refused(ec2) == DRY
    process.inject("RunInstances", code="VcpuLimitExceeded")
    assert refused(ec2, InstanceType="g5.xlarge")[0] == "VcpuLimitExceeded"
    process.withhold("g5.xlarge", ZONE)
    assert refused(ec2, InstanceType="g5.xlarge")[0] == "Unsupported"
    process.add_type("next.year")
    process.delay(pending_describes=1)
    assert run(ec2, InstanceType="next.year")
    process.end_instance(bought)
    assert [record.state for record in process.instances()] == ["terminated", "pending"]
    assert process.call_log()[0].instance_ids == (bought,)
    peak = process.health()["peak_rss_mib"]
    assert peak is None or 50 < peak < 300
    with pytest.raises(ValueError, match="does not exist"):
        process.end_instance("i-0")
    with pytest.raises(ValueError, match="market"):
        process.set_capacity(TYPE, ZONE, "flea", 1)
    process.reset()
    assert process.call_log() == []


def test_starting_a_process_loads_no_moto() -> None:
    program = "import sys, providers.aws.double.process; sys.exit('moto' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_process_ends_with_its_context() -> None:
    with Ec2DoubleProcess() as process:
        child = process._process
        assert child is not None
    assert child.returncode == 0
    assert (process.peak_rss_mib is not None) is Path("/proc/self/status").exists()


def test_process_that_cannot_start_says_so(double: Ec2Double) -> None:
    taken = int(double.url.rpartition(":")[2])
    process = Ec2DoubleProcess(port=taken)
    with pytest.raises(RuntimeError, match="did not start"):
        process.start()
    assert server.HOST in double.url


# Its parts -----------------------------------------------------------------------------------------------------------


def test_stock_counts_what_runs_already() -> None:
    stock, pool = Stock(), Pool("a", "z", "spot")
    assert stock.take(pool, 2, 2) == 2
    stock.limit("a", "z", "spot", 1)
    assert stock.take(pool, 1, 1) == 0
    stock.give_back(pool)
    assert stock.take(pool, 1, 1) == 0
    stock.give_back(pool)
    assert stock.take(pool, 1, 1) == 1
    assert stock.used("a", None, "spot") == 1


def test_faults_wait_for_their_own_action() -> None:
    faults = Faults()
    faults.inject("A", Fault(code="X", message="", status=None, times=1, after=False, lost=False))
    assert faults.take("B") is None
    fault = faults.take("A")
    assert fault is not None
    assert fault.code == "X"
    assert faults.take("A") is None
