"""Best fit by table: which node, which devices, and why not."""

import pytest

from vgpu import Allocator, Device, InvalidRequest, LedgerError, Node, Placement, Refusal, RefusalReason, Request, Shape

R = RefusalReason


def node(
    name: str,
    gpus: int = 0,
    *,
    cpu: int = 8000,
    memory: int = 8192,
    model: str = "L4",
    gpu_memory: int | None = 24_000,
    milli: int = 1000,
    resource: str = "nvidia.com/gpu",
    sick: tuple[int, ...] = (),
    schedulable: bool = True,
) -> Node:
    devices = tuple(
        Device(
            uuid=f"{name}/{index}",
            model=model,
            memory_mib=gpu_memory,
            milli=milli,
            resource_name=resource,
            healthy=index not in sick,
        )
        for index in range(gpus)
    )
    return Node(name=name, cpu_milli=cpu, memory_mib=memory, devices=devices, schedulable=schedulable)


def mixed(name: str, *models: str) -> Node:
    devices = tuple(Device(uuid=f"{name}/{i}", model=model, memory_mib=24_000) for i, model in enumerate(models))
    return Node(name=name, cpu_milli=8000, memory_mib=8192, devices=devices)


def whole(gpus: int = 1, **fields: object) -> Shape:
    return Shape(gpus=gpus, **fields)  # type: ignore[arg-type]


def share(milli: int, **fields: object) -> Shape:
    return Shape(gpus=1, milli=milli, **fields)  # type: ignore[arg-type]


def cpu(milli: int = 100, memory: int = 0) -> Shape:
    return Shape(cpu_milli=milli, memory_mib=memory)


def held(request_id: str, shape: Shape, on: str, *devices: int) -> Placement:
    return Placement(request=Request(id=request_id, shape=shape), node=on, devices=devices)


def put(allocator: Allocator, shape: Shape, request_id: str = "new") -> Placement | Refusal:
    return allocator.place(Request(id=request_id, shape=shape))


