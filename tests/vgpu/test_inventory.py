"""Values that no world can contain are refused where they are built, with field, value and remedy."""

from collections.abc import Callable

import pytest

from vgpu import WHOLE, Device, InvalidRequest, Node, Request, Shape, TidegateError
from vgpu.inventory import MAX_DEVICES


def device(uuid: str = "u", **fields: object) -> Device:
    return Device(uuid=uuid, model="L4", **fields)  # type: ignore[arg-type]


REFUSED: tuple[tuple[str, Callable[[], object], str, str, str], ...] = (
    ("device without uuid", lambda: device(""), "device.uuid", "''", "non-empty UUID"),
    ("device of no compute", lambda: device(milli=0), "device.milli", "0", "1 to 1000"),
    ("device of negative compute", lambda: device(milli=-1), "device.milli", "-1", "1 to 1000"),
    ("device of more than one", lambda: device(milli=WHOLE + 1), "device.milli", "1001", "1 to 1000"),
    ("device of zero memory", lambda: device(memory_mib=0), "device.memory_mib", "0", "None where it is unknown"),
    ("device of negative memory", lambda: device(memory_mib=-5), "device.memory_mib", "-5", "positive size"),
    ("node without name", lambda: Node(name="", cpu_milli=1, memory_mib=1), "node.name", "''", "name every node"),
    (
        "node of negative cpu",
        lambda: Node(name="n", cpu_milli=-1, memory_mib=1),
        "node n: cpu_milli",
        "-1",
        "zero or more",
    ),
    (
        "node of negative memory",
        lambda: Node(name="n", cpu_milli=1, memory_mib=-2),
        "node n: memory_mib",
        "-2",
        "zero or more",
    ),
    (
        "node with one device twice",
        lambda: Node(name="n", cpu_milli=1, memory_mib=1, devices=(device("a"), device("b"), device("a"))),
        "node n: device.uuid",
        "'a'",
        "give each its own",
    ),
    ("negative cpu", lambda: Shape(cpu_milli=-1), "cpu_milli", "-1", "zero or more"),
    ("negative memory", lambda: Shape(memory_mib=-1), "memory_mib", "-1", "zero or more"),
    ("negative devices", lambda: Shape(gpus=-1), "gpus", "-1", "0 to 64"),
    ("too many devices", lambda: Shape(gpus=MAX_DEVICES + 1), "gpus", "65", "split larger jobs"),
    ("negative device memory", lambda: Shape(gpus=1, gpu_memory_mib=-1), "gpu_memory_mib", "-1", "zero or more"),
    ("no share", lambda: Shape(gpus=1, milli=0), "milli", "0", "1 to 1000"),
    ("share above one", lambda: Shape(gpus=1, milli=1001), "milli", "1001", "1 to 1000"),
    ("fractions of two devices", lambda: Shape(gpus=2, milli=500), "milli", "500", "ask for whole devices"),
    ("request without id", lambda: Request(id="", shape=Shape()), "request.id", "''", "name every request"),
)


@pytest.mark.parametrize(
    ("build", "field", "value", "remedy"), [row[1:] for row in REFUSED], ids=[row[0] for row in REFUSED]
)
def test_an_impossible_value_is_refused_by_name(
    build: Callable[[], object], field: str, value: str, remedy: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        build()
    message = str(caught.value)
    assert message.startswith(f"{field}={value}: ")
    assert remedy in message
    assert isinstance(caught.value, TidegateError)
    assert isinstance(caught.value, ValueError)


EDGES: tuple[Callable[[], object], ...] = (
    lambda: device(milli=1),
    lambda: device(milli=WHOLE, memory_mib=1),
    lambda: device(memory_mib=None),
    lambda: Node(name="n", cpu_milli=0, memory_mib=0),
    Shape,
    lambda: Shape(gpus=MAX_DEVICES),
    lambda: Shape(gpus=1, milli=1),
)


@pytest.mark.parametrize("build", EDGES)
def test_the_edge_of_what_is_possible_is_accepted(build: Callable[[], object]) -> None:
    build()


@pytest.mark.parametrize(
    ("shape", "gpu_milli", "fraction", "words"),
    [
        (Shape(cpu_milli=500, memory_mib=64), 0, False, "no GPU, 500 milli-CPU, 64 MiB"),
        (Shape(gpus=1), 1000, False, "1 GPU, 0 milli-CPU, 0 MiB"),
        (Shape(gpus=8), 8000, False, "8 GPU, 0 milli-CPU, 0 MiB"),
        (Shape(gpus=1, milli=250), 250, True, "250 GPU milli, 0 milli-CPU, 0 MiB"),
        (
            Shape(
                gpus=1, milli=250, gpu_memory_mib=4096, models=frozenset({"T4", "L4"}), resource_name="nvidia.com/gpu"
            ),
            250,
            True,
            "250 GPU milli, 4096 MiB each, models L4|T4, nvidia.com/gpu, 0 milli-CPU, 0 MiB",
        ),
    ],
)
def test_a_shape_says_what_it_asks_for(shape: Shape, gpu_milli: int, fraction: bool, words: str) -> None:
    assert shape.gpu_milli == gpu_milli
    assert shape.fraction is fraction
    assert shape.describe() == words


def test_equal_shapes_are_one_class() -> None:
    assert len({Shape(gpus=1, models=frozenset({"a", "b"})), Shape(gpus=1, models=frozenset({"b", "a"}))}) == 1
    assert Node(name="n", cpu_milli=0, memory_mib=0, devices=(device("a"), device("b"))).gpus == 2
