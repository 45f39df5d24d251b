"""Where Gaussians in space and time start: at known points spread over time, at random places that
the pictures of a moment allow, or as a static run left them.

Random places come in two kinds. One that the views of every moment allow may hold something that
never moves: it begins with the duration of the whole clip. One that a moment allows begins there,
with a duration of about 16 views, so that more than one camera holds it. Where pictures show
what is empty, it begins to move as well: along the mean of those of some random paths that the
views around its moment allow, too. Letters: P points, K paths
of each.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import DataError, Scene
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.core.gaussian_cloud4d import GaussianCloud4D
from lumigraph.fields import Gaussians
from lumigraph.training.config_gaussians4d import Gaussians4DConfig
from lumigraph.training.evaluation import background_color
from lumigraph.training.gaussians.initialization import (
    OPACITY,
    SCALE_FACTOR,
    chosen_points,
    cloud_from_points,
    uniform_points,
)
from lumigraph.training.gaussians.silhouettes import (
    Motion,
    Silhouettes,
    judge_points,
    spread_views,
)
from lumigraph.training.run import Run

POINTS_DURATION = math.sqrt(0.2)  # as in the 4D-Rotor code, for a clip of length 1
BEYOND = 0.1  # of the clip: points start so far before and after it, too
HELD_VIEWS = 16  # within the first duration of a random Gaussian
LONGEST = 2.0  # first duration of what may never move; it fades little in the clip
ALWAYS_SHARE = 0.3  # of random Gaussians that begin where no moment is empty
MOST_MOMENTS = 60  # whose pictures are asked
MOST_MOMENT_VIEWS = 16
ALWAYS_VIEWS = 600
ROUNDS = 24  # times that random points are drawn, until enough are left
DRAWN = 20_000  # points in a round
ENOUGH_VIEWS = 4  # of a moment, whose silhouettes say where something is
SPARE = 2  # places drawn for each that is wanted, where not all have a path
PATHS = 32  # tried for each, the first without motion
SLOWEST = 0.1  # of random paths, sides of the bounds in a clip
FARTHEST = 0.3  # sides of the bounds that the fastest one takes within its duration
PATH_REACH = 1.5  # durations around a moment in which paths are looked at
MOST_PATH_VIEWS = 24


@dataclass(frozen=True)
class Placed:
    """Points that Gaussians start at."""

    positions: Tensor
    """(P, 3)."""
    colors: Tensor
    """(P, 3) in [0, 1]."""
    times: Tensor
    """(P,)."""
    durations: Tensor
    """(P,)."""
    velocities: Tensor
    """(P, 3) scene units per clip."""


def training_moments(scene: Scene) -> Tensor:
    """(F,) ascending times of the training views, on the CPU.

    Raises:
        DataError: the scene has no times.
    """
    times = scene.cameras.times
    if times is None:
        raise DataError(
            f"{scene.source}: has no times; use --method gaussians, or give 'time' to its frames"
        )
    return times[scene.split("train")].cpu().unique()


def frame_duration(moments: Tensor) -> float:
    """Usual distance of two moments (F,), as a part of the clip; of a single one, the clip."""
    return float(moments.diff().median()) if len(moments) > 1 else 1.0


@dataclass(frozen=True)
class Start:
    """What training starts from, on the CPU."""

    moving: GaussianCloud4D
    still: GaussianCloud | None
    """Gaussians that are the same throughout."""
    notes: list[str]


def initial_clouds(scene: Scene, config: Gaussians4DConfig) -> Start:
    """The Gaussians that a configuration asks to start from.

    Raises:
        DataError: the scene has no times; points are asked for, and it has none; or the run to
            start from holds no Gaussians.
    """
    training_moments(scene)
    generator = torch.Generator().manual_seed(config.seed)
    if config.start_run is not None:
        return _from_run(scene, config, generator)
    known = chosen_points(scene, config, generator)
    if known is not None:
        positions, colors, notes = known
        times = torch.rand(len(positions), generator=generator) * (1 + 2 * BEYOND) - BEYOND
        duration = config.initial_duration or POINTS_DURATION
        placed = Placed(
            positions,
            colors,
            times,
            torch.full_like(times, duration),
            torch.zeros_like(positions),
        )
        return Start(_clouds(config, scene, [placed]), None, [*notes, "spread over the clip"])
    count = min(config.initial_gaussians, config.max_gaussians)
    always, passing = random_places(scene, config, count, generator)
    note = (
        f"starts from {len(always.times):,} places that are never empty and "
        f"{len(passing.times):,} at single moments"
    )
    if not len(always.times) + len(passing.times):
        raise DataError(
            f"{scene.source}: no place is seen by its cameras at its moments; check poses with: "
            "lumigraph inspect"
        )
    # without pictures that say what is empty, what is always there cannot be told
    lasting = config.still_places and _tells(scene, config) and len(always.times) > 0
    still = _still(scene, config, always) if lasting else None
    moving = _by_moment(passing) if lasting else [always, *_by_moment(passing)]
    return Start(_clouds(config, scene, moving), still, [note])


def _tells(scene: Scene, config: Gaussians4DConfig) -> bool:
    """Whether pictures say what is empty."""
    return scene.has_alpha or config.background in ("white", "black")


def random_places(
    scene: Scene, config: Gaussians4DConfig, count: int, generator: torch.Generator
) -> tuple[Placed, Placed]:
    """Random places for at most `count` Gaussians: of those that may never move, and the rest."""
    plain = background_color(scene) if config.background in ("white", "black") else None
    outlines = Silhouettes(scene, plain)
    held = config.initial_duration or _held_duration(scene)
    train = scene.split("train")
    # drawn, since evenly spread ones of a rig would show the same few moments by every camera
    views = train[torch.randperm(len(train), generator=generator)[:ALWAYS_VIEWS]]
    tells = _tells(scene, config)
    wanted = round(ALWAYS_SHARE * count)
    positions, colors = _allowed(scene, wanted, views, outlines, generator)
    longest = LONGEST if tells else POINTS_DURATION
    always = Placed(
        positions,
        colors,
        torch.full((len(positions),), 0.5),
        torch.full((len(positions),), config.initial_duration or longest),
        torch.zeros_like(positions),
    )
    asked = spread_views(training_moments(scene), MOST_MOMENTS)
    each = -(-(count - len(positions)) // len(asked))
    parts = [
        _passing(scene, each, float(moment), held, outlines, tells, generator) for moment in asked
    ]
    return always, _joined(parts)


def _passing(
    scene: Scene,
    count: int,
    moment: float,
    held: float,
    outlines: Silhouettes,
    tells: bool,
    generator: torch.Generator,
) -> Placed:
    """Places that a moment allows. Where few views show it, those that have a path come first; with
    more, nothing but what has just appeared or is about to vanish lacks one."""
    train = scene.split("train")
    assert scene.cameras.times is not None
    away = (scene.cameras.times[train].cpu() - moment).abs()
    views = spread_views(train[away == 0], MOST_MOMENT_VIEWS)
    few = tells and len(views) < ENOUGH_VIEWS
    drawn = count * (SPARE if few else 1)
    positions, colors = _allowed(scene, drawn, views, outlines, generator)
    velocities = torch.zeros_like(positions)
    if tells:
        around = spread_views(train[away <= PATH_REACH * held], MOST_PATH_VIEWS)
        velocities, found = _paths(scene, positions, moment, around, outlines, held, generator)
        if few:
            order = torch.cat([found.nonzero()[:, 0], (~found).nonzero()[:, 0]])[:count]
            positions, colors, velocities = positions[order], colors[order], velocities[order]
    times = torch.full((len(positions),), moment)
    return Placed(positions, colors, times, torch.full_like(times, held), velocities)


def _paths(
    scene: Scene,
    positions: Tensor,
    moment: float,
    views: Tensor,
    outlines: Silhouettes,
    held: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Mean velocity (P, 3) of the random ones that views allow, and whether there is any (P,)."""
    count = len(positions)
    directions = torch.nn.functional.normalize(
        torch.randn(count, PATHS, 3, generator=generator), dim=2
    )
    slow, fast = SLOWEST * scene.side, FARTHEST / held * scene.side
    speeds = slow * (fast / slow) ** torch.rand(count, PATHS, 1, generator=generator)
    drawn = directions * speeds
    drawn[:, 0], speeds[:, 0] = 0.0, slow
    motion = Motion(drawn.reshape(-1, 3), moment)
    allowed, _ = judge_points(
        scene,
        positions.repeat_interleave(PATHS, dim=0),
        views=views,
        silhouettes=outlines,
        motion=motion,
    )
    # slow ones are drawn more densely; so weighed, the mean is that of all velocities allowed
    weights = allowed.reshape(count, PATHS, 1) * (speeds / slow) ** 3
    whole = weights.sum(dim=1)
    return (drawn * weights).sum(dim=1) / whole.clamp_min(1e-9), whole[:, 0] > 0


