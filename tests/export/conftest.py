"""Clouds of Gaussians, files of them made by hand, and the real files where they are at hand; exact
pictures of spheres."""

import math
import os
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from lumigraph.core import Cameras, Frame, GaussianCloud, GaussianCloud4D
from lumigraph.core.transforms import look_at
from lumigraph.export import MovingSplats


def make_cloud(count: int = 500, degree: int = 3, seed: int = 0) -> GaussianCloud:
    """Gaussians as training leaves them: small, of all opacities, quaternions of any length."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    harmonics = torch.cat(
        [normal(count, 1, 3) * 0.8, normal(count, (degree + 1) ** 2 - 1, 3) * 0.15], dim=1
    )
    return GaussianCloud(
        normal(count, 3) * 2 + 1,
        normal(count, 4),
        normal(count, 3) - 4,
        normal(count) * 3,
        harmonics,
    )


@pytest.fixture
def random_cloud():
    return make_cloud


@pytest.fixture
def splat_data():
    """Path of a real file by name; skips the test where the files are not at hand."""
    beside = Path(__file__).resolve().parents[2].parent / "shared" / "data"
    root = Path(os.environ.get("LUMIGRAPH_TEST_DATA", beside)) / "splats"

    def find(name: str) -> Path:
        if not (root / name).exists():
            pytest.skip(f"test file {name} not found; set LUMIGRAPH_TEST_DATA")
        return root / name

    return find


class SpzMaker:
    """Files of SPZ put together number by number, as the format's description says.

    Gaussian i of `count` has the position (i, -2, 0.5) in the file's axes, alpha 200, the color
    (10, 128, 250), scales (100, 120, 140), a half turn about y and harmonics 128 + i % 7 - 3.
    """

    BITS = 8

    def streams(self, version: int, count: int, degree: int) -> list[bytes]:
        position = b"".join(
            struct.pack("<3e", i, -2, 0.5)
            if version == 1
            else b"".join(
                int(x * 2**self.BITS).to_bytes(3, "little", signed=True) for x in (i, -2, 0.5)
            )
            for i in range(count)
        )
        # x y z w = 0 1 0 0: the largest is the second; of first-three bytes y is 1.
        rotation = struct.pack("<I", 1 << 30) if version >= 3 else bytes([128, 255, 128])
        each = 3 * ((degree + 1) ** 2 - 1)
        rest = b"".join(bytes([128 + i % 7 - 3]) * each for i in range(count))
        alphas, colors = bytes([200]) * count, bytes([10, 128, 250]) * count
        return [position, alphas, colors, bytes([100, 120, 140]) * count, rotation * count, rest]

    def gzipped(self, version: int, count: int, degree: int, *, flags: int = 0) -> bytes:
        import gzip

        header = struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, self.BITS, flags, 0)
        return gzip.compress(header + b"".join(self.streams(version, count, degree)))

    def version_4(self, count: int, degree: int, *, extensions: bytes = b"") -> bytes:
        import zstandard

        full = [stream for stream in self.streams(4, count, degree) if stream]
        packed = [zstandard.ZstdCompressor().compress(stream) for stream in full]
        header = struct.pack(
            "<4sIIBBBBI12x",
            b"NGSP",
            4,
            count,
            degree,
            self.BITS,
            2 if extensions else 0,
            len(full),
            32 + len(extensions),
        )
        table = b"".join(
            struct.pack("<QQ", len(small), len(large))
            for small, large in zip(packed, full, strict=True)
        )
        return header + extensions + table + b"".join(packed)


@pytest.fixture
def spz_maker() -> SpzMaker:
    return SpzMaker()


def compressed_ply(count: int, *, rest: int = 0, chunk_colors: bool = True, seed: int = 0) -> bytes:
    """A compressed PLY of random words; chunk c spans c to c + 1, log scales -6 to -2."""
    random = np.random.default_rng(seed)
    chunks = -(-count // 256)
    ranges = [(lambda c: c), (lambda c: c + 1), (lambda c: -6.0), (lambda c: -2.0)]
    ranges += [(lambda c: -0.5), (lambda c: 1.5)] if chunk_colors else []
    names = ["min_x", "min_y", "min_z", "max_x", "max_y", "max_z"]
    names += [f"{end}_scale_{axis}" for end in ("min", "max") for axis in "xyz"]
    names += [f"{end}_{color}" for end in ("min", "max") for color in "rgb"] * chunk_colors
    lines = ["ply", "format binary_little_endian 1.0", f"element chunk {chunks}"]
    lines += [f"property float {name}" for name in names]
    lines.append(f"element vertex {count}")
    words = ("position", "rotation", "scale", "color")
    lines += [f"property uint packed_{name}" for name in words]
    body = b"".join(
        struct.pack("<3f", *[of(chunk)] * 3) for chunk in range(chunks) for of in ranges
    )
    body += random.integers(0, 2**32, (count, 4), dtype=np.uint32).tobytes()
    if rest:
        lines.append(f"element sh {count}")
        lines += [f"property uchar f_rest_{index}" for index in range(rest)]
        body += random.integers(0, 256, (count, rest), dtype=np.uint8).tobytes()
    return ("\n".join(lines) + "\nend_header\n").encode() + body


@pytest.fixture
def compressed_ply_bytes():
    return compressed_ply


class SpherePictures:
    """Exact pictures of spheres before a white background, as a model renders them.

    A sphere is x y z radius. Its color is 0.5 + 0.4 times the outward normal.
    """

    def __init__(self, *spheres: Sequence[float], background: float = 1.0) -> None:
        self.spheres = torch.tensor(spheres).reshape(-1, 4)
        self.background = background
        self.calls = 0

    def render(self, cameras: Cameras, *, channels: Sequence[str] = ()) -> Frame:
        self.calls += 1
        rays = cameras.image_rays(0)
        nearest = torch.full((len(rays),), math.inf)
        color = torch.full((len(rays), 3), self.background)
        for sphere in self.spheres:
            offset = rays.origins - sphere[:3]
            middle = -(offset * rays.directions).sum(dim=1)
            inside = middle**2 - (offset**2).sum(dim=1) + sphere[3] ** 2
            distance = middle - inside.clamp_min(0).sqrt()
            met = (inside > 0) & (distance > 0) & (distance < nearest)
            nearest = torch.where(met, distance, nearest)
            normal = (offset + rays.directions * distance[:, None]) / sphere[3]
            color = torch.where(met[:, None], 0.5 + 0.4 * normal, color)
        seen = torch.isfinite(nearest)
        depth = torch.where(seen, nearest, 0.0) * cameras.depth_factors(rays)
        width, height = cameras.size(0)
        opacity, depth = seen.float().reshape(height, width), depth.reshape(height, width)
        color = color.reshape(height, width, 3)
        return Frame(color, opacity, depth, extras={"median_depth": depth})


@pytest.fixture
def sphere_pictures() -> type[SpherePictures]:
    return SpherePictures


@pytest.fixture
def cameras_around():
    """Cameras spread over a sphere that look at the origin: count, radius, pixels along a side."""

    def make(count: int = 24, radius: float = 3.0, side: int = 64, **lens) -> Cameras:
        steps = torch.arange(count) + 0.5
        height = 1 - 2 * steps / count
        azimuth, across = math.pi * (3 - math.sqrt(5)) * steps, (1 - height**2).sqrt()
        spread = torch.stack([across * azimuth.cos(), across * azimuth.sin(), height], dim=1)
        poses = look_at(radius * spread, torch.zeros(3), up=[0.0, 0.0, 1.0])
        focal = lens.pop("focal", 1.2 * side)
        return Cameras.from_intrinsics(poses, side, side, focal, **lens)

    return make


def make_moving(
    count: int = 300, still: int = 100, *, degree: int = 1, plateaus: bool = False, seed: int = 0
) -> MovingSplats:
    """Gaussians of all durations that move about the point (1, 1, 1), and some that stand still."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> torch.Tensor:
        return torch.randn(*size, generator=generator)

    spatial = make_cloud(count, degree, seed)
    cloud = GaussianCloud4D(
        spatial.means,
        torch.rand(count, generator=generator) * 1.6 - 0.3,
        torch.cat([normal(count, 4), 0.4 * normal(count, 4)], dim=1),
        torch.cat([normal(count, 3) - 3, normal(count, 1) * 0.7 - 1.5], dim=1),
        spatial.opacity_logits,
        spatial.harmonics,
        normal(count) - 3 if plateaus else None,
    )
    return MovingSplats(cloud, make_cloud(still, degree, seed + 1), torch.linspace(0, 1, 7))


@pytest.fixture
def random_moving():
    return make_moving
