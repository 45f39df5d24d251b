"""What renderers may ask of a field. A renderer names the protocol that it takes and imports
nothing else from this room.

Grid space: the cube `bounds` of a scene is the unit cube, p = (x - lower) / side; cascade k of a
scene with surroundings is the cube of side 2^k about (0.5, 0.5, 0.5). Directions stay unit
vectors, distances are divided by the side.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol, runtime_checkable

from torch import Tensor, nn

from lumigraph.core import Similarity
from lumigraph.cuda.splatting import SplatCamera, SplatImages, SplatOptions
from lumigraph.cuda.surface import SurfaceSamples
from lumigraph.cuda.volume_step import GridNetworks


@runtime_checkable
class VolumeField(Protocol):
    """Density and color at points."""

    @property
    def bounds(self) -> Tensor:
        """(2, 3): lower and upper corner of the region of interest, a cube, in scene units."""

    @property
    def cascades(self) -> int:
        """The field is defined on the cube of side 2^(cascades - 1) in grid space."""

    def density(self, positions: Tensor) -> Tensor:
        """(M, 3) in grid space -> (M,) density per grid unit, >= 0."""

    def query(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 3) in grid space and (M, 3) unit -> density (M,) and sRGB color (M, 3) in [0, 1]."""

    def networks(self) -> GridNetworks | None:
        """The parts for fused kernels, or None when the field is of another make."""


@runtime_checkable
class SurfaceField(Protocol):
    """Signed distance and its gradient, and color, at points of the unit cube of grid space."""

    @property
    def bounds(self) -> Tensor:
        """(2, 3): lower and upper corner of the region of interest, a cube, in scene units."""

    @property
    def sharpness(self) -> Tensor:
        """() inverse width of the surface, per grid unit."""

    def sdf(self, positions: Tensor) -> Tensor:
        """(M, 3) -> (M,) distance in grid units, negative inside; without gradients."""

    def sdf_and_gradient(self, positions: Tensor) -> SurfaceSamples:
        """(M, 3) -> distance (M,), feature (M, 16) and gradient (M, 3) of the distance."""

    def color(self, samples: SurfaceSamples, positions: Tensor, directions: Tensor) -> Tensor:
        """sRGB (M, 3) in [0, 1] of places that `sdf_and_gradient` was asked about, seen along
        unit directions (M, 3)."""


@runtime_checkable
class DistanceField(Protocol):
    """Signed distance at points of the unit cube of grid space; every surface field is one."""

    @property
    def bounds(self) -> Tensor:
        """(2, 3): lower and upper corner of the region of interest, a cube, in scene units."""

    def sdf(self, positions: Tensor) -> Tensor:
        """(M, 3) -> (M,) distance in grid units, negative inside; without gradients."""


@runtime_checkable
class ColorPlane(Protocol):
    """A picture: colors on a flat rectangle."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""

    def colors(self, uv: Tensor) -> Tensor:
        """(M, 2) in [0, 1], u to the right and v down -> sRGB (M, 3) in [0, 1], without
        gradients."""


@runtime_checkable
class MediumLike(Protocol):
    """Fog: what scatters and swallows light at points of the unit cube of grid space."""

    @property
    def bounds(self) -> Tensor:
        """(2, 3): lower and upper corner of the region of interest, a cube, in scene units."""

    @property
    def majorants(self) -> Tensor:
        """(C, C, C) by x, y, z: no density in a cell of the unit cube is larger."""

    def density_and_albedo(self, positions: Tensor) -> tuple[Tensor, Tensor]:
        """(M, 3) -> extinction (M,) per grid unit and the part of it that scatters (M, 3), in
        [0, 1]; without gradients."""


class RayBackground(Protocol):
    """What rays see that leave the unit cube of grid space."""

    def colors(self, origins: Tensor, directions: Tensor, jitter: Tensor | None = None) -> Tensor:
        """sRGB (N, 3) of rays (N, 3) in grid space; jitter (N,) in [0, 1) moves samples."""
        ...


class GaussianTensors(NamedTuple):
    """Gaussians as a rasteriser takes them, raw as in `core.GaussianCloud`; may need gradients."""

    means: Tensor
    """(G, 3) in the scene frame."""
    rotations: Tensor
    """(G, 4) quaternions w x y z of any length above 0."""
    log_scales: Tensor
    """(G, 3) natural log of the standard deviations in scene units."""
    opacity_logits: Tensor
    """(G,)"""
    harmonics: Tensor
    """(G, K, 3) coefficients, K = 1, 4, 9 or 16."""


@runtime_checkable
class PrimitiveField(Protocol):
    """Gaussians, in the scene frame and not in grid space."""

    def gaussians_at(self, time: float | None) -> GaussianTensors:
        """What there is at a time in [0, 1]; None where time plays no part."""


class ShownGaussians(Protocol):
    """Gaussians at one time that go to the rasteriser in their own way; A rows, without gradients
    but for `render`."""

    def means(self) -> Tensor:
        """(A, 3) in the scene frame."""
        ...

    def velocities(self) -> Tensor:
        """(A, 3) scene units per unit of time."""
        ...

    def shortest_axes(self) -> Tensor:
        """(A, 3) unit directions along which they are thinnest, of either sign."""
        ...

    def render(
        self,
        camera: SplatCamera,
        options: SplatOptions,
        *,
        background: Tensor | None = None,
        extras: Tensor | None = None,
    ) -> SplatImages:
        """Their picture as of `render_gaussians`; extras (A, E)."""
        ...


@runtime_checkable
class SplattedField(Protocol):
    """A primitive field that knows a faster way to its pictures than `gaussians_at`."""

    def shown_at(self, time: float | None) -> ShownGaussians:
        """What there is at a time in [0, 1]; None where the camera has none."""


@runtime_checkable
class MovingField(Protocol):
    """A field of any kind that changes with time."""

    @property
    def moments(self) -> Tensor:
        """(F,) the times in [0, 1] that it was trained at, ascending; others lie between."""


class SurfaceMoment(NamedTuple):
    """A moving surface at one time: a still one and where it is."""

    field: SurfaceField
    """In a frame of its own."""
    occupancy: nn.Module
    """Cells of that frame which the surface may lie in: a `renderers.OccupancyGrid`."""
    motion: Similarity
    """Rigid, from the scene's frame to that of the field."""


@runtime_checkable
class MovingSurfaceField(MovingField, Protocol):
    """A surface that is another one at each moment."""

    @property
    def bounds(self) -> Tensor:
        """(2, 3): lower and upper corner of the region of interest, a cube, in scene units."""

    def at_time(self, time: float | None) -> SurfaceMoment:
        """What is shown at a time in [0, 1]; None where time plays no part."""


class TrainedParameter(NamedTuple):
    """One tensor of a field that training changes."""

    tensor: nn.Parameter
    is_network: bool
    """Weights of a network, which decay; else a table, whose entries without a gradient stay."""


def to_grid_space(points: Tensor, bounds: Tensor) -> Tensor:
    """Scene coordinates (..., 3) -> grid space.

    Example:
        >>> to_grid_space(torch.zeros(3), torch.tensor([[-1.0] * 3, [1.0] * 3]))
        tensor([0.5000, 0.5000, 0.5000])
    """
    return (points - bounds[0]) / (bounds[1, 0] - bounds[0, 0])
