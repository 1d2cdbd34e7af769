"""Catalogue of offers from tables: a short one by hand, the seed file, and the benchmark's single machine.

Every row is stale: it lets a fresh installation rank offers and loses against refreshed prices. Calls no cloud. A row
that cannot be used is reported with line and field and the rest goes on; only a file without the needed columns is
refused as a whole.
"""

import csv
import dataclasses
import re
import types
from collections.abc import Iterable, Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

from providers.offers import CapacityType, MachineShape, Offer
from vgpu import models
from vgpu.errors import InvalidRequest

MICRO = 1_000_000

SEED_DATES: Mapping[str, str] = types.MappingProxyType(
    {"aws": "2026-07-20", "gcp": "2026-08-03", "azure": "2026-06-18"}
)
"""As-of dates of the seed's price lists, from the seed's own description."""

SEED_COLUMNS = ("cloud", "type", "region", "gpu", "gpus", "gpu_mib", "vcpus", "mem_mib", "od", "spot", "usage")

FRACTIONAL: Mapping[str, int] = types.MappingProxyType({"g6f": 22888, "gr6f": 22888})
"""EC2 families that carry a fraction of one device, with the MiB that EC2 reports for the whole device (an L4)."""

MEMORY_VARIANTS: Mapping[tuple[str, int], str] = types.MappingProxyType({("A100", 81920): "A100-80GB"})
"""Models by (name in the table, MiB): EC2 calls both sizes of the A100 by one name."""


