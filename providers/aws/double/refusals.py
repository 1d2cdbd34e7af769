"""Error answers of EC2 with the status codes of the real service, as XML.

moto answers every EC2 error with HTTP 400. The real service answers a dry pool with 500 and a throttle with 503, and
SDKs retry exactly those: a double that flattens them proves nothing about retries.
"""

import types
import uuid
from collections.abc import Mapping
from xml.sax.saxutils import escape

from werkzeug.exceptions import HTTPException

STATUSES: Mapping[str, int] = types.MappingProxyType(
    {
        "InsufficientInstanceCapacity": 500,
        "InsufficientHostCapacity": 500,
        "InternalError": 500,
        "InternalFailure": 500,
        "Unavailable": 503,
        "RequestLimitExceeded": 503,
        "AuthFailure": 401,
        "OptInRequired": 401,
        "PendingVerification": 401,
        "UnauthorizedOperation": 403,
        "AuthFailure.ServiceLinkedRoleCreationNotPermitted": 403,
        "DryRunOperation": 412,
    }
)
"""HTTP status by code where it is not 400."""

NOT_PROCESSED = frozenset(
    {
        "RequestLimitExceeded",
        "AuthFailure",
        "UnauthorizedOperation",
        "OptInRequired",
        "PendingVerification",
        "Unavailable",
    }
)
"""Codes of calls that end before EC2 looks at the request: they bind no client token."""


class Refusal(HTTPException):
    """One refused call: ``code`` is the HTTP status (werkzeug's name for it), ``error_code`` is EC2's."""

    def __init__(self, error_code: str, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.code = status or STATUSES.get(error_code, 400)
        self.error_code = error_code
        self.message = message

    def xml(self) -> str:
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n'
            f"<Response><Errors><Error><Code>{escape(self.error_code)}</Code>"
            f"<Message>{escape(self.message)}</Message></Error></Errors>"
            f"<RequestID>{uuid.uuid4()}</RequestID></Response>"
        )


def no_capacity(instance_type: str, zone: str, market: str) -> Refusal:
    """The refusal of a dry pool: HTTP 500, and a message that names type and zone like the real one does."""
    if market == "spot":
        text = "There is no Spot capacity available that matches your request."
    else:
        text = (
            f"We currently do not have sufficient {instance_type} capacity in the Availability Zone you requested "
            f"({zone}). Our system will be working on provisioning additional capacity."
        )
    return Refusal("InsufficientInstanceCapacity", text)


def mismatch(token: str) -> Refusal:
    return Refusal(
        "IdempotentParameterMismatch",
        f"Arguments on this idempotent request are inconsistent with arguments used in previous request(s) ({token}).",
    )


def ended(token: str) -> Refusal:
    return Refusal(
        "IdempotentInstanceTerminated", f"The instance that was launched with client token {token} has been terminated."
    )


def not_found(instance_ids: list[str]) -> Refusal:
    plural = len(instance_ids) > 1
    return Refusal(
        "InvalidInstanceID.NotFound",
        f"The instance ID{'s' if plural else ''} '{', '.join(instance_ids)}' do{'' if plural else 'es'} not exist",
    )
