"""What a picture can hold: meshes, cameras, points, Gaussians, bounds. Each item knows the points
that must be in view, how it is drawn and what the legend says of it.

All items of a picture are in one frame. Letters: C cameras, G Gaussians, N points, V vertices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lumigraph.core import Cameras, GaussianCloud, PointCloud, Similarity
from lumigraph.core.color import colorize
from lumigraph.core.frusta import frusta
from lumigraph.datasets.scene_picture import BOX_COLOR, OTHER_COLOR, POINT_COLOR, TRAIN_COLOR
from lumigraph.export.mesh_reading import Points, TriangleMesh

from .gaussians import FINE, base_colors, chosen_gaussians, ellipsoids, robust_box, tips
from .overlay import ColorBar, LegendEntry, nice_limit

SPLIT_COLORS = {"train": TRAIN_COLOR, "test": OTHER_COLOR, "val": "#0f9d76"}
PLAIN_COLOR = "#7c8794"
MESH_COLOR = "#d8d2c8"
LEFT_OUT_COLOR = "#4d5866"
"""Of what is not compared with the truth."""
_HEIGHT_RAMP = ((58, 72, 104), (104, 133, 158), (168, 178, 170), (216, 172, 110), (176, 96, 62))
MOST_FIT_POINTS = 20_000
"""Of an item, that the view is fitted to."""
_LIT = {"ambient": 0.32, "diffuse": 0.72, "specular": 0.0}
_SHARP = 50.0  # Degrees between triangles from which an edge is drawn as one.


@dataclass(frozen=True)
class Stage:
    """Where items are drawn."""

    pyvista: Any
    plotter: Any
    origin: Points
    """(3,) what is taken off all coordinates, as pictures are drawn in single precision."""
    reach: float
    """Length of the diagonal of all that is shown."""
    pixel: float
    """Rendered pixels for a pixel of a picture of 1100 x 800."""
    eye: Points
    """(3,) where the picture is taken from."""
    up: Points
    """(3,) unit vector that is up in the picture, or near it."""

    def place(self, points: Any) -> NDArray[np.float32]:
        return (np.asarray(points, np.float64) - self.origin).astype(np.float32)

    def surface(self, points: Points, polygons: NDArray[np.int64]) -> Any:
        """Polygons (T, 3 or 4) over points (N, 3)."""
        sides = np.full((len(polygons), 1), polygons.shape[1])
        return self.pyvista.PolyData(self.place(points), np.hstack([sides, polygons]).ravel())

    def lines(self, points: Points, segments: NDArray[np.int64]) -> Any:
        """Segments (S, 2) over points (N, 3)."""
        sides = np.full((len(segments), 1), 2)
        lines = np.hstack([sides, segments]).ravel()
        return self.pyvista.PolyData(self.place(points), lines=lines)


class Item(Protocol):
    """A thing in a picture."""

    def extent(self) -> Points:
        """(N, 3) points that should be in view."""
        ...

    def draw(self, stage: Stage) -> None:
        """Add it to the picture."""
        ...

    def legend(self) -> list[LegendEntry]:
        """What the legend says."""
        ...

    def bar(self) -> ColorBar | None:
        """What its colors mean, where they mean numbers."""
        ...


class _Item:
    def legend(self) -> list[LegendEntry]:
        return []

    def bar(self) -> ColorBar | None:
        return None


@dataclass(frozen=True, eq=False)
class MeshItem(_Item):
    """A mesh with its own colors or texture, or in one color."""

    mesh: TriangleMesh
    color: str | None = None
    """Instead of the mesh's own look."""

    def extent(self) -> Points:
        return _some(self.mesh.vertices)

    def draw(self, stage: Stage) -> None:
        for part in self.mesh.parts:
            if not len(part.triangles):
                continue
            surface = stage.surface(part.vertices, part.triangles)
            options: dict[str, Any] = {"color": self.color or MESH_COLOR}
            if self.color is None and part.texture is not None:
                surface.active_texture_coordinates = part.uv
                options = {"texture": stage.pyvista.Texture(np.ascontiguousarray(part.texture))}
            elif self.color is None and part.colors is not None:
                surface.point_data["rgb"] = part.colors
                options = {"scalars": "rgb", "rgb": True}
            _draw_surface(stage, surface, options)

    def legend(self) -> list[LegendEntry]:
        return [LegendEntry(f"mesh, {len(self.mesh.triangles):,} triangles", _mesh_chip(self))]


