"""What every provider owes its caller, against the real SDK over real HTTP."""

import pytest

from providers.errors import BuyError, Scope, Why
from providers.offers import CapacityType, Machine, MachineState, Provider
from tests.providers.harness import LONG_AFTER, Harness


def ids(provider: Provider) -> list[str]:
    return [machine.id for machine in provider.list()]


def refused(provider: Provider, harness: Harness, key: str = "k", *, spot: bool = False) -> BuyError:
    with pytest.raises(BuyError) as caught:
        provider.launch(harness.order(key, spot=spot))
    return caught.value


@pytest.mark.parametrize("spot", [False, True])
def test_buy_list_end(cloud: Harness, *, spot: bool) -> None:
    provider = cloud.provider()
    order = cloud.order("claim-1/0", spot=spot, zone=cloud.zones[1])
    bought = provider.launch(order)
    assert bought.state is MachineState.PENDING
    seen = provider.poll(bought)
    assert seen == provider.list()[0]
    assert len(provider.list()) == 1
    assert seen.state is MachineState.RUNNING
    assert (seen.key, seen.zone, seen.instance_type) == ("claim-1/0", cloud.zones[1], order.offer.instance_type)
    assert seen.capacity_type is (CapacityType.SPOT if spot else CapacityType.ON_DEMAND)
    assert seen.provider_id.endswith(f"{cloud.zones[1]}/{seen.id}")
    provider.terminate(seen)
    provider.terminate(seen)
    assert provider.list() == []
    assert provider.poll(seen).state is MachineState.GONE
    assert cloud.running() == 0


def test_offers_are_those_given_and_priced(cloud: Harness) -> None:
    offers = list(cloud.provider().offers())
    assert offers
    assert all(offer.price_micro_usd > 0 and offer.as_of and offer.stale for offer in offers)
    assert list(cloud.provider().notices()) == []


def test_same_key_buys_once_also_after_it_runs_and_after_a_restart(cloud: Harness) -> None:
    provider = cloud.provider()
    first = provider.launch(cloud.order("k"))
    assert provider.launch(cloud.order("k")).id == first.id
    assert provider.poll(first).state is MachineState.RUNNING
    again = cloud.provider().launch(cloud.order("k"))
    assert (again.id, again.state) == (first.id, MachineState.RUNNING)
    assert provider.launch(cloud.order("other")).id != first.id
    assert cloud.running() == 2


def test_answer_lost_after_the_effect(cloud: Harness) -> None:
    provider = cloud.provider()
    cloud.lose_the_answer()
    error = refused(provider, cloud)
    assert (error.why, error.launched) == (Why.UNKNOWN, None)
    assert [machine.key for machine in provider.list()] == ["k"]
    assert [provider.launch(cloud.order("k")).id] == ids(provider)
    assert cloud.running() == 1


@pytest.mark.parametrize("spot", [False, True])
def test_stockout_leaves_nothing(cloud: Harness, *, spot: bool) -> None:
    provider = cloud.provider()
    cloud.dry()
    error = refused(provider, cloud, spot=spot)
    assert (error.why, error.scope, error.launched) == (Why.CAPACITY, Scope.ZONE, False)
    assert provider.list() == []
    assert cloud.running() == 0
    # Another zone is another order, and has machines.
    assert provider.launch(cloud.order("k2", zone=cloud.zones[1])).zone == cloud.zones[1]


@pytest.mark.parametrize(
    ("kind", "why", "scope"),
    [
        ("spot-quota", Why.QUOTA, Scope.MARKET),
        ("quota", Why.QUOTA, Scope.REGION),
        ("throttled", Why.THROTTLED, Scope.ACCOUNT),
        ("auth", Why.AUTH, Scope.ACCOUNT),
    ],
)
def test_refusal_says_why_and_leaves_nothing(cloud: Harness, kind: str, why: Why, scope: Scope) -> None:
    provider = cloud.provider()
    cloud.refuse(kind)
    error = refused(provider, cloud, spot=True)
    assert (error.why, error.scope, error.launched) == (why, scope, False)
    assert (error.retry_after_s is not None) is (why is Why.THROTTLED)
    assert cloud.running() == 0
    # The very same order then succeeds.
    assert provider.launch(cloud.order("k", spot=True)).key == "k"


