"""The policy file: every example is good, and every mistake is one line that names field and value."""

from pathlib import Path

import pytest

from autoscaler import settings

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "examples").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_every_example_is_accepted(path: Path) -> None:
    found = settings.read(path)
    assert found != settings.PolicyFile(), "an example that changes nothing shows nothing"


def test_an_empty_file_means_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text("")
    assert settings.read(path) == settings.PolicyFile()


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("compaction: {headroom_gpus: -1}", ["compaction.headroom_gpus=-1", "greater than or equal to 0"]),
        ("compaction: {headroom: 1}", ["compaction.headroom=1", "not permitted"]),
        ("provisioning: {max_gpus: many}", ["provisioning.max_gpus='many'", "integer"]),
        ("scale_to_zero: {keep_alive: sometimes}", ["scale_to_zero.keep_alive='sometimes'", "learnt"]),
        ("scale_to_zero: {idle_after_s: .nan}", ["scale_to_zero.idle_after_s=nan"]),
        ("freeze: [{name: x, schedule: '61 * * * *', duration_s: 60}]", ["freeze.0", "schedule='61 * * * *'"]),
        ("freeze: [{name: x, schedule: '0 1 * * *', duration_s: 60, time_zone: Mars}]", ["freeze.0", "'Mars'"]),
        ("rebalancing: {}", ["rebalancing={}", "not permitted"]),
        ("[1, 2]", ["file=[1, 2]"]),
        ("a: [", ["not readable as YAML"]),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, named: list[str]) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text(text)
    with pytest.raises(settings.SettingsError) as refused:
        settings.read(path)
    (problem,) = refused.value.problems
    for part in named:
        assert part in problem
    assert str(path) in str(refused.value)


def test_all_mistakes_are_named_at_once(tmp_path: Path) -> None:
    path = tmp_path / "pool.yaml"
    path.write_text("compaction: {headroom_gpus: -1, hold_s: -2}\nprovisioning: {max_gpus: -3}\n")
    with pytest.raises(settings.SettingsError) as refused:
        settings.read(path)
    assert len(refused.value.problems) == 3
