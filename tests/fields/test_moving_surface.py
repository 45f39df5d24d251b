"""Surfaces along time: which moment a time shows, and how often one is read."""

import pytest
import torch

from lumigraph.core import Similarity, cube
from lumigraph.core.errors import InputError
from lumigraph.cuda.grid import GridLayout
from lumigraph.fields import (
    MovingField,
    MovingSurface,
    MovingSurfaceField,
    NeuralSurface,
    SurfaceField,
    SurfaceMoment,
)
from lumigraph.fields.moving_surface import KEPT_MOMENTS

BOUNDS = cube(torch.zeros(3), 2.0)


@pytest.fixture
def read():
    asked = []

    def moment(index: int) -> SurfaceMoment:
        asked.append(index)
        field = NeuralSurface(BOUNDS, GridLayout(levels=2, log2_table_size=6), seed=index)
        return SurfaceMoment(field, torch.nn.Identity(), Similarity.identity())

    moment.asked = asked
    return moment


def test_a_time_shows_the_nearest_moment_the_earlier_of_two(read):
    field = MovingSurface(torch.tensor([0.0, 0.5, 1.0]), BOUNDS, read)
    assert isinstance(field, MovingField) and isinstance(field, MovingSurfaceField)
    assert not isinstance(field, SurfaceField)
    wanted = {0.0: 0, 0.2: 0, 0.25: 0, 0.26: 1, 0.75: 1, 0.8: 2, 1.0: 2, None: 0}
    assert {time: field.nearest(time) for time in wanted} == wanted
    assert field.at_time(0.6) is field.at_moment(1)
    with pytest.raises(IndexError, match="moment 3 of 3 does not exist"):
        field.at_moment(3)


def test_moments_are_read_once_and_only_some_stay(read):
    field = MovingSurface(torch.linspace(0, 1, KEPT_MOMENTS + 1), BOUNDS, read)
    assert read.asked == []
    for index in (0, 0, *range(1, KEPT_MOMENTS), 0):
        field.at_moment(index)
    assert read.asked == list(range(KEPT_MOMENTS))
    field.at_moment(KEPT_MOMENTS)  # the one that was asked for longest ago, 1, goes
    field.at_moment(0)
    field.at_moment(1)
    assert read.asked == [*range(KEPT_MOMENTS + 1), 1]


@pytest.mark.parametrize("times", [[], [0.0, 0.0], [1.0, 0.0]])
def test_moments_must_ascend(times, read):
    with pytest.raises(InputError, match="ascending"):
        MovingSurface(torch.tensor(times), BOUNDS, read)
