"""Where Gaussians start: at known points, at random points that the pictures allow, on a mesh, or
where a trained volume is dense. All begin with one color for every direction (degree 0).

The scale of a Gaussian is the mean distance to its three nearest neighbours, as in the 3DGS paper;
with strategy `mcmc` a tenth of it, and opaque to one half (Kheradmand et al. 2024).
"""

from __future__ import annotations

import math

import numpy as np
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from lumigraph.core import DataError, PointCloud, Scene
from lumigraph.core.gaussian_cloud import GaussianCloud
from lumigraph.core.harmonics import Y_0
from lumigraph.core.shapes import check_shapes
from lumigraph.fields import VolumeField
from lumigraph.training.config_gaussians import SplatConfig

from .silhouettes import judge_points
from .strategy import draw_rows

NEIGHBOURS = 3
LONE_SCALE = 0.01  # scale of a point without neighbours, in sides of the bounds
OPACITY = {"default": 0.1, "mcmc": 0.5}
SCALE_FACTOR = {"default": 1.0, "mcmc": 0.1}
ROUNDS = 24  # times that random points are drawn, until enough are left
MESH_THICKNESS = 0.1  # of a flat Gaussian on a mesh, over its radius
MESH_OPACITY = 0.9
VOLUME_RESOLUTION = 128  # cells per axis of a cascade
VOLUME_CHUNK = 2**18
EMPTY, SOLID = 0.1, 0.9  # opacities of a cell below and above which it holds no surface


def initial_cloud(scene: Scene, config: SplatConfig) -> tuple[GaussianCloud, list[str]]:
    """The Gaussians that a configuration asks to start from, on the CPU, and notes on them.

    Raises:
        DataError: points are asked for, and the scene has none.
    """
    generator = torch.Generator().manual_seed(config.seed)
    known = chosen_points(scene, config, generator)
    if known is not None:
        positions, colors, notes = known
    else:
        count = min(config.initial_gaussians, config.max_gaussians)
        positions, colors = random_points(scene, count, generator)
        notes = [f"starts from {len(positions):,} random points"]
    cloud = cloud_from_points(
        positions,
        colors,
        opacity=OPACITY[config.strategy],
        scale_factor=SCALE_FACTOR[config.strategy],
        side=scene.side,
    )
    return cloud, notes


def chosen_points(
    scene: Scene, config: SplatConfig, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[str]] | None:
    """Positions, colors in [0, 1] and notes of the scene's points that a run starts from, as many
    as may be; None: it starts from random places.

    Raises:
        DataError: points are asked for, and the scene has none.
    """
    known = None if scene.points is None else _finite_points(scene.points)
    if known is not None and len(known) and config.initialization != "random":
        return _at_most(known, config.max_gaussians, generator)
    if config.initialization == "points":
        raise DataError(
            f"{scene.source}: has no points to start from; use --set initialization=random"
        )
    return None


def _finite_points(points: PointCloud) -> PointCloud:
    good = torch.isfinite(points.positions).all(dim=1)
    colors = None if points.colors is None else points.colors[good]
    return PointCloud(points.positions[good], colors)


def _at_most(
    points: PointCloud, most: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, list[str]]:
    """Positions, colors in [0, 1] and notes of at most `most` points."""
    positions = points.positions.float().cpu()
    colors = torch.full_like(positions, 0.5)
    if points.colors is not None:
        colors = points.colors.cpu().float() / 255
    if len(positions) <= most:
        return positions, colors, [f"starts from {len(positions):,} points of the scene"]
    chosen = torch.randperm(len(positions), generator=generator)[:most].sort().values
    note = f"starts from {most:,} of {len(positions):,} points; max_gaussians allows no more"
    return positions[chosen], colors[chosen], [note]


def neighbour_distances(positions: Tensor, *, lone: float) -> Tensor:
    """(P,) mean distance to the three nearest other points.

    Args:
        positions: (P, 3) on the CPU.
        lone: distance given to a point that has no neighbours, or only copies of itself.

    Example:
        >>> neighbour_distances(torch.tensor([[0.0, 0, 0], [0, 0, 2]]), lone=1.0)
        tensor([2., 2.])
    """
    count = min(NEIGHBOURS, len(positions) - 1)
    if count < 1:
        return torch.full((len(positions),), lone)
    points = positions.double().numpy()
    distances, _ = cKDTree(points).query(points, k=count + 1, workers=-1)
    mean = torch.from_numpy(np.asarray(distances)[:, 1:].mean(axis=1))
    apart = mean[mean > 0]
    # copies of a point lie at distance 0, which has no logarithm
    least = 1e-3 * float(apart.median()) if len(apart) else lone
    return mean.clamp_min(least).float()