def _held_duration(scene: Scene) -> float:
    """As long as `HELD_VIEWS` training views take, at least a frame."""
    moments = training_moments(scene)
    frame = frame_duration(moments)
    views_of_one = len(scene.split("train")) / len(moments)
    return min(max(HELD_VIEWS / views_of_one * frame / 2, frame), 1.0)


def _allowed(
    scene: Scene, count: int, views: Tensor, outlines: Silhouettes, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Positions and colors of at most `count` random points that some views allow."""
    positions, colors, found = [torch.zeros(0, 3)], [torch.zeros(0, 3)], 0
    for _ in range(ROUNDS):
        if found >= count:
            break
        drawn = uniform_points(scene, DRAWN, generator)
        allowed, shown = judge_points(scene, drawn, views=views, silhouettes=outlines)
        positions.append(drawn[allowed])
        colors.append(shown[allowed])
        found += int(allowed.sum())
    return torch.cat(positions)[:count], torch.cat(colors)[:count]


def _clouds(config: Gaussians4DConfig, scene: Scene, parts: Sequence[Placed]) -> GaussianCloud4D:
    """Gaussians at places; how large, the distances within each part say."""
    clouds = [_cloud(scene, config, part) for part in parts if len(part.times)]
    return GaussianCloud4D.concatenate([GaussianCloud4D.empty(plateaus=config.plateaus), *clouds])


def _by_moment(part: Placed) -> list[Placed]:
    return [_rows(part, part.times == moment) for moment in part.times.unique()]


def _rows(part: Placed, rows: Tensor) -> Placed:
    return Placed(*(getattr(part, field.name)[rows] for field in dataclasses.fields(part)))


def _joined(parts: Sequence[Placed]) -> Placed:
    names = [field.name for field in dataclasses.fields(Placed)]
    return Placed(*(torch.cat([getattr(part, name) for part in parts]) for name in names))


def _still(scene: Scene, config: Gaussians4DConfig, part: Placed) -> GaussianCloud:
    return cloud_from_points(
        part.positions,
        part.colors,
        opacity=OPACITY[config.strategy],
        scale_factor=SCALE_FACTOR[config.strategy],
        side=scene.side,
    )


def _cloud(scene: Scene, config: Gaussians4DConfig, part: Placed) -> GaussianCloud4D:
    still = _still(scene, config, part)
    cloud = timed(still, part.times, part.durations, plateaus=config.plateaus)
    return cloud.sheared(part.velocities) if bool(part.velocities.any()) else cloud


def timed(
    cloud: GaussianCloud, times: Tensor, durations: Tensor, *, plateaus: bool = False
) -> GaussianCloud4D:
    """Gaussians in space, there for a while each.

    Args:
        times: (G,) when.
        durations: (G,) standard deviations in time.
        plateaus: stay whole for half of that, to both sides.
    """
    moving = GaussianCloud4D.from_static(
        cloud, times=times, log_plateaus=(durations / 2).log() if plateaus else None
    )
    log_scales = torch.cat([cloud.log_scales, durations.log()[:, None]], dim=1)
    return dataclasses.replace(moving, log_scales=log_scales)


def _from_run(scene: Scene, config: Gaussians4DConfig, generator: torch.Generator) -> Start:
    """The Gaussians of a static run, for the whole clip, and random ones for what moves."""
    assert config.start_run is not None
    run = Run.open(config.start_run)
    field = run.model("cpu").field
    if not isinstance(field, Gaussians):
        raise DataError(
            f"{config.start_run}: is a run of method {run.config.method}; start_run takes one of "
            "method gaussians"
        )
    to_here = scene.normalization.compose(run.scene().normalization.inverse())
    cloud = field.cloud().transformed(to_here).with_degree(0)
    if len(cloud) > config.max_gaussians:
        raise DataError(
            f"{config.start_run}: has {len(cloud):,} Gaussians; raise max_gaussians "
            f"({config.max_gaussians:,})"
        )
    count = min(config.initial_gaussians, config.max_gaussians - len(cloud))
    _, passing = random_places(scene, config, count, generator)
    moving = _clouds(config, scene, _by_moment(passing))
    notes = [f"starts from {len(cloud):,} Gaussians of {config.start_run}"]
    if config.still:
        return Start(moving, cloud, notes)
    middle = torch.full((len(cloud),), 0.5)
    lasting = timed(cloud, middle, torch.full_like(middle, LONGEST), plateaus=config.plateaus)
    return Start(GaussianCloud4D.concatenate([lasting, moving]), None, notes)
