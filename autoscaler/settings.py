"""The policy file: what may be bought, how nodes are given back, how models are unloaded, and when nothing may move.

YAML with the sections ``provisioning``, ``compaction``, ``scale_to_zero`` and ``freeze``; every field has a default. A
file with mistakes is refused as a whole, with one line per mistake that names the field, the value and what is allowed.
"""

from pathlib import Path

import pydantic
import yaml

from autoscaler.engine.windows import Window
from policies import compaction as giving_back
from policies import provisioning as buying
from policies import scale_to_zero as scaling
from vgpu.errors import TidegateError


class SettingsError(TidegateError):
    """A policy file that cannot be used; ``problems`` holds one line per mistake."""

    def __init__(self, path: Path, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(f"{path}: {problem}" for problem in problems))
        self.problems = problems


class Freeze(pydantic.BaseModel):
    """A window in which nothing is moved and no node is given back."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    name: str = pydantic.Field(min_length=1, max_length=63)
    schedule: str = pydantic.Field(description="Five cron fields; the window opens when they match.")
    duration_s: float = pydantic.Field(gt=0, description="How long it stays open, seconds.")
    time_zone: str = pydantic.Field(default="UTC", description="IANA name.")

    @pydantic.model_validator(mode="after")
    def _readable(self) -> "Freeze":
        self.window()
        return self

    def window(self) -> Window:
        return Window(name=self.name, schedule=self.schedule, duration_s=self.duration_s, time_zone=self.time_zone)


class PolicyFile(pydantic.BaseModel):
    """All policies of one pool."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid")

    provisioning: buying.Spec = pydantic.Field(default_factory=buying.Spec)
    compaction: giving_back.Spec = pydantic.Field(default_factory=giving_back.Spec)
    scale_to_zero: scaling.Spec = pydantic.Field(default_factory=scaling.Spec)
    freeze: tuple[Freeze, ...] = pydantic.Field(default=(), max_length=16)


def read(path: Path) -> PolicyFile:
    """The policy file at ``path``. Raises SettingsError with all its mistakes at once."""
    try:
        content: object = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsError(path, (f"not readable as YAML: {' '.join(str(error).split())}",)) from error
    try:
        return PolicyFile.model_validate({} if content is None else content)
    except pydantic.ValidationError as error:
        problems = tuple(
            f"{'.'.join(str(part) for part in found['loc']) or 'file'}={found['input']!r}: {found['msg']}"
            for found in error.errors()
        )
        raise SettingsError(path, problems) from error
