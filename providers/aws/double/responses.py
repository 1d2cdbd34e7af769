"""EC2's actions as the double answers them: buying with capacity, tokens and faults; reads through the indexes.

Everything else is moto's own. One object serves one request.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from moto.core.common_types import TYPE_RESPONSE
from moto.core.exceptions import ServiceException
from moto.core.request import Request
from moto.core.responses import ActionResult
from moto.core.utils import camelcase_to_underscores
from moto.ec2.models.instances import InstanceState, Reservation
from moto.ec2.responses import EC2Response
from moto.ec2.utils import parse_user_data, passes_filter_dict

from providers.aws.double import answers, refusals
from providers.aws.double.backend import Entry, IndexedBackend
from providers.aws.double.state import Call, Fault, Pool

if TYPE_CHECKING:
    from providers.aws.double.world import World

ALWAYS_KNOWN = frozenset({"bench.8gpu"})
"""Instance types beside moto's: the machine of the placement benchmark."""


class AnswerLostError(Exception):
    """The connection is to be cut instead of answered."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Purchase:
    """What RunInstances is asked for, read once."""

    pool: Pool
    subnet_id: str
    least: int
    most: int
    token: str
    scope: tuple[str, str]
    digest: str


class DoubleResponse(EC2Response):
    """One EC2 call."""

    def __init__(self, world: "World") -> None:
        super().__init__()
        self._world = world
        self._touched: tuple[str, ...] = ()

    def answer(self, request: Request) -> TYPE_RESPONSE:
        """Status, headers and body for one request. Raises AnswerLostError."""
        return self._dispatch(request, request.url, request.headers)

    @property
    def ec2_backend(self) -> IndexedBackend:
        return self._world.backend(self.region)

    # The call -----------------------------------------------------------------------------------------------------

    def call_action(self) -> TYPE_RESPONSE:
        """Answer the request, with the fault that waits for its action. Raises AnswerLostError."""
        action = self._get_action()
        with self._world.lock:
            fault = self._world.faults.take(action)
            if fault is not None and not fault.after:
                self._bind_token(action, fault)
                return self._faulty(action, fault, effect=False)
            answer, outcome = self._answered(action)
            if fault is not None:
                return self._faulty(action, fault, effect=outcome == "ok")
            self._log(action, outcome, effect=outcome == "ok")
            return answer

    def _answered(self, action: str) -> tuple[TYPE_RESPONSE, str]:
        method = cast("Callable[[], ActionResult] | None", getattr(self, camelcase_to_underscores(action), None))
        try:
            if method is None:
                raise refusals.Refusal("InvalidAction", f"The action {action} is not valid for this web service.")
            return self.serialized(method()), "ok"
        except refusals.Refusal as refusal:
            return _xml(refusal), refusal.error_code
        except ServiceException as error:
            return self.serialized(ActionResult(error)), str(error.code)
        except NotImplementedError as error:
            refusal = refusals.Refusal("InvalidAction", f"The double does not know this call: {error}")
            return _xml(refusal), refusal.error_code

    def _faulty(self, action: str, fault: Fault, *, effect: bool) -> TYPE_RESPONSE:
        self._log(action, "lost" if fault.lost else fault.code, effect=effect)
        if fault.lost:
            raise AnswerLostError
        message = fault.message or f"Injected by the double for {action}."
        return _xml(refusals.Refusal(fault.code, message, fault.status))

    def _log(self, action: str, outcome: str, *, effect: bool) -> None:
        calls = self._world.calls
        number = calls[-1].number + 1 if calls else 1
        token = str(self._get_param("ClientToken", ""))
        calls.append(
            Call(number=number, action=action, token=token, outcome=outcome, effect=effect, instance_ids=self._touched)
        )

    def _bind_token(self, action: str, fault: Fault) -> None:
        """An injected failure binds the token like a real one, when EC2 would have looked at the request."""
        if action != "RunInstances" or not fault.code or fault.code in refusals.NOT_PROCESSED:
            return
        purchase = self._purchase()
        self._world.tokens.failed(purchase.scope, purchase.token, purchase.digest)

    # Buying -------------------------------------------------------------------------------------------------------

    def run_instances(self) -> ActionResult:
        purchase = self._purchase()
        tags = self._parse_tag_specification().get("instance", {})
        self.error_on_dryrun()
        world, backend = self._world, self.ec2_backend
        bought = world.tokens.seen(purchase.scope, purchase.token, purchase.digest)
        if bought:
            entries = [backend.entries[instance_id] for instance_id in bought]
            if all(entry.ended for entry in entries):
                raise refusals.ended(purchase.token)
            self._touched = bought
            return self._bought(entries)
        try:
            reservation = self._buy(purchase, tags)
        except refusals.Refusal:
            world.tokens.failed(purchase.scope, purchase.token, purchase.digest)
            raise
        self._touched = tuple(instance.id for instance in reservation.instances)
        world.tokens.bought(purchase.scope, purchase.token, purchase.digest, self._touched)
        return self._bought([backend.entries[instance_id] for instance_id in self._touched])

    def _bought(self, entries: list[Entry]) -> ActionResult:
        return answers.PlainResult(answers.reservations(entries, self.ec2_backend.tags)[0])

    def _buy(self, purchase: _Purchase, tags: dict[str, str]) -> Reservation:
        world, pool = self._world, purchase.pool
        if not world.sells(pool):
            raise refusals.Refusal(
                "Unsupported",
                f"Your requested instance type ({pool.instance_type}) is not supported in your requested Availability "
                f"Zone ({pool.zone}).",
            )
        granted = world.stock.take(pool, purchase.least, purchase.most)
        if not granted:
            raise refusals.no_capacity(pool.instance_type, pool.zone, pool.market)
        return self.ec2_backend.launch(
            count=granted,
            pool=pool,
            subnet_id=purchase.subnet_id,
            token=purchase.token,
            image_id=self._get_param("ImageId", ""),
            user_data=parse_user_data(self._get_param("UserData")),
            security_group_ids=self._get_param("SecurityGroupIds", []),
            tags=tags,
            metadata_options=self._get_param("MetadataOptions", {}),
            hidden=world.hidden_describes,
            pending=world.pending_describes,
        )

    def _purchase(self) -> _Purchase:
        """Read and check the parameters. Raises Refusal for what EC2 refuses before anything else."""
        least, most = int(self._get_param("MinCount", 1)), int(self._get_param("MaxCount", 1))
        if not 1 <= least <= most:
            raise refusals.Refusal("InvalidParameterValue", f"MinCount {least} and MaxCount {most} do not go together")
        instance_type = str(self._get_param("InstanceType", "m1.small"))
        if not self._world.knows(instance_type):
            raise refusals.Refusal("InvalidParameterValue", f"Invalid value '{instance_type}' for InstanceType.")
        subnet_id = str(self._get_param("SubnetId", ""))
        zone = str(self._get_param("Placement.AvailabilityZone", ""))
        if subnet_id:
            zone = self.ec2_backend.get_subnet(subnet_id).availability_zone
        if zone and zone not in self.ec2_backend.default_subnets:
            raise refusals.Refusal("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        params = {key: value for key, value in self._get_params().items() if key not in {"ClientToken", "DryRun"}}
        return _Purchase(
            pool=Pool(
                instance_type,
                zone or f"{self.region}a",
                "spot" if self._get_param("InstanceMarketOptions.MarketType", "") == "spot" else "on-demand",
            ),
            subnet_id=subnet_id,
            least=least,
            most=most,
            token=str(self._get_param("ClientToken", "")),
            # Zonal as soon as the request names a zone or a subnet.
            scope=(self.region, zone),
            digest=hashlib.sha256(json.dumps(params, sort_keys=True, default=str).encode()).hexdigest(),
        )

    def terminate_instances(self) -> ActionResult:
        instance_ids = cast("list[str]", self._get_param("InstanceIds", []))
        self.error_on_dryrun()
        entries = self._named(instance_ids)
        result: list[dict[str, Any]] = []
        for entry in entries:
            instance = entry.instance
            before = {"Code": instance.state_code, "Name": instance.state}
            after = before if entry.ended else {"Code": 32, "Name": "shutting-down"}
            self._world.end(self.ec2_backend, entry)
            result.append({"InstanceId": instance.id, "CurrentState": after, "PreviousState": before})
        self._touched = tuple(instance_ids)
        return answers.PlainResult({"TerminatingInstances": result})

    def _named(self, instance_ids: list[str]) -> list[Entry]:
        known = self.ec2_backend.entries
        missing = [name for name in instance_ids if name not in known or known[name].hidden]
        if missing:
            raise refusals.not_found(missing)
        return [known[name] for name in instance_ids]

    # Reading ------------------------------------------------------------------------------------------------------

    def describe_instances(self) -> ActionResult:
        self.error_on_dryrun()
        instance_ids = cast("list[str]", self._get_param("InstanceIds", []))
        size = self._get_int_param("MaxResults")
        if size is not None and instance_ids:
            raise refusals.Refusal(
                "InvalidParameterCombination", "The parameter instancesSet cannot be used with the parameter maxResults"
            )
        if size is not None and not 5 <= size <= 1000:
            raise refusals.Refusal("InvalidMaxResults", f"Value ( {size} ) for parameter maxResults is invalid.")
        filters = cast("dict[str, list[str]]", self._filters_from_querystring())
        candidates = self._candidates(filters)
        if instance_ids:
            self._see(self.ec2_backend.entries[name] for name in instance_ids if name in self.ec2_backend.entries)
            candidates = self._named(instance_ids)
        else:
            self._see(candidates)
        found = [entry for entry in candidates if not entry.hidden and self._matches(entry, filters)]
        found.sort(key=lambda entry: entry.number)
        after = int(self._get_param("NextToken", "-1"))
        rest = [entry for entry in found if entry.number > after]
        page = rest[: size or 1000]
        next_token = str(page[-1].number) if len(rest) > len(page) else None
        shown = answers.reservations(page, self.ec2_backend.tags)
        return answers.PlainResult({"Reservations": shown, "NextToken": next_token})

    def _candidates(self, filters: dict[str, list[str]]) -> list[Entry]:
        """Entries among which all that match are, from the smallest index that the filters allow."""
        backend = self.ec2_backend
        ended_wanted = "terminated" in filters.get("instance-state-name", ["terminated"])
        index = backend.by_tag if ended_wanted else backend.live_by_tag
        for name, values in filters.items():
            if name.startswith("tag:") and not any(set(value) & set("*?\\") for value in values):
                return list(index.find(name.removeprefix("tag:"), values).values())
        return list((backend.entries if ended_wanted else backend.live).values())

    @staticmethod
    def _see(entries: Iterable[Entry]) -> None:
        """Time passes by being looked at: hidden instances appear, pending ones start."""
        for entry in entries:
            if entry.hidden:
                entry.hidden -= 1
            elif entry.instance.state_code == 0:
                if entry.pending:
                    entry.pending -= 1
                else:
                    entry.instance._state = InstanceState("running", 16)  # noqa: SLF001 # pyright: ignore[reportPrivateUsage]

    @staticmethod
    def _matches(entry: Entry, filters: dict[str, list[str]]) -> bool:
        """Moto's filters, and the two that it lacks."""
        rest = dict(filters)
        tokens, lifecycles = rest.pop("client-token", None), rest.pop("instance-lifecycle", None)
        if tokens is not None and entry.token not in tokens:
            return False
        if lifecycles is not None and (entry.instance.lifecycle or "") not in lifecycles:
            return False
        return passes_filter_dict(entry.instance, rest)


def _xml(refusal: refusals.Refusal) -> TYPE_RESPONSE:
    return refusal.code or 400, {"Content-Type": "text/xml;charset=UTF-8"}, refusal.xml()
