"""``observe`` and ``waste`` as a shell sees them: against a real server, and with every option that can be wrong."""

import json
import socket
from collections.abc import Callable
from typing import Any

import pytest
from click.testing import CliRunner

from autoscaler.cli.observe import observe
from autoscaler.cli.waste import waste
from autoscaler.metrics.queries import QUERIES

UTIL = "DCGM_FI_DEV_GPU_UTIL"
START = 1_700_000_040.0
"""A whole minute."""
HOUR = 60
"""Samples in an hour."""

H100 = {"UUID": "GPU-1", "modelName": "NVIDIA H100 80GB HBM3", "Hostname": "n1", "gpu": "0"}
T4 = {"UUID": "GPU-2", "modelName": "Tesla T4", "Hostname": "n2", "gpu": "0"}
ODD = {"UUID": "GPU-3", "modelName": "Imagination 9000", "Hostname": "n3", "gpu": "0"}
END = START + 2 * HOUR * 60


@pytest.fixture(scope="module")
def url(start_prometheus: Callable[..., str]) -> str:
    """Two hours: an H100 shared by two pods and idle in the second, a free T4, an idle device of an unknown model."""
    series: list[tuple[dict[str, str], float]] = [
        ({**H100, "namespace": "ml", "pod": "api-6d4b9f7c88-x2x4z"}, 80.0),
        ({**H100, "namespace": "ml", "pod": "batch-0"}, 80.0),
        (T4, 0.0),
        ({**ODD, "namespace": "lab", "pod": "toy-0"}, 0.0),
    ]
    return start_prometheus(
        (UTIL, labels, START + 60 * index, first_hour if index < HOUR else 0.0)
        for labels, first_hour in series
        for index in range(2 * HOUR)
    )


@pytest.fixture
def dead_url() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


def run_json(*arguments: str) -> dict[str, Any]:
    command = {"observe": observe, "waste": waste}[arguments[0]]
    result = CliRunner().invoke(command, [*arguments[1:], "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_observe_prints_one_object(url: str) -> None:
    answer = run_json("observe", "--prometheus-url", url, "--at", str(END))
    assert list(answer) == ["signals"]
    signals = answer["signals"]
    assert {tuple(signal) for signal in signals} == {("name", "labels", "state", "value", "age_s")}
    assert {signal["name"] for signal in signals} == set(QUERIES)
    assert [signal for signal in signals if signal["name"] == "gpu_utilisation"] == [
        {"name": "gpu_utilisation", "labels": labels, "state": "Valid", "value": 0.0, "age_s": 60.0}
        for labels in (H100, T4, ODD)
    ]
    assert {"name": "exporter_up", "labels": {}, "state": "Absent", "value": None, "age_s": None} in signals


@pytest.mark.parametrize("at", [str(END + 540), "2023-11-15T00:23:00Z"])
def test_observe_at_a_time(url: str, at: str) -> None:
    answer = run_json("observe", "--prometheus-url", url, "--at", at)
    ages = {s["age_s"] for s in answer["signals"] if s["name"] == "gpu_utilisation" and s["state"] == "Stale"}
    assert ages == {600.0}


def test_observe_reports_that_nobody_answers(dead_url: str) -> None:
    answer = run_json("observe", "--prometheus-url", dead_url)
    assert {(s["state"], s["value"], s["age_s"]) for s in answer["signals"]} == {("Unreachable", None, None)}
    assert [s["name"] for s in answer["signals"]] == list(QUERIES)


def test_observe_for_people(url: str) -> None:
    result = CliRunner(env={"COLUMNS": "250"}).invoke(observe, ["--prometheus-url", url, "--at", str(END + 540)])
    assert result.exit_code == 0
    assert "UUID=GPU-1" in result.stdout
    assert "600 s" in result.stdout
    assert "at most 180 s are trusted" in result.stdout


def test_waste_prints_hours_and_dollars(url: str) -> None:
    answer = run_json("waste", "--prometheus-url", url, "--since", "2h", "--at", str(END - 60))
    lines = {line["workload"]: line for line in answer["workloads"]}
    assert {
        name: (line["namespace"], line["pods"], line["gpu_hours"], line["idle_gpu_hours"], line["idle_usd"])
        for name, line in lines.items()
    } == {
        # Two pods share the H100, 6.88 dollars an hour: half of its idle hour each.
        "api": ("ml", 1, 1.0, 0.5, 3.44),
        "batch": ("ml", 1, 1.0, 0.5, 3.44),
        "(not allocated)": ("", 0, 2.0, 2.0, 1.052),
        "toy": ("lab", 1, 2.0, 2.0, None),
    }
    assert (answer["devices"], answer["gpu_hours"], answer["idle_gpu_hours"]) == (3, 6.0, 5.0)
    assert (answer["idle_usd"], answer["unpriced_models"]) == (None, ["Imagination 9000"])
    assert answer["priced_idle_usd"] == 7.932


def test_waste_with_a_price_for_the_rest(url: str) -> None:
    answer = run_json(
        "waste", "--prometheus-url", url, "--since", "2h", "--at", str(END - 60), "--price", "*=1", "--price", "T4=2"
    )
    assert {line["workload"]: line["idle_usd"] for line in answer["workloads"]}["(not allocated)"] == 4.0
    assert (answer["idle_usd"], answer["unpriced_models"]) == (12.88, [])


def test_waste_for_people(url: str) -> None:
    result = CliRunner(env={"COLUMNS": "200"}).invoke(
        waste, ["--prometheus-url", url, "--since", "2h", "--at", str(END - 60)]
    )
    assert result.exit_code == 0
    assert "(not allocated)" in result.stdout
    assert "No price known for: Imagination 9000" in result.stdout
    assert "83%" in result.stdout


def test_waste_of_nothing(url: str) -> None:
    result = CliRunner().invoke(waste, ["--prometheus-url", url, "--since", "1d", "--at", "1600000000"])
    assert result.exit_code == 0
    assert "No GPU utilisation in the last 1d" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["observe", "--prometheus-url", "prometheus:9090"], "--prometheus-url: prometheus url='prometheus:9090'"),
        (["observe", "--prometheus-url", "http://h:1", "--at", "noon"], "--at: 'noon' is not a time; write Unix"),
        (["observe", "--prometheus-url", "http://h:1", "--timeout", "0"], "--timeout: 0: give 0 to 600"),
        (["waste", "--prometheus-url", "http://h:1", "--since", "week"], "--since: 'week' is not a duration"),
        (["waste", "--prometheus-url", "http://h:1", "--price", "H100"], "--price: 'H100' is not a price"),
        (["waste", "--prometheus-url", "http://h:1", "--idle-below", "-1"], "--idle-below: -1: give a percentage"),
        (["waste", "--prometheus-url", "http://h:1", "--step", "1.5s"], "--step: 1.5 s: give whole seconds"),
        (["waste", "--prometheus-url", "http://h:1", "--step", "8d"], "--step: 691200 s"),
        (["waste", "--prometheus-url", "http://h:1", "--since", "9999w", "--step", "1s"], "is too long"),
    ],
)
def test_bad_options_are_told_in_one_line(arguments: list[str], says: str) -> None:
    command = {"observe": observe, "waste": waste}[arguments[0]]
    result = CliRunner().invoke(command, arguments[1:])
    assert result.exit_code == 2
    assert says in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert result.stdout == ""


def test_waste_needs_an_answer(dead_url: str) -> None:
    result = CliRunner().invoke(waste, ["--prometheus-url", dead_url])
    assert result.exit_code == 2
    assert "--prometheus-url" in result.stderr
    assert "check the address" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