def cloud_from_points(
    positions: Tensor,
    colors: Tensor,
    *,
    opacity: float = 0.1,
    scale_factor: float = 1.0,
    side: float = 1.0,
) -> GaussianCloud:
    """Round Gaussians at points.

    Args:
        positions: (P, 3) scene frame.
        colors: (P, 3) sRGB in [0, 1].
        opacity: of all, in (0, 1).
        scale_factor: scale over the mean distance to the three nearest neighbours.
        side: of the scene's bounds; says how large a lone point is.
    """
    check_shapes(("positions", positions, "P 3"), ("colors", colors, "P 3"))
    distances = neighbour_distances(positions, lone=LONE_SCALE * side)
    scales = torch.log(distances * scale_factor)
    return _cloud(
        positions,
        torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(positions), 1),
        scales[:, None].repeat(1, 3),
        torch.full((len(positions),), opacity),
        colors,
    )


def random_points(scene: Scene, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Points in the scene's bounds with the colors that the pictures show there.

    Where the images have alpha, points that some picture shows as empty are left out. Where the
    scene has surroundings (aabb_scale > 1), half of the points lie there, as many in each cube
    twice as large as the one before; those that hardly any camera sees are left out.

    Returns:
        Positions and colors in [0, 1], (P, 3) each, P at most `count`.
    """
    positions, colors, found = [], [], 0
    for _ in range(ROUNDS):
        drawn = uniform_points(scene, count, generator)
        allowed, shown = judge_points(scene, drawn)
        positions.append(drawn[allowed])
        colors.append(shown[allowed])
        found += int(allowed.sum())
        if found >= count:
            break
    if found == 0:  # nothing to go by: cameras or silhouettes that contradict each other
        return drawn, shown
    return torch.cat(positions)[:count], torch.cat(colors)[:count]


def uniform_points(scene: Scene, count: int, generator: torch.Generator) -> Tensor:
    """(count, 3) in the bounds and, where the scene has them, its surroundings."""
    cascades = int(math.log2(scene.aabb_scale))
    unit = torch.rand(count, 3, generator=generator) * 2 - 1
    factor = torch.ones(count, 1)
    if cascades:
        outside = count // 2
        level = torch.randint(1, cascades + 1, (outside, 1), generator=generator)
        factor[:outside] = 2.0**level
        # out of the cube before: its half sides are half of this one's
        reach = unit[:outside].abs().amax(dim=1, keepdim=True)
        unit[:outside] *= torch.where(reach < 0.5, (1 - reach) / reach.clamp_min(1e-6), 1.0)
    return scene.center.cpu() + unit * factor * (scene.side / 2)


def cloud_from_mesh(
    vertices: Tensor,
    faces: Tensor,
    *,
    count: int,
    colors: Tensor | None = None,
    seed: int = 0,
) -> GaussianCloud:
    """Flat Gaussians spread evenly over a surface, along its normals.

    Args:
        vertices: (V, 3) scene frame.
        faces: (T, 3) int, vertices of each triangle.
        count: number of Gaussians.
        colors: (V, 3) sRGB in [0, 1]; None is grey.

    Raises:
        DataError: the mesh has no area.
    """
    check_shapes(("vertices", vertices, "V 3"), ("faces", faces, "T 3"), ("colors", colors, "V 3"))
    generator = torch.Generator().manual_seed(seed)
    corners = vertices.float().cpu()[faces.long().cpu()]
    across = torch.linalg.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = across.norm(dim=1) / 2
    if not len(areas) or not float(areas.sum()) > 0:
        raise DataError("mesh: has no triangle with an area; nothing to start from")
    chosen = draw_rows(areas, count, generator)
    weights = _barycentric(count, generator)
    radius = math.sqrt(float(areas.sum()) / (math.pi * count))
    scales = torch.tensor([radius, radius, MESH_THICKNESS * radius]).log().repeat(count, 1)
    shades = torch.full((count, 3), 0.5)
    if colors is not None:
        shades = (colors.float().cpu()[faces.long().cpu()][chosen] * weights).sum(dim=1)
    return _cloud(
        (corners[chosen] * weights).sum(dim=1),
        rotations_to(across[chosen]),
        scales,
        torch.full((count,), MESH_OPACITY),
        shades,
    )


def _barycentric(count: int, generator: torch.Generator) -> Tensor:
    """(count, 3, 1) weights of corners, evenly spread over a triangle."""
    root = torch.rand(count, generator=generator).sqrt()
    place = torch.rand(count, generator=generator)
    return torch.stack([1 - root, root * (1 - place), root * place], dim=1)[..., None]


def rotations_to(normals: Tensor) -> Tensor:
    """(N, 4) quaternions that turn the z axis to the given directions (N, 3) of any length."""
    x, y, z = torch.nn.functional.normalize(normals, dim=1).unbind(1)
    away = z < -1 + 1e-6  # straight down: half a turn about x
    turn = torch.stack([1 + z, -y, x, torch.zeros_like(z)], dim=1)
    turn[away] = torch.tensor([0.0, 1.0, 0.0, 0.0])
    return torch.nn.functional.normalize(turn, dim=1)


@torch.no_grad()
def cloud_from_volume(field: VolumeField, *, count: int, seed: int = 0) -> GaussianCloud:
    """Gaussians in the cells of a trained volume where it turns dense.

    Cells that are clear, and those inside of solid ones, hold no surface and get none. A cell's
    opacity is that of a ray across it.

    Args:
        count: most Gaussians.

    Raises:
        DataError: the volume is empty everywhere.
    """
    device = field.bounds.device
    generator = torch.Generator().manual_seed(seed)
    parts = [_surface_cells(field, level, device) for level in range(field.cascades)]
    positions, sides, opacities = (torch.cat(part) for part in zip(*parts, strict=True))
    if not len(positions):
        raise DataError("field: is empty everywhere; train it longer before starting from it")
    chosen = torch.randperm(len(positions), generator=generator)[:count].sort().values.to(device)
    positions, sides, opacities = positions[chosen], sides[chosen], opacities[chosen]
    axes = torch.cat([torch.eye(3), -torch.eye(3)]).to(device)
    colors = torch.zeros_like(positions)
    for axis in axes:  # the mean over directions stands for all of them
        for place, part in enumerate(positions.split(VOLUME_CHUNK)):
            shown = field.query(part, axis.expand_as(part).contiguous())[1]
            colors[place * VOLUME_CHUNK :][: len(part)] += shown / len(axes)
    side = float(field.bounds[1, 0] - field.bounds[0, 0])
    # n of N cells kept: Gaussians grow so that the surface stays closed
    wider = math.sqrt(len(parts[0][0]) / max(count, 1)) if len(parts[0][0]) > count else 1.0
    return _cloud(
        (positions * side + field.bounds[0]).cpu(),
        torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(positions), 1),
        torch.log(sides * side / 2 * wider).cpu()[:, None].repeat(1, 3),
        opacities.cpu().clamp(0.01, 0.99),
        colors.cpu(),
    )


def _surface_cells(
    field: VolumeField, level: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Centres (M, 3) in grid space, sides (M,) and opacities (M,) of cells with a surface."""
    size, reach = VOLUME_RESOLUTION, 2.0**level
    line = ((torch.arange(size, device=device) + 0.5) / size - 0.5) * reach + 0.5
    grid = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), dim=-1).reshape(-1, 3)
    density = torch.cat([field.density(part) for part in grid.split(VOLUME_CHUNK)])
    opacity = 1 - torch.exp(-density.float() * (reach / size))
    cube = opacity.reshape(1, 1, size, size, size)
    # the smallest opacity around: a cell is inside when that is high
    least = -torch.nn.functional.max_pool3d(-cube, 3, stride=1, padding=1)
    surface = (opacity > EMPTY) & (least.reshape(-1) < SOLID)
    if level:
        surface &= (grid - 0.5).abs().amax(dim=1) > reach / 4
    cells = surface.nonzero()[:, 0]
    sides = torch.full((len(cells),), reach / size, device=device)
    return grid[cells], sides, opacity[cells]


def _cloud(
    means: Tensor, rotations: Tensor, log_scales: Tensor, opacities: Tensor, colors: Tensor
) -> GaussianCloud:
    return GaussianCloud(
        means.float().contiguous(),
        rotations.contiguous(),
        log_scales.float().contiguous(),
        torch.logit(opacities.float()),
        ((colors.float() - 0.5) / Y_0)[:, None].contiguous(),
    )
