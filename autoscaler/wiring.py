"""Builds things: the only place where settings, providers, doubles, the engine and the outside come together."""

import contextlib
import dataclasses
import enum
from collections.abc import Callable, Generator
from pathlib import Path

from autoscaler.backtest import generated, models, openb, replay, servegen, traces
from autoscaler.engine.capacity import PoolSettings
from autoscaler.engine.claims import Timing
from autoscaler.report.run import Run
from autoscaler.settings import PolicyFile
from providers import catalog
from providers.aws.client import DOUBLE_KEYS
from providers.aws.provider import AwsProvider
from providers.offers import Offer
from vgpu.errors import TidegateError

OPENB_DAYS = 30.0
SERVEGEN_DAYS = 2.0
"""Length of a replay that names none."""

SWEEP_S = 21_600.0
"""Between two sweeps for machines without a claim in a replay, seconds. Nobody else buys in its cloud, and every sweep
is a call in wall time."""

SEED_FILE = Path("catalog") / "gpu-offers-seed.csv"
"""Where the offer seed lies in the trace folder."""


class Offers(enum.StrEnum):
    """What may be bought in a replay."""

    BENCHMARK = "benchmark"
    """The one node shape of the benchmark: 8 GPUs, 128 cores, 768 GiB, at a nominal dollar per GPU-hour."""
    CATALOG = "catalog"
    """The real offers: the seed file in the trace folder, or the built-in table."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """Everything that decides what a replay does. The same settings give the same decisions, byte for byte."""

    offers: Offers = Offers.BENCHMARK
    seed: int = 0
    aws_endpoint_url: str | None = None
    """An EC2 endpoint to buy from; None starts the double as a process of its own."""
    policies: PolicyFile = dataclasses.field(default_factory=PolicyFile)
    load_s: float = 20.0
    """From the wake of a model to its being loaded (32 B parameters from local disk to one GPU), seconds."""
    timing: Timing = dataclasses.field(default_factory=lambda: Timing(sweep_s=SWEEP_S))
    validate_s: float = 15.0
    """As Karpenter waits between a consolidation decision and its validation."""
    world: replay.World = dataclasses.field(default_factory=replay.World)


def offers_for(choice: Offers) -> tuple[Offer, ...]:
    """The offers of a replay. Rows of the seed file that cannot be bought are left out, as ``read_seed`` documents."""
    if choice is Offers.BENCHMARK:
        return (catalog.benchmark_offer(),)
    folder = traces.trace_folder()
    if folder is not None and (folder / SEED_FILE).is_file():
        return catalog.read_seed(folder / SEED_FILE).offers
    return catalog.aws_offers()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ec2:
    """The EC2 endpoint of a replay."""

    url: str
    launched: Callable[[], int] | None
    """How many instances it ever launched, as its own books say; None where nobody can be asked."""


@contextlib.contextmanager
def ec2(endpoint_url: str | None) -> Generator[Ec2]:
    """The EC2 endpoint of a replay: the one that was named, or a double that ends with the replay."""
    if endpoint_url is not None:
        yield Ec2(url=endpoint_url, launched=None)
        return
    try:
        from providers.aws.double.process import Ec2DoubleProcess  # noqa: PLC0415 - moto is an optional extra
    except ImportError as error:
        raise TidegateError(
            f"module {error.name!r} is missing: the replay buys from a local double of EC2; "
            "install tidegate[demo], or name an endpoint with --aws-endpoint-url"
        ) from error
    with Ec2DoubleProcess() as double:
        yield Ec2(url=double.url, launched=lambda: len(double.instances()))


def replay_openb(
    path: Path, settings: ReplaySettings, *, days: float | None, progress: Callable[[float], None]
) -> tuple[Run, tuple[str, ...]]:
    """Replay the last days of an openb trace; returns the run and one line per row of the file that was left out."""
    days = OPENB_DAYS if days is None else days
    trace = openb.read(path)
    window = openb.window(trace, days)
    problems = tuple(str(problem) for problem in trace.problems)
    title = f"openb {path.name}, last {days:g} days"
    return replay_window(window, title, settings, progress, _left_out(problems)), problems


def replay_servegen(
    path: Path, settings: ReplaySettings, *, days: float | None, progress: Callable[[float], None]
) -> tuple[Run, tuple[str, ...]]:
    """Replay the request rates of a ServeGen trace with scaling to zero; returns the run and the rows left out."""
    days = SERVEGEN_DAYS if days is None else days
    trace = servegen.read(path)
    problems = tuple(str(error) for error in trace.errors)
    run = models.replay(
        trace,
        title=f"servegen {path.name}, {days:g} days, {settings.load_s:g} s load",
        spec=settings.policies.scale_to_zero,
        days=days,
        load_s=settings.load_s,
        seed=settings.seed,
        progress=progress,
        notes=_left_out(problems),
    )
    return run, problems


def _left_out(problems: tuple[str, ...]) -> tuple[str, ...]:
    return (f"{len(problems)} rows of the trace were left out; the first: {problems[0]}",) if problems else ()


def replay_generated(settings: ReplaySettings, *, days: float, progress: Callable[[float], None]) -> Run:
    """Replay a generated load of the trace's shape, for machines without the trace."""
    window = generated.generate(settings.seed, days)
    notes = ("The load is generated: there is no trace folder. Set TIDEGATE_TRACES to replay the production trace.",)
    return replay_window(window, f"generated load, {days:g} days", settings, progress, notes)


def replay_window(
    window: traces.Window,
    title: str,
    settings: ReplaySettings,
    progress: Callable[[float], None],
    notes: tuple[str, ...],
) -> Run:
    """Wire engine, provider and embedded world together and play the window."""
    pool = PoolSettings(
        name="pool",
        provisioning=settings.policies.provisioning,
        compaction=settings.policies.compaction,
        freeze=tuple(window.window() for window in settings.policies.freeze),
        validate_s=settings.validate_s,
    )
    offers = offers_for(settings.offers)
    with ec2(settings.aws_endpoint_url) as endpoint:
        return replay.replay(
            window,
            title=f"{title}, {settings.offers.value} offers",
            provider=_aws(endpoint.url, offers),
            machines=_aws(endpoint.url, ()),
            launched=endpoint.launched,
            pool=pool,
            timing=settings.timing,
            world=dataclasses.replace(settings.world, seed=settings.seed),
            progress=progress,
            notes=notes,
        )


def _aws(endpoint: str, offers: tuple[Offer, ...]) -> AwsProvider:
    return AwsProvider(
        offers=offers, owner="tidegate-replay", image_id="ami-tidegate", endpoint_url=endpoint, keys=DOUBLE_KEYS
    )
