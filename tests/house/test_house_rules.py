"""Rules of the house that no linter checks: purity at run time, names of folders, the lock, paths, docstrings."""

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("autoscaler", "policies", "providers", "vgpu")


def project_files() -> list[Path]:
    """What is or would be committed: tracked files and new ones that git does not ignore."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    if listed.returncode != 0:
        pytest.skip(f"not a git checkout, so nobody can say which files belong to it: {listed.stderr.strip()}")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


# Purity --------------------------------------------------------------------------------------------------------------

IMPURE = (
    "logging",
    "asyncio",
    "subprocess",
    "boto3",
    "botocore",
    "kubernetes",
    "requests",
    "urllib3",
    "azure",
    "google.cloud",
    "moto",
    "apscheduler",
    "tenacity",
    "prometheus_api_client",
    "autoscaler",
    "providers.aws",
)

PROBE = """
import importlib, json, pkgutil, sys
packages = [importlib.import_module(name) for name in sys.argv[1:]]
names = [m.name for p in packages for m in pkgutil.walk_packages(p.__path__, p.__name__ + ".")]
for name in names:
    importlib.import_module(name)
print(json.dumps([names, sorted(sys.modules)]))
"""


def loaded_by(*packages: str) -> tuple[set[str], set[str]]:
    """The submodules of ``packages`` and everything that a fresh interpreter has loaded after importing them all."""
    # -S: no site packages' start-up hooks, so that what is loaded was asked for; the search path is handed over.
    program = f"import sys; sys.path[:0] = {[str(ROOT), *sys.path]!r}\n{PROBE}"
    result = subprocess.run(
        [sys.executable, "-S", "-c", program, *packages], capture_output=True, text=True, check=True, timeout=50
    )
    names, loaded = json.loads(result.stdout)
    return set(names), set(loaded)


@pytest.mark.parametrize("package", ["policies", "vgpu"])
def test_pure_packages_load_nothing_that_acts(package: str) -> None:
    names, loaded = loaded_by(package)
    assert names, f"{package} has no submodules: the probe looked in the wrong place"
    assert names <= loaded
    assert not [name for name in loaded for banned in IMPURE if name == banned or name.startswith(f"{banned}.")]


def test_the_ground_loads_no_other_layer() -> None:
    _, loaded = loaded_by("vgpu")
    assert not {name.partition(".")[0] for name in loaded} & {"policies", "providers", "autoscaler", "pydantic"}


# Names, docstrings, paths --------------------------------------------------------------------------------------------


def test_no_folder_or_module_is_a_drawer_for_everything() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "shared", "lib"}
    assert not [
        path.relative_to(ROOT)
        for path in project_files()
        for part in (*path.relative_to(ROOT).parts[:-1], path.stem)
        if part.lower() in banned
    ]


def test_tests_are_no_package() -> None:
    """Import mode importlib: with an __init__.py, tests of equal names would shadow each other."""
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_names_of_test_files_are_unique() -> None:
    names = [path.name for path in (ROOT / "tests").rglob("test_*.py")]
    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_is_for(path: Path) -> None:
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert text, "begin the module with a docstring: its purpose, what it must not know, how it fails"
    assert len(text.split()) >= 3


ELSEWHERE = re.compile(r"(?<![\w.~<>}-])/(?:work|root|home|Users)/[A-Za-z0-9_.-]+")
"""An absolute path on somebody's machine."""


def test_no_file_names_a_path_of_one_machine() -> None:
    found: list[str] = []
    for path in project_files():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{path.relative_to(ROOT)}: {match.group()}" for match in ELSEWHERE.finditer(text)]
    assert not found


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/" + "work/main/x.py", True),
        ("open('/" + "root/.cache')", True),
        ('"/' + 'home/somebody/file"', True),
        ("https://example.org/home/page", False),
        ("the pods/home/s", False),
        ("<p>/</p>", False),
    ],
)
def test_the_search_for_paths_finds_them(text: str, expected: bool) -> None:
    assert bool(ELSEWHERE.search(text)) is expected


# The lock ------------------------------------------------------------------------------------------------------------


def lock() -> str:
    return (ROOT / "requirements.lock").read_text(encoding="utf-8")


def requirements(text: str) -> dict[str, list[str]]:
    """Hashes by requirement line."""
    found: dict[str, list[str]] = {}
    for entry in re.sub(r"\\\n", " ", text).splitlines():
        line = entry.split(" #", 1)[0].strip()
        if line and not line.startswith("#"):
            name = line.split(" --hash", 1)[0].split(";", 1)[0].strip()
            found.setdefault(name, []).extend(re.findall(r"--hash=sha256:([0-9a-f]{64})(?![0-9a-f])", line))
    return found


def test_the_lock_names_no_index_host() -> None:
    assert not [line for line in lock().splitlines() if "://" in line or "--index" in line or "--extra-index" in line]
    assert not re.search(r"--(?:find-links|trusted-host)", lock())


def test_every_requirement_is_pinned_and_hashed() -> None:
    found = requirements(lock())
    assert len(found) > 20
    assert not [name for name in found if not re.fullmatch(r"[A-Za-z0-9._-]+(?:\[[a-z0-9,-]+\])?==[^=*\s]+", name)]
    assert not [name for name, hashes in found.items() if not hashes]


def test_the_reading_of_the_lock_sees_a_requirement_without_a_hash() -> None:
    text = "# by hand\na==1 \\\n    --hash=sha256:" + "0" * 64 + "\n    # via b\nb==2 ; sys_platform == 'linux'\n"
    assert requirements(text) == {"a==1": ["0" * 64], "b==2": []}


def test_every_dependency_is_in_the_lock() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(item for extra in project["optional-dependencies"].values() for item in extra),
    ]
    locked = {re.split(r"[\[=]", name)[0].lower().replace("_", "-") for name in requirements(lock())}
    missing = {re.split(r"[\[<>=!~ ]", item)[0].lower().replace("_", "-") for item in wanted} - locked
    assert not missing
