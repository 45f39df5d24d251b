"""What lies around the cube: where its samples are, what they see, what they learn."""

import math

import pytest
import torch

from lumigraph.fields import Surroundings
from lumigraph.fields.surroundings import cube_exits


def test_rays_leave_the_cube_where_they_should():
    origins = torch.tensor([[0.5, 0.5, -2.0], [0.5, 0.5, 0.5], [0.5, 3.0, -2.0], [0.5, 0.5, 9.0]])
    directions = torch.tensor([[0.0, 0.0, 1.0]]).repeat(4, 1)
    # through the cube; from inside; past it, where it is nearest; away from it
    assert cube_exits(origins, directions).tolist() == pytest.approx([3.0, 0.5, 2.5, 0.0])
    slanted = torch.nn.functional.normalize(torch.tensor([[1.0, 1.0, 1.0]]), dim=1)
    assert float(cube_exits(torch.zeros(1, 3), slanted)) == pytest.approx(math.sqrt(3))


def test_samples_lie_outside_and_reach_far():
    field = Surroundings(samples=16, log2_table_size=10)
    seen = []

    def query(positions, directions):
        seen.append(positions)
        return torch.zeros(len(positions)), torch.ones(len(positions), 3)

    field.query = query
    origins = torch.tensor([[0.5, 0.5, -2.0]]).repeat(8, 1)
    toward = torch.nn.functional.normalize(
        torch.randn(8, 3) * 0.1 + torch.tensor([0, 0, 1.0]), dim=1
    )
    color = field.colors(origins, toward, torch.rand(8))
    assert torch.all(color == 0)  # nothing is dense
    reach = (2 * seen[0] - 1).abs().amax(1).reshape(8, 16)
    assert float(reach.min()) >= 1 - 1e-4 and float(reach[:, -1].min()) > 10
    assert bool((reach[:, 1:] >= reach[:, :-1]).all())


def test_the_nearest_wall_is_seen():
    field = Surroundings(samples=32, log2_table_size=10)
    wall = torch.tensor([0.2, 0.7, 0.4])

    def query(positions, directions):
        far = positions[:, 2] > 4  # a red wall behind a green one
        dense = 100.0 * (positions[:, 2] > 2)
        return dense, torch.where(far[:, None], torch.tensor([1.0, 0, 0]), wall)

    field.query = query
    color = field.colors(torch.tensor([[0.5, 0.5, -2.0]]), torch.tensor([[0.0, 0.0, 1.0]]))
    assert torch.allclose(color[0], wall, atol=1e-3)


def test_a_sky_is_learnt():
    field = Surroundings(samples=8, log2_table_size=12, max_resolution=32)
    optimizer = torch.optim.Adam([p.tensor for p in field.trained_parameters()], lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    origins = torch.full((512, 3), 0.5)
    for _ in range(120):
        toward = torch.randn(512, 3, generator=generator)
        toward = torch.nn.functional.normalize(toward, dim=1)
        wanted = 0.5 + 0.4 * torch.sin(4 * toward)
        color = field.colors(origins, toward, torch.rand(512, generator=generator))
        loss = (color - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 2e-3
