"""Offers from tables: the one by hand, the seed file, and the benchmark's machine."""

from pathlib import Path

import pytest

from providers import catalog
from providers.offers import CapacityType
from vgpu import models
from vgpu.errors import InvalidRequest

HEADING = "cloud,type,region,gpu,gpus,gpu_mib,vcpus,mem_mib,od,spot,efa,usage"
GOOD = "aws,g6.xlarge,us-east-1,L4,1,22888,4,16384,0.8048,,0,on-demand|spot"


def table(folder: Path, *rows: str, heading: str = HEADING) -> Path:
    path = folder / "offers.csv"
    path.write_text("\n".join((heading, *rows)) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("text", "micros"), [("0.526", 526_000), ("113.9328", 113_932_800), ("21.957642", 21_957_642), ("0.10", 100_000)]
)
def test_money_is_exact(text: str, micros: int) -> None:
    assert catalog.micro_usd(text) == micros


@pytest.mark.parametrize("text", ["", "abc", "-1", "NaN", "Infinity", "0.0000001", "1,5"])
def test_money_that_is_none(text: str) -> None:
    with pytest.raises(InvalidRequest, match="price="):
        catalog.micro_usd(text)


def test_table_by_hand() -> None:
    offers = catalog.aws_offers(("us-east-1a", "us-east-1b"), spot_percent=40)
    assert len(offers) == 12 * 2 * 2
    assert [offer.id for offer in offers] == sorted({offer.id for offer in offers})
    for offer in offers:
        assert models.find(offer.shape.gpu_model).memory_mib == offer.shape.gpu_memory_mib
        assert offer.stale
        assert offer.as_of == "2026-07-20"
    prices = {offer.instance_type: offer.price_micro_usd for offer in catalog.aws_offers(("us-east-1a",))}
    assert (prices["p5.48xlarge"], prices["g5.xlarge"]) == (55_040_000, 1_006_000)
    assert all(offer.capacity_type is CapacityType.ON_DEMAND for offer in catalog.aws_offers())
    with pytest.raises(InvalidRequest, match="spot_percent"):
        catalog.aws_offers(spot_percent=101)


def test_benchmark_machine() -> None:
    offer = catalog.benchmark_offer()
    assert offer.id == "aws/us-east-1a/bench.8gpu/on-demand"
    assert offer.region == "us-east-1"
    node = offer.shape.node("n")
    assert (node.gpus, node.cpu_milli, node.memory_mib) == (8, 128_000, 786_432)
    assert offer.price_micro_usd == 8 * catalog.MICRO
    assert node.devices[0].memory_mib is None


def test_row_becomes_one_offer_per_zone_and_priced_market(tmp_path: Path) -> None:
    rows = [
        GOOD,
        "gcp,g2-standard-4,us-east1,L4,1,24576,4,16384,0.7,0.3,0,on-demand|spot",
        "azure,NC4as_T4_v3,eastus,T4,1,16384,4,,0.526,,0,on-demand|spot",
    ]
    path = table(tmp_path, *rows)
    aws = catalog.read_seed(path, zones=("us-east-1b", "us-east-1a", "eu-west-1a"))
    assert [offer.id for offer in aws.offers] == [
        "aws/us-east-1a/g6.xlarge/on-demand",
        "aws/us-east-1b/g6.xlarge/on-demand",
    ]
    assert aws.rejected == ()
    assert aws.offers[0].price_micro_usd == 804_800
    assert aws.offers[0].stale
    gcp = catalog.read_seed(path, provider="gcp", zones=())
    assert [(offer.id, offer.zone, offer.price_micro_usd) for offer in gcp.offers] == [
        ("gcp/us-east1/g2-standard-4/on-demand", "", 700_000),
        ("gcp/us-east1/g2-standard-4/spot", "", 300_000),
    ]
    (azure,) = catalog.read_seed(path, provider="azure").offers
    assert azure.shape.memory_mib is None
    only_spot = catalog.read_seed(path, provider="gcp", capacity_types=(CapacityType.SPOT,))
    assert [offer.capacity_type for offer in only_spot.offers] == [CapacityType.SPOT]


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ("aws,p5e.48xlarge,us-east-1,H200,8,144384,192,2097152,,,1,on-demand|spot", "od", "no price"),
        ("aws,g6.xlarge,us-east-1,L9,1,22888,4,16384,0.8,,0,on-demand", "gpu", "L9"),
        ("aws,g6.xlarge,us-east-1,L4,zero,22888,4,16384,0.8,,0,on-demand", "gpus", "zero"),
        ("aws,g6.xlarge,us-east-1,L4,0,22888,4,16384,0.8,,0,on-demand", "gpus", "above zero"),
        ("aws,g6.xlarge,us-east-1,L4,1,-5,4,16384,0.8,,0,on-demand", "gpu_mib", "-5"),
        ("aws,g6.xlarge,us-east-1,L4,1,22888,4.5,16384,0.8,,0,on-demand", "vcpus", "4.5"),
        ("aws,g6.xlarge,us-east-1,L4,1,22888,4,lots,0.8,,0,on-demand", "mem_mib", "lots"),
        ("aws,g6.xlarge,us-east-1,L4,1,22888,4,16384,cheap,,0,on-demand", "od", "cheap"),
        ("aws,g6.xlarge,us-east-1,L4,1,22888,4,16384,0,,0,on-demand", "od", "missing price"),
        ("aws,,us-east-1,L4,1,22888,4,16384,0.8,,0,on-demand", "type", "empty"),
        ("aws,g6.xlarge,,L4,1,22888,4,16384,0.8,,0,on-demand", "region", "empty"),
        (",g6.xlarge,us-east-1,L4,1,22888,4,16384,0.8,,0,on-demand", "cloud", "empty"),
        ("aws,g6.xlarge,us-east-1,L4,1,22888", "vcpus", "not a whole number"),
        ("aws,g6.xlarge,us-east-1,L4,1,22888,4,16384,0.8,,0,on-demand,extra", "row", "extra"),
        ("aws,g6f.large,us-east-1,L4,1,1,2,8192,0.2,,0,on-demand", "gpu_mib", "thousandth"),
        (GOOD, "type", "earlier row"),
    ],
)
def test_bad_row_is_one_error_and_the_rest_goes_on(tmp_path: Path, row: str, field: str, reason: str) -> None:
    last = "aws,g5.xlarge,us-east-1,A10G,1,22888,4,16384,1.006,,0,on-demand|spot"
    found = catalog.read_seed(table(tmp_path, GOOD, row, last))
    assert [offer.instance_type for offer in found.offers] == ["g5.xlarge", "g6.xlarge"]
    (rejected,) = found.rejected
    assert (rejected.line, rejected.field) == (3, field)
    assert reason in rejected.reason
    assert rejected.describe().startswith(f"line 3: {field}: ")


