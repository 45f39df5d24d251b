"""Clouds of Gaussians, files of them made by hand, and the real files where they are at hand."""

import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lumigraph.core import GaussianCloud


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
