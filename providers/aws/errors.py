"""EC2's error codes as BuyError: why it failed, what to stop trying, and whether anything may run.

The table covers the codes that RunInstances answers with. Codes that it does not name are judged by the HTTP status:
4xx is our request, 5xx is a server whose work is unknown. Anything without an answer leaves the outcome unknown.
Must not import botocore at module level. Never raises.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import cast

from providers.errors import BuyError, Scope, Why


@dataclasses.dataclass(frozen=True, slots=True)
class Meaning:
    why: Why
    scope: Scope
    launched: bool | None = False


CODES: Mapping[str, Meaning] = types.MappingProxyType(
    {
        "InsufficientInstanceCapacity": Meaning(Why.CAPACITY, Scope.ZONE),
        "InsufficientHostCapacity": Meaning(Why.CAPACITY, Scope.ZONE),
        "InsufficientFreeAddressesInSubnet": Meaning(Why.CAPACITY, Scope.ZONE),
        "UnfulfillableCapacity": Meaning(Why.CAPACITY, Scope.OFFER),
        "ReservationCapacityExceeded": Meaning(Why.CAPACITY, Scope.OFFER),
        "SpotMaxPriceTooLow": Meaning(Why.CAPACITY, Scope.OFFER),
        # The type is not sold in that zone: other zones may have it.
        "Unsupported": Meaning(Why.INVALID, Scope.ZONE),
        "VcpuLimitExceeded": Meaning(Why.QUOTA, Scope.REGION),
        "InstanceLimitExceeded": Meaning(Why.QUOTA, Scope.REGION),
        "VolumeLimitExceeded": Meaning(Why.QUOTA, Scope.REGION),
        "MaxSpotInstanceCountExceeded": Meaning(Why.QUOTA, Scope.MARKET),
        "MaxFleetCountExceeded": Meaning(Why.QUOTA, Scope.REGION),
        "RequestLimitExceeded": Meaning(Why.THROTTLED, Scope.ACCOUNT),
        "UnauthorizedOperation": Meaning(Why.AUTH, Scope.ACCOUNT),
        "AuthFailure": Meaning(Why.AUTH, Scope.ACCOUNT),
        "OptInRequired": Meaning(Why.AUTH, Scope.ACCOUNT),
        "PendingVerification": Meaning(Why.AUTH, Scope.ACCOUNT),
        # No spot at all until somebody creates the service-linked role; on-demand works.
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted": Meaning(Why.AUTH, Scope.MARKET),
        # An earlier call with this token may have bought something: look in list().
        "IdempotentParameterMismatch": Meaning(Why.INVALID, Scope.OFFER, launched=None),
        # Bought once, ended since: the order is over.
        "IdempotentInstanceTerminated": Meaning(Why.INVALID, Scope.OFFER),
        # Reasons of an instance that went from pending straight to terminated (StateReason), beside the codes above.
        "SpotInstanceTermination": Meaning(Why.CAPACITY, Scope.OFFER),
        "SpotInstanceShutdown": Meaning(Why.CAPACITY, Scope.OFFER),
    }
)

THROTTLE_RETRY_S = 2.0
"""The RunInstances bucket refills at two requests per second; EC2 names no time itself."""

NOT_FOUND = "InvalidInstanceID.NotFound"

_REQUEST = Meaning(Why.INVALID, Scope.OFFER)
_SERVER = Meaning(Why.TRANSIENT, Scope.OFFER, launched=None)
_NO_ANSWER = Meaning(Why.UNKNOWN, Scope.OFFER, launched=None)

_LOCAL: Mapping[str, Meaning] = types.MappingProxyType(
    {
        # botocore refuses these before anything leaves the machine.
        "NoCredentialsError": Meaning(Why.AUTH, Scope.ACCOUNT),
        "PartialCredentialsError": Meaning(Why.AUTH, Scope.ACCOUNT),
        "ParamValidationError": Meaning(Why.INVALID, Scope.OFFER),
    }
)


def code_of(error: Exception) -> str:
    """EC2's code for a refused call; empty for an error that is no answer."""
    return _answer(error)[0]


def buy_error(error: Exception) -> BuyError:
    """What an exception of a boto3 call means for a purchase."""
    code, message, status = _answer(error)
    if not code:
        name = type(error).__name__
        return _made(_LOCAL.get(name, _NO_ANSWER), name, str(error))
    meaning = CODES.get(code) or (_SERVER if status >= 500 else _REQUEST)
    return _made(meaning, code, message)


def state_error(code: str, message: str) -> BuyError:
    """What it means that an accepted instance ended while it was pending.

    ``code`` is its StateReason, for example ``Server.InsufficientInstanceCapacity``. Nothing runs any more, so
    ``launched`` is always False.
    """
    side, _, bare = code.partition(".")
    # The client's side is our request (a missing snapshot, a key without permission), the server's is EC2's trouble.
    default = _REQUEST if side == "Client" else _SERVER
    meaning = dataclasses.replace(CODES.get(bare, default), launched=False)
    return _made(meaning, code or "Unknown", message)


def refused(code: str, message: str) -> BuyError:
    """A purchase that we refuse ourselves, before anything is sent."""
    return _made(_REQUEST, code, message)


def _made(meaning: Meaning, code: str, message: str) -> BuyError:
    return BuyError(
        why=meaning.why,
        scope=meaning.scope,
        code=code,
        message=message,
        launched=meaning.launched,
        retry_after_s=THROTTLE_RETRY_S if meaning.why is Why.THROTTLED else None,
    )


def _answer(error: Exception) -> tuple[str, str, int]:
    """Code, message and HTTP status of botocore's ClientError; an empty code for any other exception."""
    response: object = getattr(error, "response", None)
    if not isinstance(response, dict):
        return "", "", 0
    answer = cast("dict[str, dict[str, object]]", response)
    detail, metadata = answer.get("Error", {}), answer.get("ResponseMetadata", {})
    status = metadata.get("HTTPStatusCode")
    return str(detail.get("Code", "")), str(detail.get("Message", "")), status if isinstance(status, int) else 0