# What is there, what is asked for, where it goes.
PLACED: dict[str, tuple[list[Node], list[Placement], Shape, tuple[str, tuple[int, ...]]]] = {
    "the fullest node that fits": (
        [node("a", 4), node("b", 2), node("c", 8)],
        [],
        whole(),
        ("b", (0,)),
    ),
    "a fuller node of more devices": (
        [node("a", 2), node("b", 4)],
        [held("x", whole(3), "b", 0, 1, 2)],
        whole(),
        ("b", (3,)),
    ),
    "the smallest that holds several": ([node("a", 8), node("b", 2), node("c", 4)], [], whole(3), ("c", (0, 1, 2))),
    "equal GPU: less free CPU": ([node("a", 1, cpu=9000), node("b", 1, cpu=4000)], [], whole(), ("b", (0,))),
    "all equal: the name decides": ([node("c", 1), node("a", 1), node("b", 1)], [], whole(), ("a", (0,))),
    "a fraction: the fullest device": (
        [node("a", 3)],
        [held("x", share(300), "a", 0), held("y", share(600), "a", 1)],
        share(400),
        ("a", (1,)),
    ),
    "a fraction: not the fullest when it is too full": (
        [node("a", 3)],
        [held("x", share(300), "a", 0), held("y", share(700), "a", 1)],
        share(400),
        ("a", (0,)),
    ),
    "a fraction on equal devices: the first": ([node("a", 3)], [], share(10), ("a", (0,))),
    "whole devices in index order around a used one": (
        [node("a", 4)],
        [held("x", share(1), "a", 1)],
        whole(3),
        ("a", (0, 2, 3)),
    ),
    "a share that fills the device exactly": (
        [node("a", 1), node("b", 1)],
        [held("x", share(600), "b", 0)],
        share(400),
        ("b", (0,)),
    ),
    "CPU work keeps away from GPUs": ([node("a", 4), node("b", 0), node("c", 1)], [], cpu(), ("b", ())),
    "CPU work prefers where GPUs are used up": (
        [node("a", 1), node("b", 4)],
        [held("x", whole(4), "b", 0, 1, 2, 3)],
        cpu(),
        ("b", ()),
    ),
    "an allowed model, not the best fit": (
        [node("a", 1, model="T4"), node("b", 8, model="H100")],
        [],
        whole(models=frozenset({"H100", "H200"})),
        ("b", (0,)),
    ),
    "the allowed model among several": (
        [mixed("a", "T4", "L4", "T4", "L4")],
        [],
        whole(2, models=frozenset({"L4"})),
        ("a", (1, 3)),
    ),
    "the resource that was named": (
        [node("a", 1), node("b", 2, resource="amd.com/gpu")],
        [],
        whole(resource_name="amd.com/gpu"),
        ("b", (0,)),
    ),
    "a memory request passes by an unknown size": (
        [node("a", 1, gpu_memory=None), node("b", 4)],
        [],
        share(10, gpu_memory_mib=1000),
        ("b", (0,)),
    ),
    "without a memory request an unknown size is fine": (
        [node("a", 1, gpu_memory=None), node("b", 4)],
        [],
        whole(),
        ("a", (0,)),
    ),
    "the fullest device with memory left": (
        [node("a", 2)],
        [held("x", share(600, gpu_memory_mib=20_000), "a", 0)],
        share(100, gpu_memory_mib=5000),
        ("a", (1,)),
    ),
    "memory that fits exactly": (
        [node("a", 2)],
        [held("x", share(600, gpu_memory_mib=19_000), "a", 0)],
        share(100, gpu_memory_mib=5000),
        ("a", (0,)),
    ),
    "a fraction without a memory request reserves none": (
        [node("a", 1)],
        [held("x", share(500), "a", 0)],
        share(500, gpu_memory_mib=24_000),
        ("a", (0,)),
    ),
    "a sick device is passed over": ([node("a", 2, sick=(0,))], [], whole(), ("a", (1,))),
    "a device that carries a fraction": ([node("a", 1, milli=250), node("b", 1)], [], share(250), ("a", (0,))),
    "CPU that fits exactly": ([node("a", 0, cpu=100, memory=64)], [], cpu(100, 64), ("a", ())),
    "a closed node is passed over": ([node("a", 1, schedulable=False), node("b", 8)], [], whole(), ("b", (0,))),
}


@pytest.mark.parametrize(("nodes", "there", "shape", "expected"), PLACED.values(), ids=PLACED.keys())
def test_best_fit(
    nodes: list[Node], there: list[Placement], shape: Shape, expected: tuple[str, tuple[int, ...]]
) -> None:
    for order in (nodes, nodes[::-1]):
        allocator = Allocator(order)
        for placement in there:
            allocator.apply(placement)
        outcome = put(allocator, shape)
        assert isinstance(outcome, Placement), outcome
        assert (outcome.node, outcome.devices) == expected
        assert allocator.placement("new") == outcome
        assert outcome in allocator.placements(expected[0])


FULL = [node("full", 2)], [held("x", whole(2), "full", 0, 1)]