def test_restart_between_accepted_and_outcome(cloud: Harness) -> None:
    bought = cloud.provider().launch(cloud.order("k"))
    kept = Machine(
        id=bought.id,
        key="k",
        state=MachineState.PENDING,
        provider_id=bought.provider_id,
        zone=bought.zone,
        instance_type=bought.instance_type,
        capacity_type=bought.capacity_type,
        ticket=bought.ticket,
    )
    assert cloud.provider().poll(kept).state is MachineState.RUNNING


def test_accepted_purchase_that_fails_later_is_a_buy_error(cloud: Harness) -> None:
    provider = cloud.provider()
    cloud.stay_pending()
    bought = provider.launch(cloud.order("k"))
    assert provider.poll(bought).state is MachineState.PENDING
    cloud.end(bought.id, for_capacity=True)
    with pytest.raises(BuyError) as caught:
        provider.poll(bought)
    assert (caught.value.why, caught.value.scope, caught.value.launched) == (Why.CAPACITY, Scope.ZONE, False)
    assert provider.list() == []


@pytest.mark.parametrize("pending", [False, True])
def test_machine_ended_by_somebody_is_gone_not_an_error(cloud: Harness, *, pending: bool) -> None:
    provider = cloud.provider()
    if pending:
        cloud.stay_pending()
    machine = provider.poll(provider.launch(cloud.order("k")))
    cloud.end(machine.id, for_capacity=False)
    assert provider.poll(machine).state is MachineState.GONE


def test_reclaimed_machine_is_gone(cloud: Harness) -> None:
    provider = cloud.provider()
    machine = provider.poll(provider.launch(cloud.order("k", spot=True)))
    assert machine.state is MachineState.RUNNING
    cloud.end(machine.id, for_capacity=True)
    assert provider.poll(machine).state is MachineState.GONE


def test_new_machine_that_is_not_visible_yet_is_pending_never_gone(cloud: Harness) -> None:
    provider = cloud.provider()
    cloud.show_late(3)
    bought = provider.launch(cloud.order("k"))
    assert provider.list() == []
    assert provider.poll(bought).state is MachineState.PENDING
    assert provider.launch(cloud.order("k")).id == bought.id
    assert provider.poll(bought).state is MachineState.PENDING
    assert provider.poll(bought).state is MachineState.RUNNING
    assert ids(provider) == [bought.id]


def test_machine_absent_long_after_its_launch_is_gone(cloud: Harness) -> None:
    cloud.show_late(1000)
    bought = cloud.provider().launch(cloud.order("k"))
    assert cloud.provider(seconds_later=LONG_AFTER).poll(bought).state is MachineState.GONE


def test_other_owners_machines_are_not_seen(cloud: Harness) -> None:
    ours, theirs = cloud.provider(), cloud.provider("theirs")
    foreign = theirs.launch(cloud.order("k"))
    mine = ours.launch(cloud.order("mine"))
    assert ids(ours) == [mine.id]
    assert ids(theirs) == [foreign.id]
    ours.terminate(mine)
    assert ids(theirs) == [foreign.id]


def test_absent_machine_ends_well(cloud: Harness) -> None:
    provider = cloud.provider()
    cloud.show_late(1000)
    provider.terminate(provider.launch(cloud.order("k")))


def test_reads_are_tried_again_and_end_in_an_error_that_says_nothing_about_purchases(cloud: Harness) -> None:
    provider = cloud.provider()
    machine = provider.launch(cloud.order("k"))
    cloud.refuse_reads("throttled", 2)
    assert ids(provider) == [machine.id]
    cloud.refuse_reads("throttled", 3)
    with pytest.raises(BuyError) as caught:
        provider.list()
    assert (caught.value.why, caught.value.launched) == (Why.THROTTLED, None)
    cloud.refuse_reads("auth", 1)
    with pytest.raises(BuyError) as caught:
        provider.poll(machine)
    assert caught.value.why is Why.AUTH
    # One try was enough: nothing is left over to spoil this call.
    assert ids(provider) == [machine.id]
