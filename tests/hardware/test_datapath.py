"""V9: in float32 the processor's outputs are the field's own; narrower formats lose what they lose,
measured on a rendered picture."""

import math

import numpy as np
import pytest
import torch

from lumigraph.core import Cameras, cube
from lumigraph.core.errors import ConfigError
from lumigraph.core.transforms import look_at
from lumigraph.cuda.compositing import composite
from lumigraph.cuda.harmonics import harmonics_encode
from lumigraph.cuda.marching import full_grid, march_rays
from lumigraph.fields import HashGridField, to_grid_space
from lumigraph.hardware.datapath import NumberFormats, quantized, radiance
from lumigraph.hardware.recording import workload_of
from lumigraph.renderers import OccupancyGrid, VolumeRenderer


@pytest.fixture(scope="module")
def field():
    made = HashGridField(
        cube(torch.zeros(3), 2.0), levels=6, max_resolution=128, log2_table_size=12, seed=3
    )
    with torch.no_grad():
        made.table.mul_(2e4)
    return made


def outputs(field, positions, directions, formats):
    encoding = workload_of(field.networks()).encoding
    harmonics = harmonics_encode(directions, 4).numpy()
    return radiance(field.networks(), encoding, positions.numpy(), harmonics, formats)


def test_float32_is_the_field_itself(field):
    generator = torch.Generator().manual_seed(0)
    positions = torch.rand(3000, 3, generator=generator)
    directions = torch.nn.functional.normalize(torch.randn(3000, 3, generator=generator), dim=1)
    density, color = outputs(field, positions, directions, NumberFormats())
    with torch.no_grad():
        wanted, wanted_color = field.query(positions, directions)
    assert np.abs(np.log(density) - wanted.log().numpy()).max() < 1e-5
    assert np.abs(color - wanted_color.numpy()).max() < 1e-5


def picture(field, formats):
    """The picture that a cluster of these formats would make: rendered with its own outputs."""
    grid = OccupancyGrid(resolution=32, cascades=1, march_steps=128)
    bits, coarse = full_grid(32, 1)
    grid.bits.copy_(bits)
    grid.coarse.copy_(coarse)
    pose = look_at(torch.tensor([2.6, 1.1, 0.7]), torch.zeros(3), up=(0.0, 0.0, 1.0))
    rays = Cameras.from_intrinsics(pose[None], 24, 16, 22.0).image_rays(0)
    origins = to_grid_space(rays.origins, field.bounds)
    samples = march_rays(origins, rays.directions, grid.march_grid, max_samples=1 << 18)
    toward = rays.directions[samples.ray_indices.long()]
    if formats is None:
        with torch.no_grad():
            density, color = field.query(samples.positions, toward)
    else:
        found = outputs(field, samples.positions, toward, formats)
        density, color = (torch.from_numpy(value.astype(np.float32)) for value in found)
    shape = (samples.distances, samples.steps, samples.ray_offsets)
    return composite(density, color, *shape).color, VolumeRenderer(
        grid, background=torch.zeros(3)
    ).render(field, Cameras.from_intrinsics(pose[None], 24, 16, 22.0)).color.reshape(-1, 3)


def psnr(a, b):
    return -10 * math.log10(float(((a - b) ** 2).mean()) + 1e-20)


def test_formats_are_judged_by_rendering(field):
    truth, rendered = picture(field, None)
    assert psnr(truth, rendered) > 60  # the renderer's own picture
    scores = {
        bits: psnr(picture(field, NumberFormats(bits, bits))[0], truth) for bits in (8, 16, 32)
    }
    assert scores[32] > 120 > scores[16] > 80 > scores[8] > 40


def test_formats():
    assert quantized(np.float32([0, 0]), 8).tolist() == [0, 0]
    values = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    step = np.abs(values).max() / 127
    assert np.abs(quantized(values, 8) - values).max() <= step / 2 + 1e-6
    assert len(np.unique(quantized(values, 8))) <= 255
    with pytest.raises(ConfigError, match="feature_bits = 12; use one of 8, 16, 32"):
        NumberFormats(feature_bits=12)