REFUSED: dict[str, tuple[list[Node], list[Placement], Shape, list[tuple[R, int]]]] = {
    "no nodes at all": ([], [], whole(), []),
    "closed": ([node("a", 1, schedulable=False)], [], cpu(), [(R.CORDONED, 1)]),
    "too few devices": ([node("a", 1), node("b", 0)], [], whole(2), [(R.NOT_ENOUGH_DEVICES, 2)]),
    "no devices at all": ([node("a")], [], share(1), [(R.NOT_ENOUGH_DEVICES, 1)]),
    "devices in use": (*FULL, whole(), [(R.NOT_ENOUGH_GPU, 1)]),
    "enough in sum, not in whole devices": (
        [node("a", 2)],
        [held("x", share(500), "a", 0), held("y", share(500), "a", 1)],
        whole(),
        [(R.NOT_ENOUGH_GPU, 1)],
    ),
    "enough in sum, not on one device": (
        [node("a", 2)],
        [held("x", share(600), "a", 0), held("y", share(600), "a", 1)],
        share(500),
        [(R.NOT_ENOUGH_GPU, 1)],
    ),
    "sick": ([node("a", 1, sick=(0,))], [], share(1), [(R.NOT_ENOUGH_GPU, 1)]),
    "a device that carries a fraction is no whole one": (
        [node("a", 1, milli=999)],
        [],
        whole(),
        [(R.NOT_ENOUGH_GPU, 1)],
    ),
    "other model": ([node("a", 1), node("b", 2)], [], whole(models=frozenset({"H100"})), [(R.MODEL_NOT_ALLOWED, 2)]),
    "too few of the model": (
        [mixed("a", "T4", "L4")],
        [],
        whole(2, models=frozenset({"L4"})),
        [(R.MODEL_NOT_ALLOWED, 1)],
    ),
    "other model, and in use besides": (*FULL, whole(models=frozenset({"H100"})), [(R.MODEL_NOT_ALLOWED, 1)]),
    "other resource": ([node("a", 1)], [], whole(resource_name="amd.com/gpu"), [(R.MODEL_NOT_ALLOWED, 1)]),
    "other resource, and in use besides": (*FULL, whole(resource_name="amd.com/gpu"), [(R.MODEL_NOT_ALLOWED, 1)]),
    "device memory": ([node("a", 1)], [], share(1, gpu_memory_mib=24_001), [(R.NOT_ENOUGH_GPU_MEMORY, 1)]),
    "device memory in use": (
        [node("a", 1)],
        [held("x", share(1, gpu_memory_mib=20_000), "a", 0)],
        share(1, gpu_memory_mib=4001),
        [(R.NOT_ENOUGH_GPU_MEMORY, 1)],
    ),
    "device memory unknown": (
        [node("a", 1, gpu_memory=None)],
        [],
        share(1, gpu_memory_mib=1),
        [(R.NOT_ENOUGH_GPU_MEMORY, 1)],
    ),
    "memory on one of two devices only": (
        [
            Node(
                name="a",
                cpu_milli=0,
                memory_mib=0,
                devices=(Device(uuid="0", model="L4", memory_mib=10), Device(uuid="1", model="L4", memory_mib=20)),
            )
        ],
        [],
        whole(2, gpu_memory_mib=15),
        [(R.NOT_ENOUGH_GPU_MEMORY, 1)],
    ),
    "cpu": ([node("a", 1, cpu=99)], [], whole(cpu_milli=100), [(R.NOT_ENOUGH_CPU, 1)]),
    "cpu in use": ([node("a", 1)], [held("x", cpu(8000), "a")], whole(cpu_milli=1), [(R.NOT_ENOUGH_CPU, 1)]),
    "memory": ([node("a", 1, memory=63)], [], whole(memory_mib=64), [(R.NOT_ENOUGH_MEMORY, 1)]),
    "the reason of most nodes leads": (
        [node("a", 1, cpu=0), node("b", 0), node("c", 0), node("d", 1, schedulable=False)],
        [],
        whole(cpu_milli=1),
        [(R.NOT_ENOUGH_DEVICES, 2), (R.CORDONED, 1), (R.NOT_ENOUGH_CPU, 1)],
    ),
}


@pytest.mark.parametrize(("nodes", "there", "shape", "counts"), REFUSED.values(), ids=REFUSED.keys())
def test_a_refusal_counts_the_nodes_by_reason(
    nodes: list[Node], there: list[Placement], shape: Shape, counts: list[tuple[R, int]]
) -> None:
    for order in (nodes, nodes[::-1]):
        allocator = Allocator(order)
        for placement in there:
            allocator.apply(placement)
        before = allocator.digest()
        outcome = put(allocator, shape)
        assert isinstance(outcome, Refusal), outcome
        assert outcome.counts == tuple(counts)
        assert outcome.reason is (counts[0][0] if counts else R.NO_NODES)
        assert outcome.request.id == "new"
        assert allocator.digest() == before
        words = outcome.describe()
        assert words.startswith(shape.describe())
        assert all(f"{reason.value} on {count}" in words for reason, count in counts)
        assert counts or "NoNodes" in words


