"""Who may import whom: the project keeps its contracts, and each planted violation is refused by the right one."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("autoscaler", "policies", "providers", "vgpu")


def lint(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the import linter on the packages in ``folder`` alone."""
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); from importlinter import cli; cli.lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "--no-cache", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=55,
    )


def broken(output: str) -> set[str]:
    """Names of the contracts that the linter says were broken."""
    return {line.removesuffix(" BROKEN") for line in output.splitlines() if line.endswith(" BROKEN")}


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The four packages and the settings, to be spoiled."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_project_keeps_its_contracts() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


FOUR = "Four layers"
INSIDE = "Inside the autoscaler"
PURE = "Policies and the ground are pure"
PORT = "The purchase port is pure"
BOTO = "SDKs at home: boto3 only in providers.aws"
PROMETHEUS = "SDKs at home: Prometheus only in autoscaler.metrics"

VIOLATIONS = {
    "vgpu imports policies": ("vgpu/inventory.py", "import policies.decisions", FOUR),
    "vgpu imports providers": ("vgpu/ledger.py", "import providers.offers", FOUR),
    "vgpu imports the autoscaler": ("vgpu/allocator.py", "import autoscaler.model.kinds", FOUR),
    "providers import policies": ("providers/offers.py", "import policies.decisions", FOUR),
    "providers import the autoscaler": ("providers/aws/provider.py", "import autoscaler.model.ports", FOUR),
    "policies import the autoscaler": ("policies/compaction.py", "import autoscaler.engine.log", FOUR),
    "the engine imports the embedded world": ("autoscaler/engine/view.py", "import autoscaler.embedded.store", INSIDE),
    "the engine imports the metrics": ("autoscaler/engine/log.py", "import autoscaler.metrics.prometheus", INSIDE),
    "the engine imports the command line": ("autoscaler/engine/scaling.py", "import autoscaler.cli.main", INSIDE),
    "the model imports the engine": ("autoscaler/model/ports.py", "import autoscaler.engine.view", INSIDE),
    "the metrics import the embedded world": (
        "autoscaler/metrics/judge.py",
        "import autoscaler.embedded.clock",
        INSIDE,
    ),
    "the report imports the metrics": ("autoscaler/report/html.py", "import autoscaler.metrics.judge", INSIDE),
    "a backtest imports the command line": ("autoscaler/backtest/replay.py", "import autoscaler.cli.main", INSIDE),
    "policies import time": ("policies/compaction.py", "import time", PURE),
    "policies import random": ("policies/provisioning.py", "import random", PURE),
    "policies import logging": ("policies/provisioning.py", "import logging", PURE),
    "policies import os inside a function": ("policies/decisions.py", "def late() -> None:\n    import os", PURE),
    "policies import a cloud": ("policies/provisioning.py", "import providers.aws.client", PURE),
    "policies import Kubernetes": ("policies/signals.py", "import kubernetes", PURE),
    "vgpu imports asyncio": ("vgpu/allocator.py", "import asyncio", PURE),
    "vgpu imports time": ("vgpu/ledger.py", "from time import monotonic", PURE),
    "the purchase port imports time": ("providers/offers.py", "import time", PORT),
    "the purchase port imports boto3": ("providers/errors.py", "import boto3", PORT),
    "the engine imports boto3": ("autoscaler/engine/claims.py", "import boto3", BOTO),
    "the engine imports botocore": ("autoscaler/engine/log.py", "import botocore.exceptions", BOTO),
    "the engine imports the Prometheus client": (
        "autoscaler/engine/view.py",
        "import prometheus_api_client",
        PROMETHEUS,
    ),
}


@pytest.mark.parametrize(("path", "line", "contract"), VIOLATIONS.values(), ids=VIOLATIONS.keys())
def test_a_planted_violation_is_refused(copy: Path, path: str, line: str, contract: str) -> None:
    with (copy / path).open("a") as module:
        module.write(f"\n{line}\n")
    result = lint(copy)
    assert result.returncode == 1, result.stdout + result.stderr
    assert broken(result.stdout) == {contract}
