"""Traces of real renders: as many samples as the renderer counted, where it marched."""

import numpy as np
import pytest
import torch

from lumigraph.core import Cameras, cube
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import look_at
from lumigraph.cuda.marching import full_grid
from lumigraph.fields import DenseGridField, HashGridField
from lumigraph.hardware.recording import record
from lumigraph.hardware.trace import Trace, tile_of_pixel
from lumigraph.renderers import OccupancyGrid, VolumeRenderer


def scene(kind=HashGridField, cascades=1, **options):
    options = {"levels": 4, "max_resolution": 64, "log2_table_size": 12} | options
    field = kind(cube(torch.zeros(3), 2.0), aabb_scale=2 ** (cascades - 1), **options)
    with torch.no_grad():
        field.table.mul_(3e4)  # some places dense, others not
    grid = OccupancyGrid(resolution=32, cascades=cascades, march_steps=128)
    bits, coarse = full_grid(32, cascades)
    bits[: len(bits) // 3] = 0
    grid.bits.copy_(bits)
    grid.coarse.copy_(coarse)
    renderer = VolumeRenderer(grid, background=torch.zeros(3))
    pose = look_at(torch.tensor([2.6, 1.1, 0.7]), torch.zeros(3), up=(0.0, 0.0, 1.0))
    return field, renderer, Cameras.from_intrinsics(pose[None], 70, 44, 60.0)


@pytest.mark.parametrize(("kind", "cascades"), [(HashGridField, 1), (DenseGridField, 2)])
def test_counts_are_those_of_the_renderer(kind, cascades):
    field, renderer, camera = scene(kind, cascades)
    counts = renderer.render(field, camera).extras["samples"].reshape(-1).numpy().astype(int)
    assert counts.sum() > 1000 and counts.min() < counts.max()
    trace = record(field, renderer, camera, tiles=None)
    assert np.array_equal(np.bincount(trace.rays, minlength=70 * 44), counts)
    assert trace.shaded == len(trace.positions) == counts.sum()
    assert len(trace.tiles) == 0 and trace.fraction == 1
    part = record(field, renderer, camera, tiles=5)
    assert part.shaded == counts.sum() and len(part.tiles) == 5
    inside = np.isin(tile_of_pixel(np.arange(70 * 44), 70), part.tiles)
    assert np.array_equal(np.bincount(part.rays, minlength=70 * 44), counts * inside)


def test_positions_are_those_of_the_field():
    """Asked again at the positions of the trace, the field gives the opacity of the picture."""
    field, renderer, camera = scene()
    frame = renderer.render(field, camera)
    trace = record(field, renderer, camera, tiles=None)
    density = field.density(torch.from_numpy(trace.positions)).detach().numpy()
    step = renderer.occupancy.march_grid.minimum_step
    depth = np.bincount(trace.rays, density * step, minlength=70 * 44)
    opacity = frame.opacity.reshape(-1).numpy()
    assert np.abs(1 - np.exp(-depth) - opacity).max() < 2e-3


def test_workload_and_round_trip(tmp_path):
    field, renderer, camera = scene()
    trace = record(field, renderer, camera, tiles=4, scene="ring", facts={"psnr": 30.5})
    layout = field.layout
    encoding = trace.workload.encoding
    assert (encoding.resolutions, encoding.sizes) == (layout.resolutions, layout.sizes)
    assert [n.widths for n in trace.workload.networks] == [field.density_widths, field.color_widths]
    trace.save(tmp_path / "a.ngt")
    trace.save(tmp_path / "b.ngt")
    assert (tmp_path / "a.ngt").read_bytes() == (tmp_path / "b.ngt").read_bytes()
    again = Trace.load(tmp_path / "a.ngt")
    assert again.workload == trace.workload and again.facts == {"psnr": 30.5}
    assert again.samples_of_frame() == trace.samples_of_frame()
    assert np.array_equal(again.positions, trace.positions)


def test_other_fields_are_refused():
    field, renderer, camera = scene()
    with pytest.raises(InputError, match="takes radiance fields on a grid"):
        record(torch.nn.Linear(1, 1), renderer, camera)
    with pytest.raises(InputError, match="takes one camera; got 2"):
        record(field, renderer, Cameras.concatenate([camera, camera]))