_GRAVITON = re.compile(r"[a-z]+\d+g[a-z]*\.")
"""EC2's naming rule: a ``g`` right after the generation marks an Arm processor (g5g, not g5 or g6f)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RejectedRow:
    """One row that makes no offer, and why. ``line`` counts from 1 and includes the heading."""

    line: int
    field: str
    reason: str

    def describe(self) -> str:
        return f"line {self.line}: {self.field}: {self.reason}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Catalogue:
    """Offers in the order of their ids, and the rows that made none, in the order of the file."""

    offers: tuple[Offer, ...]
    rejected: tuple[RejectedRow, ...]


class _BadFieldError(Exception):
    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


def micro_usd(text: str) -> int:
    """Micro US dollars of a decimal text, exact to the micro dollar. Raises InvalidRequest for anything else."""
    try:
        amount = Decimal(text)
    except InvalidOperation:
        raise InvalidRequest(f"price={text!r}: give US dollars per hour as a decimal number") from None
    if not amount.is_finite() or amount < 0:
        raise InvalidRequest(f"price={text!r}: give zero or more US dollars per hour")
    micros = amount * MICRO
    if micros != micros.to_integral_value():
        raise InvalidRequest(f"price={text!r}: finer than a millionth of a dollar")
    return int(micros)


# By hand -------------------------------------------------------------------------------------------------------------

_BY_HAND: tuple[tuple[str, str, int, int, int, int, str], ...] = (
    # type, model, GPUs, MiB per GPU, vCPUs, host MiB, USD per hour: EC2 on-demand list prices, Linux, us-east-1.
    ("g4dn.xlarge", "T4", 1, 16384, 4, 16384, "0.526"),
    ("g4dn.12xlarge", "T4", 4, 16384, 48, 196608, "3.912"),
    ("g4dn.metal", "T4", 8, 16384, 96, 393216, "7.824"),
    ("g5.xlarge", "A10G", 1, 24576, 4, 16384, "1.006"),
    ("g5.12xlarge", "A10G", 4, 24576, 48, 196608, "5.672"),
    ("g5.48xlarge", "A10G", 8, 24576, 192, 786432, "16.288"),
    ("g6.xlarge", "L4", 1, 24576, 4, 16384, "0.8048"),
    ("g6.12xlarge", "L4", 4, 24576, 48, 196608, "4.6016"),
    ("g6.48xlarge", "L4", 8, 24576, 192, 786432, "13.3504"),
    ("g6e.xlarge", "L40S", 1, 49152, 4, 32768, "1.861"),
    ("p4d.24xlarge", "A100", 8, 40960, 96, 1179648, "21.957642"),
    ("p5.48xlarge", "H100", 8, 81920, 192, 2097152, "55.04"),
)


def aws_offers(zones: Sequence[str] = ("us-east-1a", "us-east-1b"), *, spot_percent: int = 0) -> tuple[Offer, ...]:
    """The table by hand: twelve EC2 types in each zone, on-demand, with public list prices of July 2026.

    ``spot_percent`` above zero adds a spot offer per type and zone at that share of the list price: a nominal price for
    tests, not a market's. Raises InvalidRequest outside 0 to 100.
    """
    if not 0 <= spot_percent <= 100:
        raise InvalidRequest(f"spot_percent={spot_percent!r}: give a share of the list price, 0 to 100")
    prices = {CapacityType.ON_DEMAND: 100, CapacityType.SPOT: spot_percent}
    return _in_order(
        Offer(
            provider="aws",
            region="us-east-1",
            zone=zone,
            instance_type=instance_type,
            capacity_type=capacity_type,
            shape=MachineShape(
                gpu_model=model, gpus=gpus, gpu_memory_mib=gpu_mib, cpu_milli=vcpus * 1000, memory_mib=memory_mib
            ),
            price_micro_usd=micro_usd(price) * percent // 100,
            as_of=SEED_DATES["aws"],
            stale=True,
        )
        for instance_type, model, gpus, gpu_mib, vcpus, memory_mib, price in _BY_HAND
        for zone in zones
        for capacity_type, percent in prices.items()
        if percent
    )


def benchmark_offer(*, zone: str = "us-east-1a") -> Offer:
    """The one machine of the placement benchmark: 8 GPUs of no particular model, 128 cores, 768 GiB.

    The price is nominal: one US dollar per GPU and hour, so that dollars read as billed GPU-hours.
    """
    return Offer(
        provider="aws",
        region=zone.rstrip("abcdefghijklmnopqrstuvwxyz"),
        zone=zone,
        instance_type="bench.8gpu",
        capacity_type=CapacityType.ON_DEMAND,
        shape=MachineShape(gpu_model="GPU", gpus=8, gpu_memory_mib=None, cpu_milli=128_000, memory_mib=786_432),
        price_micro_usd=8 * MICRO,
        as_of=SEED_DATES["aws"],
        stale=True,
    )


# Seed file -----------------------------------------------------------------------------------------------------------


def read_seed(
    path: Path,
    provider: str = "aws",
    zones: Sequence[str] = ("us-east-1a",),
    capacity_types: Sequence[CapacityType] = (CapacityType.ON_DEMAND, CapacityType.SPOT),
) -> Catalogue:
    """Offers of one provider from the seed table, one per zone and capacity type that has a price.

    The table has no zones: a row is offered in those of ``zones`` that lie in its region, and with an empty zone when
    none does. A spot price that is missing makes no spot offer; a row without any wanted price is rejected.
    Raises InvalidRequest when the file cannot be read or lacks columns.
    """
    offers: dict[str, Offer] = {}
    rejected: list[RejectedRow] = []
    for line, row in _rows(path):
        if row.get("cloud") and row["cloud"] != provider:
            continue
        try:
            made = tuple(_seed_offers(row, provider, zones, capacity_types))
            for offer in made:
                if offer.id in offers:
                    raise _BadFieldError("type", f"{offer.id} is offered by an earlier row")
        except _BadFieldError as error:
            rejected.append(RejectedRow(line=line, field=error.field, reason=error.reason))
            continue
        offers.update((offer.id, offer) for offer in made)
    return Catalogue(offers=_in_order(offers.values()), rejected=tuple(rejected))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file, restkey="", restval="")
            missing = [column for column in SEED_COLUMNS if column not in (reader.fieldnames or ())]
            if missing:
                raise InvalidRequest(f"{path}: no column {', '.join(missing)}; give a table with the seed's heading")
            for row in reader:
                yield reader.line_num, {str(key): str(value).strip() for key, value in row.items()}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InvalidRequest(f"{path}: cannot be read as a CSV table: {error}") from error


def _seed_offers(
    row: Mapping[str, str], provider: str, zones: Sequence[str], capacity_types: Sequence[CapacityType]
) -> Iterator[Offer]:
    if "" in row:
        raise _BadFieldError("row", f"more fields than the heading has: {row['']}")
    if not row["cloud"]:
        raise _BadFieldError("cloud", "empty; name the provider")
    shape = _seed_shape(row)
    region = _text(row, "region")
    usage = row["usage"].split("|")
    columns = {CapacityType.ON_DEMAND: "od", CapacityType.SPOT: "spot"}
    priced = [
        (capacity_type, _price(row, columns[capacity_type]))
        for capacity_type in capacity_types
        if capacity_type in columns and capacity_type.value in usage and row[columns[capacity_type]]
    ]
    if not priced:
        raise _BadFieldError("od", f"no price for {row['type']}: not orderable until a refresh brings one")
    for zone in [zone for zone in zones if zone.startswith(region)] or [""]:
        for capacity_type, price in priced:
            yield Offer(
                provider=provider,
                region=region,
                zone=zone,
                instance_type=_text(row, "type"),
                capacity_type=capacity_type,
                shape=shape,
                price_micro_usd=price,
                as_of=SEED_DATES.get(provider, ""),
                stale=True,
            )


def _seed_shape(row: Mapping[str, str]) -> MachineShape:
    try:
        model = models.find(_text(row, "gpu"))
    except InvalidRequest as error:
        raise _BadFieldError("gpu", str(error)) from error
    gpu_mib = _count(row, "gpu_mib")
    model = models.find(MEMORY_VARIANTS.get((model.name, gpu_mib), model.name))
    whole_mib = FRACTIONAL.get(row["type"].partition(".")[0])
    # Rounded down: never promise more of a device than the machine carries.
    milli = 1000 if whole_mib is None else min(1000, gpu_mib * 1000 // whole_mib)
    if milli == 0:
        raise _BadFieldError("gpu_mib", f"{gpu_mib} is less than a thousandth of the whole device's {whole_mib}")
    return MachineShape(
        gpu_model=model.name,
        gpus=_count(row, "gpus"),
        gpu_memory_mib=gpu_mib,
        cpu_milli=_count(row, "vcpus") * 1000,
        memory_mib=_count(row, "mem_mib") if row["mem_mib"] else None,
        gpu_milli=milli,
        vendor=model.vendor,
        resource_name=model.resource_name,
        arch="arm64" if row["cloud"] == "aws" and _GRAVITON.match(row["type"]) else "amd64",
    )


def _text(row: Mapping[str, str], field: str) -> str:
    if not row[field]:
        raise _BadFieldError(field, "empty; every offer needs it")
    return row[field]


def _count(row: Mapping[str, str], field: str) -> int:
    text = row[field]
    if not (text.isascii() and text.isdigit()) or int(text) == 0:
        raise _BadFieldError(field, f"{text!r} is not a whole number above zero")
    return int(text)


def _price(row: Mapping[str, str], field: str) -> int:
    try:
        price = micro_usd(row[field])
    except InvalidRequest as error:
        raise _BadFieldError(field, str(error)) from error
    if price == 0:
        raise _BadFieldError(field, "a price of zero is a missing price: leave the field empty")
    return price


def _in_order(offers: Iterable[Offer]) -> tuple[Offer, ...]:
    return tuple(sorted(offers, key=lambda offer: offer.id))