@dataclass(frozen=True, eq=False)
class ErrorItem(_Item):
    """A mesh colored by how far its vertices lie from the truth, gray where it is not compared."""

    mesh: TriangleMesh
    distances: Points
    """(V,) in the unit of the frame, NaN where it is not compared."""
    limit: float | None = None
    """Upper end of the colors; None takes what 98% of the vertices stay below, rounded up."""
    text: str = "distance to truth"
    """What stands over the color bar."""
    colormap: str = "ember"

    def extent(self) -> Points:
        return _some(self.mesh.vertices)

    @property
    def shown_limit(self) -> float:
        return _error_limit(self.distances, self.limit)

    def draw(self, stage: Stage) -> None:
        surface = stage.surface(self.mesh.vertices, self.mesh.triangles)
        colors = _error_colors(self.distances, self.shown_limit, self.colormap)
        surface.point_data["rgb"] = colors
        _draw_surface(stage, surface, {"scalars": "rgb", "rgb": True})

    def legend(self) -> list[LegendEntry]:
        left_out = bool(np.isnan(self.distances).any())
        return [LegendEntry("not compared", LEFT_OUT_COLOR)] if left_out else []

    def bar(self) -> ColorBar:
        return _error_bar(self.distances, self.shown_limit, self.text, self.colormap)


@dataclass(frozen=True, eq=False)
class PointErrorItem(_Item):
    """Points of the truth, colored by how far a mesh lies from them."""

    points: Points
    """(N, 3)"""
    distances: Points
    """(N,) in the unit of the frame."""
    limit: float | None = None
    """As that of `ErrorItem`."""
    text: str = "distance to mesh"
    colormap: str = "ember"

    @property
    def shown_limit(self) -> float:
        return _error_limit(self.distances, self.limit)

    def _cloud(self) -> PointsItem:
        colors = _error_colors(self.distances, self.shown_limit, self.colormap)
        cloud = PointCloud(torch.from_numpy(self.points), torch.from_numpy(colors))
        return PointsItem(cloud, size=5.0)

    def extent(self) -> Points:
        return self._cloud().extent()

    def draw(self, stage: Stage) -> None:
        self._cloud().draw(stage)

    def legend(self) -> list[LegendEntry]:
        return self._cloud().legend()

    def bar(self) -> ColorBar:
        return _error_bar(self.distances, self.shown_limit, self.text, self.colormap)


