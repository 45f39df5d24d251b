"""Gaussians as plain tensors: what trains, renders, moves between frames and goes to files.

Gaussian g has the density exp(-|S^-1 R^T (x - mean)|^2 / 2) with R from `rotations[g]` and S the
diagonal of exp(`log_scales[g]`), the opacity sigmoid(`opacity_logits[g]`) and, seen along the unit
direction d from the camera to the mean, the color max(0, 0.5 + sum_k Y_k(d) harmonics[g, k]), Y in
the order and signs of `core/harmonics.py`. The values are what an optimizer changes: raw.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.core.harmonics import spherical_harmonics
from lumigraph.core.shapes import check_shapes
from lumigraph.core.transforms import (
    Similarity,
    quaternion_from_rotation,
    rotation_from_quaternion,
)

MAXIMUM_DEGREE = 3
"""Highest degree of the harmonics; 16 coefficients a channel."""
_PROBE_COUNT = 64  # Directions that fix the matrices of 16 harmonics, four times as many.


@dataclass(frozen=True, eq=False)
class GaussianCloud:
    """G Gaussians with raw parameters, float32 on one device. None at all is legal.

    >>> cloud = GaussianCloud.empty(degree=1)
    >>> len(cloud), cloud.degree, tuple(cloud.harmonics.shape)
    (0, 1, (0, 4, 3))
    """

    means: Tensor
    """(G, 3) centres in the frame of the scene."""
    rotations: Tensor
    """(G, 4) quaternions w x y z of any length above 0, normalised where they are used."""
    log_scales: Tensor
    """(G, 3) natural logarithms of the standard deviations along the own axes, scene units."""
    opacity_logits: Tensor
    """(G,) opacity before the sigmoid."""
    harmonics: Tensor
    """(G, K, 3) coefficients of red, green and blue; K = 1, 4, 9 or 16 for degree 0 to 3."""

    def __post_init__(self) -> None:
        sizes = check_shapes(
            ("means", self.means, "G 3"),
            ("rotations", self.rotations, "G 4"),
            ("log_scales", self.log_scales, "G 3"),
            ("opacity_logits", self.opacity_logits, "G"),
            ("harmonics", self.harmonics, "G K 3"),
            dtype=torch.float32,
        )
        if sizes["K"] not in {(degree + 1) ** 2 for degree in range(MAXIMUM_DEGREE + 1)}:
            raise InputError(f"harmonics must hold 1, 4, 9 or 16 coefficients; got {sizes['K']}")

    @classmethod
    def empty(cls, *, degree: int = 0, device: torch.device | str = "cpu") -> GaussianCloud:
        """A cloud without any Gaussian."""
        _check_degree(degree)
        sizes: tuple[tuple[int, ...], ...] = (
            (0, 3),
            (0, 4),
            (0, 3),
            (0,),
            (0, (degree + 1) ** 2, 3),
        )
        return cls(*(torch.zeros(size, device=device) for size in sizes))

    def __len__(self) -> int:
        return self.means.shape[0]

    @property
    def degree(self) -> int:
        """Degree of the harmonics, 0 to 3."""
        return math.isqrt(self.harmonics.shape[1]) - 1

    @property
    def device(self) -> torch.device:
        return self.means.device

    def tensors(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The five tensors in the order of the fields."""
        return (
            self.means,
            self.rotations,
            self.log_scales,
            self.opacity_logits,
            self.harmonics,
        )

    def to(self, device: torch.device | str) -> GaussianCloud:
        """The cloud on another device."""
        return GaussianCloud(*(tensor.to(device) for tensor in self.tensors()))

    def select(self, rows: Tensor | slice) -> GaussianCloud:
        """Some of the Gaussians: by a mask (G,) bool, by indices (int64) or by a slice."""
        if isinstance(rows, Tensor):
            if rows.dtype not in (torch.bool, torch.int64):
                raise InputError(f"rows must be a bool mask or int64 indices; got {rows.dtype}")
            size = "G" if rows.dtype == torch.bool else "_"
            check_shapes(("means", self.means, "G 3"), ("rows", rows.to(self.device), size))
            rows = rows.to(self.device)
        return GaussianCloud(*(tensor[rows] for tensor in self.tensors()))

    def with_degree(self, degree: int) -> GaussianCloud:
        """The cloud with fewer harmonics, or with more that are 0."""
        _check_degree(degree)
        count = (degree + 1) ** 2
        harmonics = self.harmonics[:, :count]
        if harmonics.shape[1] < count:
            rest = harmonics.new_zeros(len(self), count - harmonics.shape[1], 3)
            harmonics = torch.cat([harmonics, rest], dim=1)
        return GaussianCloud(*self.tensors()[:4], harmonics)

    def transformed(self, similarity: Similarity) -> GaussianCloud:
        """The cloud moved: it looks the same to a camera that is moved as well.

        Args:
            similarity: from the frame of this cloud to the new one. Its scale multiplies the
                standard deviations; its rotation turns the Gaussians and their harmonics.
        """
        turn = quaternion_from_rotation(similarity.rotation)
        return GaussianCloud(
            similarity.apply(self.means),
            _quaternion_product(turn.to(self.rotations), self.rotations),
            self.log_scales + math.log(similarity.scale),
            self.opacity_logits,
            _turned_harmonics(self.harmonics, similarity.rotation),
        )

    @staticmethod
    def concatenate(clouds: Sequence[GaussianCloud]) -> GaussianCloud:
        """One cloud of several, in order, with the highest of their degrees."""
        if not clouds:
            raise InputError("clouds must hold at least one cloud; use GaussianCloud.empty()")
        degree = max(cloud.degree for cloud in clouds)
        parts = [cloud.with_degree(degree).tensors() for cloud in clouds]
        return GaussianCloud(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))


