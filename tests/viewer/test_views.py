"""Cameras of messages are checked; sizes keep the window's shape."""

import math

import pytest
import torch

from lumigraph.core.errors import InputError
from lumigraph.viewer.views import Shot


@pytest.mark.parametrize(
    "changes",
    [
        {"wxyz": (0, 0, 0, 0)},
        {"wxyz": (1, 0, 0)},
        {"wxyz": ("a", 0, 0, 0)},
        {"position": (math.nan, 0, 0)},
        {"position": None},
        {"position": (math.inf, 0, 0)},
        {"field_of_view": 0.0},
        {"field_of_view": math.pi},
        {"field_of_view": math.nan},
        {"size": (0, 10)},
        {"size": (10, -1)},
        {"size": (math.nan, 1)},
        {"size": (math.inf, 1)},
    ],
)
def test_what_is_no_camera_is_refused(changes):
    good = {"wxyz": (1, 0, 0, 0), "position": (0, 0, 0), "field_of_view": 1.0, "size": (8, 6)}
    Shot.of(**good)
    with pytest.raises(InputError, match="camera"):
        Shot.of(**{**good, **changes})


def test_huge_windows_are_cut_to_what_a_machine_can_render():
    shot = Shot.of((1, 0, 0, 0), (0, 0, 0), field_of_view=1.0, size=(10**6, 10**6))
    assert max(shot.size(3840)) <= 3840


def test_a_capped_picture_has_the_shape_of_its_window(make_shot):
    assert make_shot(width=1600, height=900).size(640) == (640, 360)
    assert make_shot(width=300, height=200).size(640) == (300, 200)


def test_the_camera_sees_the_window_whatever_the_size_of_the_picture(make_shot):
    shot = make_shot(width=601, height=403)
    corners = torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    seen = []
    for size in ((601, 403), (90, 60)):
        cameras = shot.cameras(*size)
        rays = cameras.rays(torch.zeros(2, dtype=torch.long), corners * torch.tensor(size))
        seen.append(rays.directions)
    assert torch.allclose(*seen, atol=1e-6)
    assert float(cameras.times) == 0.0 and float(shot.cameras(4, 4, moment=0.25).times) == 0.25
