"""The tables of applications and encodings, against the sizes of the kernels and known figures."""

import pytest

from lumigraph.core.errors import ConfigError
from lumigraph.cuda.grid import GridLayout
from lumigraph.hardware.cycle.timing import array_tiles
from lumigraph.hardware.workloads import APPLICATIONS, ENCODINGS, encoding_of, workload

RESOLUTIONS = {
    ("nerf", "hash"): "16 25 37 56 85 129 195 295 446 676 1025 1553 2353 3566 5405 8193",
    ("nsdf", "hash"): "16 23 31 43 59 81 112 154 213 295 407 562 777 1073 1482 2048",
    ("nvr", "hash"): "16 21 27 34 43 54 69 88 112 143 182 232 296 377 481 613",
    ("gia", "hash"): "16 21 26 32 41 51 64 81 102 128 162 204 256 323 407 512",
    ("nerf", "dense"): "16 23 32 45 63 88 124 173",
    ("nerf", "lowres"): "128 128",
}
ENTRIES = {
    ("nerf", "hash"): (6_537_456, 4, 2.0),
    ("nsdf", "hash"): (6_098_120, 5, 2.0),
    ("nvr", "hash"): (5_356_432, 7, 2.0),
    ("gia", "hash"): (709_696, 16, 1.0),
    ("nerf", "dense"): (8_156_024, 8, 19.75),
    ("nerf", "lowres"): (4_194_304, 2, 32.0),
    ("gia", "dense"): (60_880, 8, 0.114),
    ("gia", "lowres"): (32_768, 2, 0.25),
}


@pytest.mark.parametrize("key", RESOLUTIONS)
def test_resolutions(key):
    found = encoding_of(*key).resolutions
    wanted = tuple(map(int, RESOLUTIONS[key].split()))
    # where the scale is a whole number, the digits of the growth decide on one vertex
    differences = [abs(a - b) for a, b in zip(found, wanted, strict=True)]
    assert max(differences) <= 1 and sum(differences) <= 3


@pytest.mark.parametrize("key", ENTRIES)
def test_sizes(key):
    encoding = encoding_of(*key)
    entries, dense, largest = ENTRIES[key]
    assert encoding.entries == entries
    assert sum(not hashed for hashed in encoding.hashed) == dense
    assert max(encoding.level_bytes(16)) / 2**20 == pytest.approx(largest, rel=5e-3)


@pytest.mark.parametrize("application", APPLICATIONS)
@pytest.mark.parametrize("kind", ENCODINGS)
def test_same_as_the_kernels(application, kind):
    encoding = encoding_of(application, kind)
    layout = GridLayout(
        dimensions=encoding.dimensions,
        levels=encoding.levels,
        features=encoding.features,
        log2_table_size=encoding.log2_table_size,
        base_resolution=encoding.base_resolution,
        growth=encoding.growth,
        dense=encoding.dense,
    )
    assert encoding.scales == layout.scales
    assert encoding.resolutions == layout.resolutions
    assert encoding.sizes == layout.sizes


def test_networks():
    assert [workload(name).macs for name in ("nerf", "nsdf", "nvr", "gia")] == [
        10_240,
        7_168,
        7_168,
        7_168,
    ]
    assert workload("nerf", "dense").macs == 10_240 - 1_024
    assert len(array_tiles(workload("nerf"), rows=64, cols=64)) == 5
    assert sum(array_tiles(workload("nsdf"), rows=64, cols=64)) == 3
    assert sum(array_tiles(workload("nsdf"), rows=32, cols=32)) == 2 + 4 + 2


def test_unknown_names():
    with pytest.raises(ConfigError, match="use one of nerf, nsdf, nvr, gia"):
        workload("splat")
    with pytest.raises(ConfigError, match="use one of hash, dense, lowres"):
        workload("nerf", "triplane")
