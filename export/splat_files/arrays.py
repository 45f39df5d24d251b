"""Gaussians as numpy arrays, the form that every file format packs and unpacks.

Files that keep a color instead of harmonics store color = 0.5 + Y_0 c with c the coefficient of
degree 0 and Y_0 the constant harmonic.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from lumigraph.core import GaussianCloud
from lumigraph.core.errors import DataError

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]
Bytes = NDArray[np.uint8]

DEFAULT_MAX_GAUSSIANS = 20_000_000
_LARGEST_LOG_SCALE = 88.0  # exp of more is infinite in float32
_FLAT_LOG_SCALE = -30.0
_LARGEST_LOGIT = 20.0  # sigmoid of more is 1 in float32


class SplatArrays(NamedTuple):
    """The tensors of a `GaussianCloud`, float32, with the same meaning."""

    means: Floats
    """(G, 3)"""
    rotations: Floats
    """(G, 4) w x y z"""
    log_scales: Floats
    """(G, 3)"""
    opacity_logits: Floats
    """(G,)"""
    harmonics: Floats
    """(G, K, 3)"""

    @classmethod
    def of(cls, cloud: GaussianCloud) -> SplatArrays:
        """Views of the cloud's memory where it is on the CPU."""
        return cls(*(tensor.detach().cpu().numpy() for tensor in cloud.tensors()))

    def cloud(self) -> GaussianCloud:
        """The cloud, sharing memory where arrays are float32 and contiguous."""
        return GaussianCloud(
            *(torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32)) for array in self)
        )

    def rows(self, chosen: Mask | slice) -> SplatArrays:
        """Some of the Gaussians."""
        return SplatArrays(*(array[chosen] for array in self))

    @property
    def gaussians(self) -> int:
        """How many there are; `len` is that of the tuple."""
        return self.means.shape[0]

    @property
    def degree(self) -> int:
        return math.isqrt(self.harmonics.shape[1]) - 1


@dataclass(frozen=True)
class Loaded:
    """What a format's reader found, before unusable rows are taken out."""

    arrays: SplatArrays
    format: str
    """Name for people, e.g. "SPZ 3"."""
    antialiased: bool = False
    """The Gaussians were trained with the screen filter of Mip-Splatting."""
    notes: tuple[str, ...] = ()
    """What the file holds and this reader left out."""


def repaired(arrays: SplatArrays) -> tuple[SplatArrays, Mask, list[str]]:
    """Make values usable where their meaning is clear, and mark the rows where it is not.

    Infinite opacity logits become 20 or -20, scales of 0 become e^-30, rotations of length 0 the
    identity. Rows with any other NaN or infinity, or a scale beyond float32, are to be left out.

    Returns:
        The arrays with all rows, the mask (G,) of the good ones, and what was done in words.
    """
    notes = []
    logits = np.clip(arrays.opacity_logits, -_LARGEST_LOGIT, _LARGEST_LOGIT)  # NaN stays
    flat = np.isneginf(arrays.log_scales)
    log_scales = np.where(flat, np.float32(_FLAT_LOG_SCALE), arrays.log_scales)
    rotations = arrays.rotations
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(rotations.astype(np.float64), axis=1)
    without = lengths < 1e-12
    if without.any():
        rotations = rotations.copy()
        rotations[without] = (1.0, 0.0, 0.0, 0.0)
        notes.append(f"{int(without.sum()):,} rotations of length 0 taken as none")
    if flat.any():
        notes.append(f"{int(flat.any(axis=1).sum()):,} flat Gaussians with a scale of 0")
    fixed = arrays._replace(rotations=rotations, log_scales=log_scales, opacity_logits=logits)
    good = np.asarray((log_scales <= _LARGEST_LOG_SCALE).all(axis=1))
    for array in fixed:
        good = good & np.isfinite(array).all(axis=tuple(range(1, array.ndim)))
    return fixed, good, notes


def check_budget(path: Any, count: int, max_gaussians: int) -> None:
    """Refuse a count from a file's header before any memory is taken for it.

    Raises:
        DataError: there is no Gaussian, or there are more than `max_gaussians`.
    """
    if count <= 0:
        raise DataError(f"{path}: holds no Gaussians; check how it was written")
    if count > max_gaussians:
        raise DataError(
            f"{path}: says it holds {count:,} Gaussians, more than max_gaussians "
            f"{max_gaussians:,}; allow them with --max-gaussians {count}"
        )


def logit(opacity: NDArray[np.floating[Any]]) -> Floats:
    """The inverse of the sigmoid, for values strictly between 0 and 1."""
    wide = opacity.astype(np.float64)
    return (np.log(wide) - np.log1p(-wide)).astype(np.float32)


def sigmoid(values: Floats) -> NDArray[np.float64]:
    with np.errstate(over="ignore"):
        return 1.0 / (1.0 + np.exp(-values.astype(np.float64)))


def logits_of_bytes(values: Bytes) -> Floats:
    """Opacity logits of opacities stored in 8 bits.

    0 and 255 stand for intervals half as wide as the others, in whose middle the opacity is taken:
    it stays off 0 and 1, where the logit is infinite.
    """
    return logit(np.clip(values.astype(np.float32), 0.25, 254.75) / 255.0)


def to_bytes(values: NDArray[np.floating[Any]]) -> Bytes:
    """Nearest whole numbers, cut to 0 to 255."""
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def unit(rotations: Floats) -> NDArray[np.float64]:
    """Quaternions (G, 4) of length 1."""
    wide = rotations.astype(np.float64)
    return wide / np.maximum(np.linalg.norm(wide, axis=1, keepdims=True), 1e-300)
