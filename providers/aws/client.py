"""The two EC2 clients: one that buys and never tries twice, one that reads.

boto3 is imported when a client is built, not when this module is: importing the provider stays cheap. No client retries
by itself. A repeated purchase is the engine's decision, and reads are retried in one place only (``provider``), because
two layers of retries multiply.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from mypy_boto3_ec2 import EC2Client

CONNECT_TIMEOUT_S = 5
READ_TIMEOUT_S = 60
"""RunInstances may take tens of seconds when EC2 searches for capacity."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class StaticKeys:
    """A fixed key pair; only for doubles. Without one, boto3's own chain finds the credentials."""

    access_key: str
    secret_key: str = dataclasses.field(repr=False)


DOUBLE_KEYS = StaticKeys(access_key="AKIAIOSFODNN7EXAMPLE", secret_key="none")  # noqa: S106 - the double checks none
"""What any local double accepts: the example key of AWS's documentation."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Clients:
    buy: "EC2Client"
    read: "EC2Client"


def clients(*, region: str, endpoint_url: str | None = None, keys: StaticKeys | None = None) -> Clients:
    """Build both clients of one region. ``endpoint_url`` leads to a double instead of AWS."""
    import boto3.session  # noqa: PLC0415 - see the module's docstring
    import botocore.session  # noqa: PLC0415
    from botocore.config import Config  # noqa: PLC0415

    core = botocore.session.get_session()
    session = boto3.session.Session(
        botocore_session=core,
        region_name=region,
        aws_access_key_id=keys.access_key if keys else None,
        aws_secret_access_key=keys.secret_key if keys else None,
    )
    core.register_component("data_loader", _descriptions())
    config = Config(
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=READ_TIMEOUT_S,
        # Counts the first try: one means that a dry pool (HTTP 500) or a throttle (503) is seen at once, by us.
        retries={"mode": "standard", "total_max_attempts": 1},
        user_agent_extra="tidegate",
    )
    # boto3-stubs knows every service's overload, most of them without their types.
    make = cast("Callable[..., EC2Client]", cast("Any", session).client)
    # Two clients keep two connection pools: a sweep that pages for minutes never holds up a purchase.
    return Clients(
        buy=make("ec2", endpoint_url=endpoint_url, config=config),
        read=make("ec2", endpoint_url=endpoint_url, config=config),
    )


@functools.cache
def _descriptions() -> "Loader":
    """Botocore's reader of service descriptions, one per process: EC2's takes a quarter of a second to read."""
    from botocore.loaders import create_loader  # noqa: PLC0415

    return create_loader()