def harmonics_rotation(rotation: Tensor, degree: int) -> list[Tensor]:
    """Matrices that turn harmonics, one for each band from 0 to `degree`.

    With D_l the result's entry l: sum_k (D_l c)_k Y_lk(R d) = sum_k c_k Y_lk(d) for every d. Every
    band of harmonics is closed under rotation, so that the values at enough directions p fix the
    matrix: D_l = Y_l(p)^+ Y_l(R^T p).

    Args:
        rotation: (3, 3) R; made orthonormal first.
        degree: highest band, 0 to 3.

    Returns:
        Orthogonal matrices (1, 1), (3, 3), (5, 5), (7, 7), float64 on the CPU.

    >>> [tuple(matrix.shape) for matrix in harmonics_rotation(torch.eye(3), 2)]
    [(1, 1), (3, 3), (5, 5)]
    """
    check_shapes(("rotation", rotation, "3 3"))
    _check_degree(degree)
    matrix = rotation.detach().to("cpu", torch.float64)
    matrix = rotation_from_quaternion(quaternion_from_rotation(matrix))
    probes, inverses = _probes()
    turned = spherical_harmonics(probes @ matrix, MAXIMUM_DEGREE + 1)
    return [inverses[band] @ turned[:, band**2 : (band + 1) ** 2] for band in range(degree + 1)]


@functools.cache
def _probes() -> tuple[Tensor, list[Tensor]]:
    """Directions (P, 3) spread over the sphere and the pseudo-inverses of each band there."""
    index = torch.arange(_PROBE_COUNT, dtype=torch.float64)
    height = 1 - (2 * index + 1) / _PROBE_COUNT
    angle = index * math.pi * (3 - math.sqrt(5))  # golden angle: an even spiral
    level = (1 - height**2).sqrt()
    probes = torch.stack([level * angle.cos(), level * angle.sin(), height], dim=-1)
    values = spherical_harmonics(probes, MAXIMUM_DEGREE + 1)
    bands = [values[:, band**2 : (band + 1) ** 2] for band in range(MAXIMUM_DEGREE + 1)]
    return probes, [torch.linalg.pinv(band) for band in bands]


def _turned_harmonics(harmonics: Tensor, rotation: Tensor) -> Tensor:
    """(G, K, 3) coefficients in a frame turned by `rotation`."""
    matrices = harmonics_rotation(rotation, math.isqrt(harmonics.shape[1]) - 1)
    bands = [
        matrix.to(harmonics) @ harmonics[:, band**2 : (band + 1) ** 2]
        for band, matrix in enumerate(matrices[1:], start=1)
    ]
    return torch.cat([harmonics[:, :1], *bands], dim=1)


def _quaternion_product(first: Tensor, second: Tensor) -> Tensor:
    """The rotation `second` followed by `first`, (4,) and (G, 4); keeps lengths."""
    w, x, y, z = first
    rows = [[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]]
    matrix = torch.stack([torch.stack(row) for row in rows])
    return second @ matrix.T


def _check_degree(degree: int) -> None:
    if not 0 <= degree <= MAXIMUM_DEGREE:
        raise InputError(f"degree must be 0 to {MAXIMUM_DEGREE}; got {degree}")