@dataclass(frozen=True, eq=False)
class CamerasItem(_Item):
    """Cameras as pyramids, colored by split."""

    cameras: Cameras
    splits: Mapping[str, Tensor] = field(default_factory=dict)
    """Camera indices by name: train, test, val."""
    length: float | None = None
    """Of a pyramid; None fits it to the gaps between cameras."""

    def extent(self) -> Points:
        return self.cameras.positions.double().cpu().numpy()

    def _groups(self) -> list[tuple[str, str, list[int]]]:
        """Name, color and cameras of each split, and of the rest."""
        groups, taken = [], set()
        for name, color in SPLIT_COLORS.items():
            indices = self.splits[name].tolist() if name in self.splits else []
            if indices:
                groups.append((name, color, indices))
                taken.update(indices)
        rest = [index for index in range(len(self.cameras)) if index not in taken]
        if rest:
            groups.append(("other" if groups else "", PLAIN_COLOR, rest))
        return groups

    def _length(self, reach: float) -> tuple[float, float]:
        """Length of a pyramid, and how far apart they stand in such lengths, at most 1."""
        positions = self.cameras.positions.double().cpu()
        few = positions[:: max(1, len(positions) // 500)]
        gaps = torch.cdist(few, positions)
        gaps[gaps < 1e-9 * reach] = torch.inf
        usual = float(gaps.amin(dim=1).median())
        length = self.length or float(np.clip(0.7 * usual, 0.012 * reach, 0.06 * reach))
        return length, min(1.0, usual / length)

    def draw(self, stage: Stage) -> None:
        if not len(self.cameras):
            return
        length, freedom = self._length(stage.reach)
        parts = [part.numpy() for part in frusta(self.cameras, length)]
        for _, color, indices in self._groups():
            apexes, rims, marks = (part[indices] for part in parts)
            # A picture from a camera is not taken through that camera's own frame.
            away = np.linalg.norm(apexes - stage.eye, axis=1) > 1.5 * length
            corners = np.concatenate([apexes[:, None], rims, marks], axis=1)[away]
            _draw_frusta(stage, corners, color, freedom)

    def legend(self) -> list[LegendEntry]:
        entries = []
        for name, color, indices in self._groups():
            noun = f"{name} camera".strip() + ("" if len(indices) == 1 else "s")
            entries.append(LegendEntry(f"{len(indices):,} {noun}", color))
        return entries


@dataclass(frozen=True, eq=False)
class PointsItem(_Item):
    """A cloud of points in its own colors, or colored by height."""

    points: PointCloud
    size: float | None = None
    """Of a point, in pixels of a picture of 1100 x 800; None takes one by their number."""
    most: int = 400_000
    """More points than these are thinned out evenly."""
    fitted: bool = True
    """Whether the view is chosen so that most of them are in it."""

    def extent(self) -> Points:
        if not self.fitted:
            return np.empty((0, 3))
        places = _some(self.points.positions.double().cpu().numpy())
        if not len(places):
            return places
        low, high = robust_box(places)
        return places[((places >= low) & (places <= high)).all(axis=1)]

    def draw(self, stage: Stage) -> None:
        step = max(1, -(-len(self.points) // self.most))
        places = self.points.positions[::step].double().cpu().numpy()
        if not len(places):
            return
        cloud = stage.pyvista.PolyData(stage.place(places))
        colors = self.points.colors
        cloud.point_data["rgb"] = (
            _by_height(places @ stage.up) if colors is None else colors[::step].cpu().numpy()
        )
        size = self.size or float(np.clip(5.8 - np.log10(len(places)) / 1.6, 1.6, 4.5))
        stage.plotter.add_mesh(
            cloud, style="points", point_size=size * stage.pixel, lighting=False,
            render_points_as_spheres=True, scalars="rgb", rgb=True,
        )  # fmt: skip

    def legend(self) -> list[LegendEntry]:
        colors, count = self.points.colors, len(self.points)
        drawn = len(range(0, count, max(1, -(-count // self.most))))
        text = f"{count:,} points" if drawn == count else f"{drawn:,} of {count:,} points"
        if colors is None or not len(colors):
            return [LegendEntry(f"{text}, colored by height", POINT_COLOR)]
        return [LegendEntry(text, _mean_color(colors))]


@dataclass(frozen=True, eq=False)
class GaussiansItem(_Item):
    """The Gaussians of a field as ellipsoids, the largest and most opaque ones."""

    cloud: GaussianCloud
    most: int = 20_000
    """How many are drawn at most."""
    sigmas: float = 1.5
    """Half axes of an ellipsoid in standard deviations."""
    bounds: Tensor | None = None
    """(2, 3) region of interest; Gaussians outside are left out. None takes where most are."""

    def _chosen(self) -> GaussianCloud:
        return chosen_gaussians(self.cloud, self.most, self.bounds)

    def extent(self) -> Points:
        return _some(tips(self._chosen(), sigmas=self.sigmas))

    def draw(self, stage: Stage) -> None:
        chosen = self._chosen()
        for part, splits in ((slice(FINE), 2), (slice(FINE, None), 1)):
            cloud = chosen.select(part)
            if not len(cloud):
                continue
            shapes = ellipsoids(cloud, stage.pyvista, sigmas=self.sigmas, splits=splits)
            surface = stage.surface(shapes.vertices, shapes.triangles)
            surface.point_data["Normals"] = shapes.normals
            surface.point_data.active_normals_name = "Normals"
            surface.point_data["rgb"] = shapes.colors
            stage.plotter.add_mesh(surface, scalars="rgb", rgb=True, smooth_shading=True, **_LIT)

    def legend(self) -> list[LegendEntry]:
        drawn = len(self._chosen())
        chip = _mean_color(torch.from_numpy(base_colors(self.cloud)))
        text = f"{drawn:,} of {len(self.cloud):,} Gaussians, at {self.sigmas:g} standard deviations"
        return [LegendEntry(text, chip)]


@dataclass(frozen=True, eq=False)
class BoundsItem(_Item):
    """The region of interest as a box of thin lines."""

    bounds: Tensor
    """(2, 3) lower and upper corner."""
    text: str = "bounds"
    move: Similarity | None = None
    """From the frame of the bounds to that of the picture."""

    def extent(self) -> Points:
        box = self.bounds.double().cpu()
        choice = torch.tensor([[number >> axis & 1 for axis in range(3)] for number in range(8)])
        corners = box.gather(0, choice)
        return (corners if self.move is None else self.move.apply(corners)).numpy()

    def draw(self, stage: Stage) -> None:
        edges = [(n, n | bit) for n in range(8) for bit in (1, 2, 4) if not n & bit]
        box = stage.lines(self.extent(), np.array(edges))
        stage.plotter.add_mesh(box, color=BOX_COLOR, line_width=1.4 * stage.pixel, lighting=False)

    def legend(self) -> list[LegendEntry]:
        corners = self.extent()
        sides = np.linalg.norm(corners[[1, 2, 4]] - corners[0], axis=1)
        same = np.allclose(sides, sides[0], rtol=1e-3)
        size = f"side {sides[0]:.3g}" if same else " x ".join(f"{side:.3g}" for side in sides)
        return [LegendEntry(f"{self.text}, {size}", BOX_COLOR)]


def _error_limit(distances: Points, limit: float | None) -> float:
    known = distances[np.isfinite(distances)]
    return limit or nice_limit(float(np.quantile(known, 0.98)) if len(known) else 0.0)


def _error_colors(distances: Points, limit: float, colormap: str) -> NDArray[np.uint8]:
    """(N, 3) sRGB."""
    known = np.isfinite(distances)
    values = torch.from_numpy(np.where(known, distances, 0.0) / limit)
    colors = _bytes(colorize(values, colormap=colormap))
    colors[~known] = [int(LEFT_OUT_COLOR[k : k + 2], 16) for k in (1, 3, 5)]
    return colors


def _error_bar(distances: Points, limit: float, text: str, colormap: str) -> ColorBar:
    known = distances[np.isfinite(distances)]
    marks = [("median", float(np.median(known)))] if len(known) else []
    return ColorBar(limit, text, colormap, bool((known > limit).any()), marks)


def _draw_surface(stage: Stage, surface: Any, options: dict[str, Any]) -> None:
    stage.plotter.add_mesh(
        surface,
        smooth_shading=True,
        split_sharp_edges=True,
        feature_angle=_SHARP,
        **_LIT,
        **options,
    )


def _draw_frusta(stage: Stage, corners: Points, color: str, freedom: float) -> None:
    """Pyramids of corners (C, 8, 3): apex, rim, mark; finer where they stand close together."""
    if not len(corners):
        return
    points = corners.reshape(-1, 3)
    starts = 8 * np.arange(len(corners))[:, None, None]
    edges = [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (2, 3), (3, 4), (4, 1)]
    outline = stage.lines(points, (np.array(edges) + starts).reshape(-1, 2))
    add = stage.plotter.add_mesh
    add(outline, color=color, line_width=(0.7 + 0.8 * freedom) * stage.pixel, lighting=False)
    panes = stage.surface(points, (np.array([[1, 2, 3, 4]]) + starts).reshape(-1, 4))
    add(panes, color=color, opacity=0.22 * freedom, lighting=False)
    tips = stage.surface(points, (np.array([[5, 6, 7]]) + starts).reshape(-1, 3))
    add(tips, color=color, lighting=False)


def _some(points: Points) -> Points:
    """At most MOST_FIT_POINTS of them, with the extremes along the axes."""
    if len(points) <= MOST_FIT_POINTS:
        return points
    ends = np.concatenate([points.argmin(axis=0), points.argmax(axis=0)])
    return np.concatenate([points[:: -(-len(points) // MOST_FIT_POINTS)], points[ends]])


def _bytes(colors: Tensor) -> NDArray[np.uint8]:
    return np.asarray((colors.clamp(0, 1) * 255 + 0.5).to(torch.uint8).numpy())


def _by_height(heights: Points) -> NDArray[np.uint8]:
    """(N, 3) sRGB: slate below, pale in the middle, sand above."""
    low, high = np.quantile(heights, (0.02, 0.98))
    places = np.clip((heights - low) / max(high - low, 1e-12), 0, 1)
    ramp = np.array(_HEIGHT_RAMP, np.float64)
    steps = np.linspace(0, 1, len(ramp))
    colors = [np.interp(places, steps, ramp[:, channel]) for channel in range(3)]
    return np.stack(colors, axis=1).astype(np.uint8)


def _mean_color(colors: Tensor) -> str:
    """Of (N, 3) uint8."""
    red, green, blue = colors.double().mean(dim=0).round().int().tolist()
    return f"#{red:02x}{green:02x}{blue:02x}"


def _mesh_chip(item: MeshItem) -> str:
    colors = item.mesh.parts[0].colors
    if item.color is not None or colors is None or not len(colors):
        return item.color or MESH_COLOR
    return _mean_color(torch.from_numpy(colors))
