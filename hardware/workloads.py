"""What the cluster is asked to compute: the four applications of "Hardware Acceleration of Neural
Graphics" (Mubarik et al., ISCA 2023), their three encodings and their networks.

Level l of an encoding has scale N_min * b^l - 1 and R_l = ceil(scale) + 1 vertices along an axis;
it is stored in full while R_l^D <= T, else hashed into T entries. Sizes are those of the kernels
(`cuda/grid_layout.py`): a test holds both against each other.
"""

from __future__ import annotations

import functools
import math
import struct
from dataclasses import dataclass

from lumigraph.core.errors import ConfigError

HASH_FACTORS = (1, 2654435761, 805459861, 3674653429)
"""Primes of the spatial hash, one an axis (Mueller et al. 2022)."""
TENSOR_ROWS = 16
"""GPUs and the array compute outputs in steps of this many."""


@dataclass(frozen=True)
class Encoding:
    """A multi-resolution grid."""

    kind: str
    """hash, dense or lowres: the last are stored in full."""
    dimensions: int
    levels: int
    features: int
    base_resolution: int
    growth: float
    log2_table_size: int

    @property
    def dense(self) -> bool:
        return self.kind != "hash"

    @functools.cached_property
    def scales(self) -> tuple[float, ...]:
        """What positions in [0, 1] are multiplied with, as float32 numbers."""
        exact = [self.base_resolution * self.growth**level - 1 for level in range(self.levels)]
        return struct.unpack(f"{self.levels}f", struct.pack(f"{self.levels}f", *exact))

    @functools.cached_property
    def resolutions(self) -> tuple[int, ...]:
        """Vertices along an axis of each level."""
        return tuple(math.ceil(scale) + 1 for scale in self.scales)

    @functools.cached_property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each level, a multiple of 8."""
        whole = tuple(-(-(n**self.dimensions) // 8) * 8 for n in self.resolutions)
        return whole if self.dense else tuple(min(n, 1 << self.log2_table_size) for n in whole)

    @property
    def hashed(self) -> tuple[bool, ...]:
        """Whether each level is hashed."""
        pairs = zip(self.resolutions, self.sizes, strict=True)
        return tuple(n**self.dimensions > size for n, size in pairs)

    @property
    def entries(self) -> int:
        return sum(self.sizes)

    @property
    def width(self) -> int:
        """Features of a position, all levels together."""
        return self.levels * self.features

    @property
    def corners(self) -> int:
        """Table entries that a position reads of each level."""
        return 1 << self.dimensions

    def level_bytes(self, feature_bits: int) -> tuple[int, ...]:
        """Size of each level's table."""
        return tuple(size * self.features * feature_bits // 8 for size in self.sizes)


@dataclass(frozen=True)
class Network:
    """A perceptron without biases."""

    name: str
    widths: tuple[int, ...]
    """Inputs, hidden layers, outputs."""

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of each layer, outputs as computed: padded to 16."""
        padded = [-(-width // TENSOR_ROWS) * TENSOR_ROWS for width in self.widths[1:]]
        return tuple(zip((self.widths[0], *padded[:-1]), padded, strict=True))

    @property
    def macs(self) -> int:
        """Multiply-accumulates of a sample."""
        return sum(inputs * outputs for inputs, outputs in self.layers)


@dataclass(frozen=True)
class Workload:
    """An application with one of its encodings."""

    application: str
    encoding: Encoding
    networks: tuple[Network, ...]
    input_bytes: int
    """Read for each sample: the position, and for NeRF the direction, in fp16."""
    output_bytes: int
    """Written for each sample, in fp16."""

    @property
    def layers(self) -> tuple[tuple[int, int], ...]:
        """(inputs, outputs) of all layers in the order in which they run."""
        return tuple(layer for network in self.networks for layer in network.layers)

    @property
    def macs(self) -> int:
        return sum(network.macs for network in self.networks)


APPLICATIONS = ("nerf", "nsdf", "nvr", "gia")
ENCODINGS = ("hash", "dense", "lowres")
APPLICATION_NAMES = {
    "nerf": "NeRF",
    "nsdf": "signed distance (NSDF)",
    "nvr": "volume (NVR)",
    "gia": "gigapixel image (GIA)",
}
ENCODING_NAMES = {
    "hash": "multi-resolution hash grid",
    "dense": "multi-resolution dense grid",
    "lowres": "low-resolution dense grid",
}
_GROWTH = {
    "nerf": math.exp(math.log(2048 * 4 / 16) / 15),  # surroundings of 4 times the cube
    "nsdf": math.exp(math.log(2048 / 16) / 15),
    "nvr": 1.275,
    "gia": 2 ** (1 / 3),
}
_OUTPUTS = {"nerf": 4, "nsdf": 1, "nvr": 4, "gia": 3}


def encoding_of(application: str, kind: str) -> Encoding:
    """The encoding of the paper's configurations.

    Raises:
        ConfigError: there is no such application or encoding.

    >>> encoding_of("nerf", "hash").resolutions[:5]
    (16, 25, 37, 56, 85)
    """
    _check(application, kind)
    dimensions = 2 if application == "gia" else 3
    if kind == "hash":
        table = 24 if application == "gia" else 19
        return Encoding("hash", dimensions, 16, 2, 16, _GROWTH[application], table)
    if kind == "dense":
        return Encoding("dense", dimensions, 8, 2, 16, 1.405, 28)
    return Encoding("lowres", dimensions, 2, 8, 128, 1.0, 28)


def workload(application: str, kind: str = "hash") -> Workload:
    """An application of the paper with one of its encodings.

    Raises:
        ConfigError: there is no such application or encoding.

    >>> workload("nsdf").macs, workload("nerf").macs
    (7168, 10240)
    """
    encoding = encoding_of(application, kind)
    networks: tuple[Network, ...]
    if application == "nerf":
        networks = (
            Network("density", (encoding.width, 64, 16)),
            Network("color", (32, 64, 64, 3)),
        )
    else:
        networks = (Network("network", (encoding.width, 64, 64, _OUTPUTS[application])),)
    inputs = 5 if application == "nerf" else encoding.dimensions
    return Workload(application, encoding, networks, 2 * inputs, 2 * _OUTPUTS[application])


def _check(application: str, kind: str) -> None:
    if application not in APPLICATIONS:
        raise ConfigError(f"application {application!r}: use one of {', '.join(APPLICATIONS)}")
    if kind not in ENCODINGS:
        raise ConfigError(f"encoding {kind!r}: use one of {', '.join(ENCODINGS)}")