def test_every_reason_of_a_refusal_has_a_row() -> None:
    assert {reason for row in REFUSED.values() for reason, _ in row[3]} | {R.NO_NODES} == set(R)


def test_only_narrows_the_nodes_and_their_reasons() -> None:
    allocator = Allocator([node("a", 1), node("b", 1), node("c", 0)])
    outcome = allocator.place(Request(id="x", shape=whole()), only={"b", "c"})
    assert isinstance(outcome, Placement)
    assert outcome.node == "b"
    refusal = allocator.place(Request(id="y", shape=whole()), only={"c"})
    assert isinstance(refusal, Refusal)
    assert refusal.counts == ((R.NOT_ENOUGH_DEVICES, 1),)
    nowhere = allocator.place(Request(id="y", shape=whole()), only=())
    assert isinstance(nowhere, Refusal)
    assert nowhere.reason is R.NO_NODES


def test_all_or_none() -> None:
    allocator = Allocator([node("a", 3)])
    before = allocator.digest()
    requests = [Request(id=str(index), shape=whole()) for index in range(4)]
    refusal = allocator.place_all(requests)
    assert isinstance(refusal, Refusal)
    assert refusal.request.id == "3"
    assert allocator.digest() == before
    placed = allocator.place_all(requests[:3])
    assert not isinstance(placed, Refusal)
    assert [placement.devices for placement in placed] == [(0,), (1,), (2,)]
    assert allocator.placements() == placed


def test_what_cannot_be_asked_of_the_allocator() -> None:
    allocator = Allocator([node("a", 1)])
    put(allocator, whole(), "x")
    with pytest.raises(InvalidRequest, match=r"request\.id='x': already placed; release it first"):
        put(allocator, cpu(), "x")
    with pytest.raises(InvalidRequest, match="node='a': already in the inventory; remove it first"):
        allocator.add_node(node("a"))
    with pytest.raises(InvalidRequest, match="node='b': not in the inventory"):
        allocator.remove_node("b")
    with pytest.raises(InvalidRequest, match="node='b': not in the inventory"):
        allocator.cordon("b")
    with pytest.raises(InvalidRequest, match="strategy='worst_fit': choose one of best_fit"):
        Allocator(strategy="worst_fit")


def test_release_gives_back_exactly_what_was_taken() -> None:
    allocator = Allocator([node("a", 2)])
    before = allocator.digest()
    taken = put(allocator, whole(2, cpu_milli=7, memory_mib=9, gpu_memory_mib=11))
    assert allocator.digest() != before
    assert allocator.free_gpu_milli("a") == 0
    assert allocator.whole_free("a") == 0
    assert allocator.release("new") == taken
    assert allocator.digest() == before
    assert allocator.release("new") is None
    assert allocator.whole_free("a") == 2


def test_a_shared_sick_or_partial_device_is_not_wholly_free() -> None:
    allocator = Allocator([node("a", 3, sick=(2,)), node("b", 1, milli=500)])
    put(allocator, share(1))
    assert allocator.whole_free("a") + allocator.whole_free("b") == 2
    assert allocator.whole_free("b") == 0


def test_removing_a_node_names_what_went_with_it() -> None:
    allocator = Allocator([node("a", 2), node("b", 1)])
    placed = [allocator.place(Request(id=name, shape=whole()), only={"a"}) for name in ("z", "y")]
    assert list(allocator.remove_node("a")) == placed
    assert allocator.placement("z") is None
    assert not allocator.has_node("a")
    assert isinstance(put(allocator, whole(), "z"), Placement)


