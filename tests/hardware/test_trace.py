"""Trace files, synthetic scenes, and what part of a frame says about the whole (V18)."""

import json
import zipfile
from dataclasses import replace

import numpy as np
import pytest

from lumigraph.core.errors import ConfigError, DataError, InputError
from lumigraph.hardware.cluster import ClusterSpec
from lumigraph.hardware.simulation import frame_of, measure_rate
from lumigraph.hardware.synthetic import pattern, synthetic_trace
from lumigraph.hardware.trace import (
    Trace,
    choose_tiles,
    pixels_of_tiles,
    tile_grid,
    tile_of_pixel,
    tile_pixels,
)
from lumigraph.hardware.workloads import APPLICATIONS


@pytest.mark.parametrize("application", APPLICATIONS)
def test_round_trip(application, tmp_path):
    trace = synthetic_trace(application, tiles=6)
    trace.save(tmp_path / "t.ngt")
    again = Trace.load(tmp_path / "t.ngt")
    for name in ("positions", "rays", "rounds", "tiles"):
        assert np.array_equal(getattr(again, name), getattr(trace, name))
    assert (again.workload, again.scene) == (trace.workload, trace.scene)
    assert (tmp_path / "t.ngt").stat().st_size < 2_000_000


def test_damaged_files_are_named(tmp_path):
    file = tmp_path / "t.ngt"
    with pytest.raises(DataError, match=r"t\.ngt: no such trace"):
        Trace.load(file)
    file.write_bytes(b"not a trace")
    with pytest.raises(DataError, match=r"t\.ngt: damaged trace"):
        Trace.load(file)
    synthetic_trace("gia", tiles=2).save(file)
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"t\.ngt: damaged trace"):
        Trace.load(file)
    file.write_bytes(whole)
    with zipfile.ZipFile(file) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}

    def rewritten(**changes):
        with zipfile.ZipFile(file, "w") as archive:
            for name, data in (parts | changes).items():
                archive.writestr(name, data)
        return file

    meta = json.loads(parts["meta.json"])
    old = json.dumps(meta | {"schema": "lumigraph.hardware.trace/0"})
    with pytest.raises(DataError, match="record the trace again"):
        Trace.load(rewritten(**{"meta.json": old.encode()}))
    changed = parts["ray.npy"][:-1] + bytes([parts["ray.npy"][-1] ^ 1])
    with pytest.raises(DataError, match="ray.npy does not match its sum"):
        Trace.load(rewritten(**{"ray.npy": changed}))
    with pytest.raises(InputError, match=r"a trace ends in \.ngt"):
        synthetic_trace("gia", tiles=2).save(tmp_path / "t.zip")


def test_impossible_samples_are_refused():
    trace = synthetic_trace("gia", tiles=2)
    for bad in (np.nan, 1.5):
        points = trace.positions.copy()
        points[3, 0] = bad
        with pytest.raises(InputError, match="finite and within"):
            replace(trace, positions=points)
    with pytest.raises(InputError, match="must be \\(n, 2\\)"):
        replace(trace, rays=trace.rays[1:])
    with pytest.raises(InputError, match="beyond"):
        replace(trace, rays=trace.rays + np.uint32(3_000_000))


def test_tiles_cover_the_picture_once():
    width, height = 70, 44
    across, down = tile_grid(width, height)
    every = pixels_of_tiles(np.arange(across * down), width, height)
    assert sorted(every) == list(range(width * height))
    assert tile_pixels(width, height).sum() == width * height
    assert np.array_equal(np.bincount(tile_of_pixel(every, width)), tile_pixels(width, height))
    chosen = choose_tiles(1920, 1080, 40)
    assert len(set(chosen)) == 40 and (np.diff(chosen) > 0).all()


def test_synthetic_scenes():
    with pytest.raises(ConfigError, match="application 'x'"):
        synthetic_trace("x")
    with pytest.raises(ConfigError, match="tiles = 0"):
        synthetic_trace("gia", tiles=0)
    image = synthetic_trace("gia", width=64, height=32, tiles=100)
    assert len(image.positions) == 64 * 32 and image.samples_of_frame().half_width == 0
    sphere = synthetic_trace("nsdf", tiles=16)
    assert (np.diff(sphere.rounds.astype(int)) >= 0).all()  # a kernel a step
    with pytest.raises(ConfigError, match="use uniform, walk"):
        pattern("spiral", 3)
    for kind in ("uniform", "walk", "repeat", "stride"):
        points = pattern(kind, 100)
        assert points.shape == (100, 3) and points.min() >= 0 and points.max() <= 1


def test_part_of_a_frame_v18():
    """Whole-frame samples and cycles lie in the 95 % interval of 5 % of the tiles, 36 of 40
    times at least."""
    size = {"width": 400, "height": 224}
    whole = synthetic_trace("nvr", tiles=10_000, **size)
    cluster = ClusterSpec.load("paper-ideal").with_settings({"nfp.count": 8})
    rate = measure_rate(whole, cluster, fidelity="analytic")
    seconds = frame_of(whole, rate, cluster).cluster_seconds
    inside = inside_cycles = 0
    for seed in range(40):
        chosen = choose_tiles(400, 224, 18, seed=seed)
        kept = np.isin(tile_of_pixel(whole.rays, 400), chosen)
        part = replace(
            whole,
            positions=whole.positions[kept],
            rays=whole.rays[kept],
            rounds=whole.rounds[kept],
            tiles=chosen,
        )
        estimate = part.samples_of_frame()
        inside += estimate.contains(len(whole.positions))
        frame = frame_of(part, measure_rate(part, cluster, fidelity="analytic"), cluster)
        error = abs(frame.cluster_seconds / seconds - 1)
        inside_cycles += error <= estimate.relative + 1e-3
    assert inside >= 36 and inside_cycles >= 36
