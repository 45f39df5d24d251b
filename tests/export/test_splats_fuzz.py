"""Thousands of cut and damaged files: one clear error or a valid cloud, and quickly."""

import time

import numpy as np
import pytest
import torch
from plyfile import PlyData

from lumigraph.core import DataError
from lumigraph.export import WriteOptions, read_splats, write_splats

COUNT = 60
TRIES = 250
LONGEST_SECONDS = 1.0


def plain_files(folder, random_cloud) -> dict[str, bytes]:
    cloud = random_cloud(COUNT, 1)
    write_splats(cloud, folder / "a.ply")
    write_splats(cloud, folder / "a.splat")
    write_splats(cloud, folder / "3.spz")
    write_splats(cloud, folder / "2.spz", options=WriteOptions(spz_version=2))
    data = PlyData.read(str(folder / "a.ply"))
    PlyData(list(data), text=True).write(str(folder / "text.ply"))
    PlyData(list(data), byte_order=">").write(str(folder / "big.ply"))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Name -> bytes of a good file, one for each way a file can be stored."""
    return {}


NAMES = ["a.ply", "text.ply", "big.ply", "a.splat", "2.spz", "3.spz", "1.spz", "4.spz", "c.ply"]


@pytest.fixture
def good_file(sources, tmp_path_factory, random_cloud, spz_maker, compressed_ply_bytes):
    if not sources:
        sources.update(plain_files(tmp_path_factory.mktemp("good"), random_cloud))
        sources["1.spz"] = spz_maker.gzipped(1, COUNT, 1)
        sources["4.spz"] = spz_maker.version_4(COUNT, 1, extensions=b"\1\0\0\0\4\0\0\0abcd")
        sources["c.ply"] = compressed_ply_bytes(COUNT, rest=9)
    return sources


def outcome(path, content: bytes) -> str:
    """ "read" or "refused"; anything else is a failure of the test."""
    path.write_bytes(content)
    start = time.perf_counter()
    try:
        found = read_splats(path, max_gaussians=100_000)
    except DataError as error:
        message = str(error)
        assert message.startswith(str(path)) and "\n" not in message, message
        result = "refused"
    else:
        cloud = found.cloud
        assert len(cloud) == found.report.stored - found.report.culled > 0
        assert all(bool(torch.isfinite(tensor).all()) for tensor in cloud.tensors())
        assert bool(torch.isfinite(cloud.log_scales.exp()).all())
        result = "read"
    assert time.perf_counter() - start < LONGEST_SECONDS
    return result


@pytest.mark.parametrize("name", NAMES)
def test_cut_files(tmp_path, good_file, name):
    content = good_file[name]
    assert outcome(tmp_path / name, content) == "read"
    random = np.random.default_rng(1)
    cuts = {*range(40), *random.integers(0, len(content), TRIES).tolist(), len(content) - 1}
    for cut in sorted(cuts):
        result = outcome(tmp_path / name, content[:cut])
        # .splat says nowhere how long it is, and a text may lack its last digits.
        whole = (name == "a.splat" and cut % 32 == 0) or (
            name == "text.ply" and cut > len(content) - 30
        )
        assert result == "refused" or whole, cut


@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(tmp_path, good_file, name):
    random = np.random.default_rng(2)
    outcomes = set()
    for attempt in range(TRIES):
        content = bytearray(good_file[name])
        # Half of the damage is where it hurts, in the header.
        end = min(len(content), 400) if attempt % 2 else len(content)
        for place in random.integers(0, end, random.integers(1, 4)):
            content[place] = random.integers(0, 256)
        outcomes.add(outcome(tmp_path / name, bytes(content)))
    # Gzip has a checksum; the others cannot know of every damage.
    assert "refused" in outcomes or name == "a.splat"


@pytest.mark.parametrize("suffix", ["ply", "splat", "spz"])
def test_noise(tmp_path, suffix):
    random = np.random.default_rng(3)
    starts = [
        b"",
        b"ply\n",
        b"NGSP\4\0\0\0",
        b"\x1f\x8b\x08",
        b"ply\nformat ascii 1.0\nend_header\n",
    ]
    for attempt in range(TRIES):
        noise = random.integers(0, 256, int(random.integers(0, 40)) * 32, dtype=np.uint8).tobytes()
        outcome(tmp_path / f"a.{suffix}", starts[attempt % len(starts)] + noise)


def lying_ply() -> bytes:
    names = "x y z f_dc_0 f_dc_1 f_dc_2 opacity scale_0 scale_1 scale_2 rot_0 rot_1 rot_2 rot_3"
    lines = ["ply", "format binary_little_endian 1.0", f"element vertex {MILLIONS}"]
    lines += [f"property float {name}" for name in names.split()]
    return "\n".join([*lines, "end_header", ""]).encode() + bytes(64)


def lying_spz(maker) -> bytes:
    """Version 4 of three Gaussians whose header and table speak of millions."""
    content = bytearray(maker.version_4(3, 0))
    content[8:12] = MILLIONS.to_bytes(4, "little")
    for row, each in enumerate((9, 1, 3, 3, 4)):
        place = 32 + 16 * row + 8  # of the true size in a row of the table
        content[place : place + 8] = (MILLIONS * each).to_bytes(8, "little")
    return bytes(content)


MILLIONS = 19_000_000


def test_headers_that_lie_take_no_memory(tmp_path, spz_maker):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for name, content in (("a.ply", lying_ply()), ("a.spz", lying_spz(spz_maker))):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="cut short"):
            read_splats(tmp_path / name)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before  # KiB
    assert grown < 64 * 1024