NONSENSE: dict[str, tuple[Placement, str]] = {
    "unknown node": (held("p", whole(), "nowhere", 0), "node 'nowhere' is not in the inventory"),
    "no such device": (held("p", whole(), "a", 2), "node 'a' has no device 2"),
    "negative device": (held("p", whole(), "a", -1), "node 'a' has no device -1"),
    "fewer devices than asked for": (held("p", whole(2), "a", 0), r"devices \[0\] recorded for a request of 2"),
    "more devices than asked for": (held("p", whole(), "a", 0, 1), r"devices \[0, 1\] recorded for a request of 1"),
    "devices for CPU work": (held("p", cpu(), "a", 0), r"devices \[0\] recorded for a request of 0"),
    "one device twice": (held("p", whole(2), "a", 0, 0), r"devices \[0, 0\] recorded for a request of 2"),
    "more compute than is left": (held("p", share(501), "a", 1), "device 1 of 'a' has 500 milli left of the 501"),
    "more device memory than is left": (
        held("p", share(1, gpu_memory_mib=14_001), "a", 1),
        "device 1 of 'a' has 14000 MiB left of the 14001",
    ),
    "more CPU than is left": (held("p", cpu(8001), "a"), "has 8000 milli-CPU and 8192 MiB left of the 8001 and 0"),
    "more memory than is left": (
        held("p", cpu(1, 8193), "a"),
        "has 8000 milli-CPU and 8192 MiB left of the 1 and 8193",
    ),
    "recorded twice": (held("there", share(1), "a", 0), r"recorded twice \(also on a\)"),
}


@pytest.mark.parametrize(("record", "why"), NONSENSE.values(), ids=NONSENSE.keys())
def test_a_record_that_does_not_add_up_is_refused_by_name(record: Placement, why: str) -> None:
    allocator = Allocator([node("a", 2)])
    allocator.apply(held("there", share(500, gpu_memory_mib=10_000), "a", 1))
    before = allocator.digest()
    with pytest.raises(LedgerError, match=f"allocation of '{record.request.id}': .*{why}"):
        allocator.apply(record)
    assert allocator.digest() == before


def test_a_record_is_accepted_where_nothing_new_would_go() -> None:
    """What is recorded has happened: a closed node or an unknown memory size does not undo it."""
    allocator = Allocator([node("a", 1, schedulable=False, gpu_memory=None)])
    allocator.apply(held("p", share(100, gpu_memory_mib=1000), "a", 0))
    assert allocator.placement("p") is not None


def test_the_digest_tells_states_apart() -> None:
    """The same free capacity with other hardware, other holders or other sizes is another state."""
    digests = {Allocator([node("a", 1)]).digest(), Allocator([node("a", 1, model="T4")]).digest(), Allocator().digest()}
    for first, second in ((300, 700), (700, 300)):
        allocator = Allocator([node("a", 1)])
        allocator.apply(held("x", share(first), "a", 0))
        allocator.apply(held("y", share(second), "a", 0))
        digests.add(allocator.digest())
    closed = Allocator([node("a", 1)])
    closed.cordon("a")
    digests.add(closed.digest())
    assert len(digests) == 6


def test_undo_restores_the_order_of_nodes_and_of_what_they_hold() -> None:
    allocator = Allocator([node("b", 2), node("a", 2), node("c", 2)])
    for name in ("z", "m", "b"):
        allocator.apply(held(name, share(100), "a", 0))
    nodes, placements, digest = allocator.nodes(), allocator.placements(), allocator.digest()
    with allocator.overlay():
        allocator.release("m")
        allocator.cordon("c")
        allocator.remove_node("a")
        allocator.remove_node("b")
        allocator.add_node(node("b", 8))
        assert isinstance(put(allocator, whole(8)), Placement)
    assert (allocator.nodes(), allocator.placements(), allocator.digest()) == (nodes, placements, digest)


def test_an_error_inside_a_what_if_undoes_it() -> None:
    allocator = Allocator([node("a", 1)])
    before = allocator.digest()

    def fails() -> None:
        with allocator.overlay():
            put(allocator, whole())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert allocator.digest() == before


@pytest.mark.parametrize(("outer", "inner", "stays"), [(0, 0, 0), (0, 1, 0), (1, 0, 1), (1, 1, 2)])
def test_nested_what_ifs(outer: int, inner: int, stays: int) -> None:
    """An inner change stays only if the outer what-if stays too."""
    allocator = Allocator([node("a", 4)])
    with allocator.overlay() as first:
        put(allocator, whole(), "outer")
        with allocator.overlay() as second:
            put(allocator, whole(), "inner")
            if inner:
                second.keep()
        if outer:
            first.keep()
    assert len(allocator.placements()) == stays
