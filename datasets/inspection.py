"""What a scene holds and what may be wrong with it: numbers for people and machines, a picture.

`inspect` looks at cameras, splits, bounds and points, not at the pixels. Letters: C cameras, P
points. Lengths are scene units, angles degrees.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lumigraph.core.cameras import CameraModel
from lumigraph.core.scene import Scene
from lumigraph.datasets.moments import Moments, moments_of
from lumigraph.datasets.poses import camera_numbers
from lumigraph.datasets.scene_picture import draw_scene
from lumigraph.datasets.targets import TargetScene

FEW_TRAINING_IMAGES = 10
FAR_TEST_FACTOR = 4.0
"""A test camera farther from all training cameras than so many usual gaps is extrapolation."""
BATCH = 1024
"""Cameras compared with all others at a time."""


@dataclass(frozen=True)
class Baselines:
    """How the cameras stand to each other; None everywhere means a single camera."""

    nearest_median: float
    """Median distance of a camera to its nearest neighbour."""
    nearest_least: float
    nearest_most: float
    angle_median: float
    """Median angle between the views of a camera and its nearest neighbour."""
    extent: float
    """Diagonal of the box around all camera positions."""
    arrangement: str
    """"forward": alike directions from nearby places; "inward": around a subject; else "free"."""


@dataclass(frozen=True)
class InspectionReport:
    """What was found in a scene."""

    name: str
    source: str
    images: int
    has_alpha: bool
    background: str | None
    masks: bool
    depths: bool
    times: bool
    moments: Moments | None
    """None where nothing moves."""
    sizes: dict[str, int]
    """"640x480" and how many cameras have that size, commonest first."""
    camera_models: dict[str, int]
    field_of_view: tuple[float, float]
    """Least and most horizontal field of view in degrees, of cameras that have one."""
    splits: dict[str, int]
    bounds: list[list[float]]
    """Lower and upper corner of the region of interest."""
    side: float
    aabb_scale: int
    near: float
    source_scale: float
    """Source units for one scene unit."""
    camera_distance: tuple[float, float]
    """Least and most distance of a camera from the middle of the bounds."""
    baselines: Baselines | None
    points: int
    points_in_bounds: float | None
    """Share of the points inside the bounds."""
    points_in_surroundings: float | None
    """Share of the points inside the cube that is `aabb_scale` times as large."""
    problems: list[str]
    """One line each; empty when nothing looks wrong."""

    def to_dict(self) -> dict[str, Any]:
        """The report as plain numbers, texts, lists and dictionaries."""
        return asdict(self)

    def lines(self) -> list[str]:
        """The report for a terminal, one fact a line, problems last."""
        facts = [*self._image_facts(), *self._camera_facts(), *self._space_facts()]
        width = max(len(name) for name, _ in facts)
        found = [f"{name:<{width}}  {value}" for name, value in facts]
        return found + [f"{'problem':<{width}}  {text}" for text in self.problems]

    def _image_facts(self) -> list[tuple[str, str]]:
        alpha = "with alpha" if self.has_alpha else "no alpha"
        over = f", over {self.background}" if self.background else ""
        named = (("masks", self.masks), ("depths", self.depths), ("times", self.times))
        extras = [name for name, present in named if present]
        return [
            ("scene", f"{self.name} ({self.source})"),
            ("images", f"{self.images}, {alpha}{over}"),
            ("also", ", ".join(extras) or "nothing else"),
            ("sizes", _counts(self.sizes)),
            ("splits", _counts(self.splits)),
            *([] if self.moments is None else [("moments", self.moments.line())]),
        ]

    def _camera_facts(self) -> list[tuple[str, str]]:
        low, high = self.field_of_view
        facts = [("camera models", _counts(self.camera_models))]
        if high > 0:
            facts.append(("field of view", f"{_span(low, high)} degrees across"))
        if self.baselines is not None:
            gaps = self.baselines
            between = f"{gaps.nearest_median:.3g} ({gaps.nearest_least:.3g} to "
            between += f"{gaps.nearest_most:.3g}), {gaps.angle_median:.3g} degrees"
            facts += [
                ("arrangement", f"{gaps.arrangement}, cameras spread over {gaps.extent:.3g}"),
                ("nearest camera", f"{between}, at the median"),
            ]
        return facts

    def _space_facts(self) -> list[tuple[str, str]]:
        corners = [", ".join(f"{x:.3g}" for x in corner) for corner in self.bounds]
        facts = [
            ("bounds", f"({corners[0]}) to ({corners[1]}), side {self.side:.3g}"),
            ("aabb_scale", f"{self.aabb_scale}: surroundings reach so many times farther"),
            ("camera distance", f"{_span(*self.camera_distance)} from the middle of the bounds"),
            ("source unit", f"{self.source_scale:.4g} for one scene unit"),
        ]
        shares = ""
        if self.points_in_bounds is not None and self.points_in_surroundings is not None:
            shares = f", {self.points_in_bounds:.0%} in the bounds"
            shares += f", {self.points_in_surroundings:.1%} in the surroundings"
        return [*facts, ("points", f"{self.points or 'none'}{shares}")]


def inspect(scene: Scene) -> InspectionReport:
    """Look a scene over before training on it.

    Args:
        scene: any scene; its images are not decoded.
    """
    cameras = scene.cameras
    sizes = Counter(f"{width}x{height}" for width, height in cameras.sizes.tolist())
    models = Counter(CameraModel(model).name.lower() for model in cameras.models.tolist())
    distances = (cameras.positions - scene.center.to(cameras.positions)).norm(dim=1)
    inside, around = _point_shares(scene)
    moments = moments_of(scene)
    return InspectionReport(
        name=scene.name,
        source=str(scene.source),
        images=0 if scene.images is None else len(scene.images),
        has_alpha=scene.has_alpha,
        background=scene.background,
        masks=scene.masks is not None,
        depths=scene.depths is not None,
        times=cameras.times is not None,
        moments=moments,
        sizes=dict(sizes.most_common()),
        camera_models=dict(models.most_common()),
        field_of_view=_field_of_view(scene),
        splits={name: int(indices.numel()) for name, indices in scene.splits.items()},
        bounds=[[round(float(x), 6) for x in corner] for corner in scene.bounds],
        side=round(scene.side, 6),
        aabb_scale=scene.aabb_scale,
        near=scene.near,
        source_scale=1 / float(scene.normalization.scale),
        camera_distance=(round(float(distances.min()), 6), round(float(distances.max()), 6)),
        baselines=_baselines(scene),
        points=0 if scene.points is None else len(scene.points),
        points_in_bounds=inside,
        points_in_surroundings=around,
        problems=[
            *scene.notes,
            *([] if moments is None else moments.problems()),
            *_problems(scene, inside, around),
        ],
    )


def save_picture(scene: Scene, path: str | Path) -> Path:
    """Draw cameras, points and bounds of a scene into a picture file; see `draw_scene`."""
    return draw_scene(scene, path)


def _field_of_view(scene: Scene) -> tuple[float, float]:
    """Horizontal, from focal length and width, as if without distortion."""
    cameras = scene.cameras
    flat = (cameras.models == CameraModel.PINHOLE) | (cameras.models == CameraModel.OPENCV)
    if not bool(flat.any()):
        return 0.0, 0.0
    half = torch.atan(cameras.sizes[flat, 0] / (2 * cameras.intrinsics[flat, 0].double()))
    angles = torch.rad2deg(2 * half)
    return round(float(angles.min()), 3), round(float(angles.max()), 3)


def _point_shares(scene: Scene) -> tuple[float | None, float | None]:
    """Shares of the points inside the bounds and inside the surroundings."""
    if scene.points is None or len(scene.points) == 0:
        return None, None
    offsets = (scene.points.positions - scene.center.to(scene.points.positions)).abs()
    reach = offsets.amax(dim=1) / (scene.side / 2)
    inside = float((reach <= 1).double().mean())
    return round(inside, 4), round(float((reach <= scene.aabb_scale).double().mean()), 4)


def _nearest(positions: Tensor, others: Tensor, *, same: bool) -> tuple[Tensor, Tensor]:
    """Distance to and index of the nearest of `others`; not itself where both are the `same`."""
    distances, indices = [], []
    for start in range(0, len(positions), BATCH):
        gaps = torch.cdist(positions[start : start + BATCH], others)
        if same:
            rows = torch.arange(len(gaps))
            gaps[rows, rows + start] = torch.inf
        nearest = gaps.min(dim=1)
        distances.append(nearest.values)
        indices.append(nearest.indices)
    return torch.cat(distances), torch.cat(indices)


def _baselines(scene: Scene) -> Baselines | None:
    cameras = scene.cameras.to("cpu")
    if cameras.times is not None:
        numbers = camera_numbers(cameras.camera_to_world.double().numpy())
        cameras = cameras.select([numbers.index(camera) for camera in range(max(numbers) + 1)])
    if len(cameras) < 2:
        return None
    positions, forwards = cameras.positions.double(), cameras.forwards.double()
    distances, indices = _nearest(positions, positions, same=True)
    cosines = (forwards * forwards[indices]).sum(dim=1).clamp(-1, 1)
    extent = float((positions.amax(dim=0) - positions.amin(dim=0)).norm())
    offsets = scene.center.double() - positions
    toward = torch.nn.functional.normalize(offsets, dim=1)
    aligned = float((forwards @ forwards.mean(dim=0)).min()) > 0.5
    if aligned and extent < float(offsets.norm(dim=1).median()):
        arrangement = "forward"
    elif float(((toward * forwards).sum(dim=1) > 0.7).double().mean()) > 0.9:
        arrangement = "inward"
    else:
        arrangement = "free"
    return Baselines(
        nearest_median=round(float(distances.median()), 6),
        nearest_least=round(float(distances.min()), 6),
        nearest_most=round(float(distances.max()), 6),
        angle_median=round(float(torch.rad2deg(torch.acos(cosines)).median()), 3),
        extent=round(extent, 6),
        arrangement=arrangement,
    )


def _problems(scene: Scene, inside: float | None, around: float | None) -> list[str]:
    """What looks wrong, one line each with what it may mean."""
    if isinstance(scene, TargetScene):
        return []  # its cameras took no pictures, they only say where to look from
    found = []
    training = scene.splits.get("train", torch.empty(0, dtype=torch.int64))
    if training.numel() < FEW_TRAINING_IMAGES:
        found.append(f"{training.numel()} training images are few; expect holes between the views")
    if inside is not None and inside < 0.1:
        found.append(f"only {inside:.0%} of the points lie in the bounds; are they well placed?")
    if around is not None and around < 0.95:
        found.append(
            f"{1 - around:.0%} of the points lie beyond the surroundings; a larger aabb_scale"
            " would hold them"
        )
    return found + _camera_problems(scene, training) + _size_problems(scene)


def _camera_problems(scene: Scene, training: Tensor) -> list[str]:
    found = []
    cameras = scene.cameras.to("cpu")
    fixed = cameras.times is None
    if fixed and len(cameras) > 1:
        poses = cameras.camera_to_world[:, :3].double().reshape(len(cameras), 12)
        gaps, _ = _nearest(poses, poses, same=True)
        twins = int((gaps < 1e-6 * max(scene.side, 1e-12)).sum())
        if twins:
            found.append(f"{twins} cameras share their pose with another one")
    corners = torch.cartesian_prod(*scene.bounds.T.to(cameras.dtype))
    samples = torch.cat([corners, scene.center.to(corners)[None]])
    away = sum(
        not bool(cameras.in_view(samples, index).any()) and not _within(scene, index)
        for index in range(len(cameras))
    )
    if away:
        found.append(f"{away} cameras see neither the middle nor a corner of the bounds")
    test = scene.splits.get("test", torch.empty(0, dtype=torch.int64))
    if fixed and test.numel() and training.numel() > 1:
        positions = cameras.positions.double()
        usual = float(_nearest(positions[training], positions[training], same=True)[0].median())
        gaps, _ = _nearest(positions[test], positions[training], same=False)
        far = int((gaps > FAR_TEST_FACTOR * usual).sum())
        if far and usual > 0:
            found.append(f"{far} test cameras are far from every training camera")
    return found


def _within(scene: Scene, index: int) -> bool:
    """Whether a camera stands inside the bounds, where it need not see a corner."""
    position = scene.cameras.positions[index].to(scene.bounds)
    return bool(((position >= scene.bounds[0]) & (position <= scene.bounds[1])).all())


def _size_problems(scene: Scene) -> list[str]:
    if scene.images is None:
        return ["the scene has no images"]
    different = [
        index
        for index in range(len(scene.images))
        if scene.images.size(index) != scene.cameras.size(index)
    ]
    if not different:
        return []
    first = different[0]
    width, height = scene.images.size(first)
    name = f"{scene.images.name(first)} ({width}x{height})"
    return [f"{len(different)} images differ in size from their camera, first {name}"]


def _span(low: float, high: float) -> str:
    """`3 to 5`, or one number where both look the same."""
    first, last = f"{low:.3g}", f"{high:.3g}"
    return first if first == last else f"{first} to {last}"


def _counts(counts: dict[str, int]) -> str:
    """`640x480 (30), 480x640 (4)`, shortened after a few."""
    shown = [f"{name} ({count})" for name, count in list(counts.items())[:4]]
    more = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "") or "none"