def test_fractions_of_a_device_are_rounded_down(tmp_path: Path) -> None:
    rows = [
        "aws,g6f.large,us-east-1,L4,1,2861,2,8192,0.202,,0,on-demand",
        "aws,g6f.2xlarge,us-east-1,L4,1,5722,8,32768,0.475,,0,on-demand",
        "aws,gr6f.4xlarge,us-east-1,L4,1,11443,16,131072,1.066,,0,on-demand",
    ]
    shapes = {offer.instance_type: offer.shape for offer in catalog.read_seed(table(tmp_path, *rows)).offers}
    milli = {name: shape.gpu_milli for name, shape in shapes.items()}
    assert milli == {"g6f.large": 125, "g6f.2xlarge": 250, "gr6f.4xlarge": 499}
    assert shapes["g6f.large"].gpu_memory_mib == 2861
    assert shapes["g6f.large"].node("n").devices[0].milli == 125


@pytest.mark.parametrize("heading", ["cloud,type", ""])
def test_table_without_the_columns_is_refused(tmp_path: Path, heading: str) -> None:
    with pytest.raises(InvalidRequest, match=r"offers\.csv: no column"):
        catalog.read_seed(table(tmp_path, GOOD, heading=heading))


def test_table_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot be read"):
        catalog.read_seed(tmp_path / "none.csv")
    broken = tmp_path / "broken.csv"
    broken.write_bytes(HEADING.encode() + b"\n\xff\xfe\n")
    with pytest.raises(InvalidRequest, match="cannot be read"):
        catalog.read_seed(broken)


def test_public_seed(traces: Path) -> None:
    path = traces / "catalog" / "gpu-offers-seed.csv"
    aws = catalog.read_seed(path)
    assert len(aws.offers) == 64
    assert [rejected.describe() for rejected in aws.rejected] == [
        "line 63: od: no price for p5e.48xlarge: not orderable until a refresh brings one"
    ]
    shapes = {offer.instance_type: offer.shape for offer in aws.offers}
    assert (shapes["p4d.24xlarge"].gpu_model, shapes["p4de.24xlarge"].gpu_model) == ("A100", "A100-80GB")
    prices = {offer.instance_type: offer.price_micro_usd for offer in aws.offers}
    assert (prices["p4d.24xlarge"], prices["p6-b200.48xlarge"]) == (21_957_642, 113_932_800)
    for offer in catalog.aws_offers(("us-east-1a",)):
        assert prices[offer.instance_type] == offer.price_micro_usd
    gcp = catalog.read_seed(path, provider="gcp")
    assert gcp.rejected == ()
    assert {offer.capacity_type for offer in gcp.offers} == {CapacityType.ON_DEMAND, CapacityType.SPOT}
    assert catalog.read_seed(path, provider="azure").rejected == ()
