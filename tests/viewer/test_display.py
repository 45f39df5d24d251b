"""From frames to bytes."""

import numpy as np
import pytest
import torch

from lumigraph.core import Frame
from lumigraph.core.color import linear_to_srgb, srgb_to_linear
from lumigraph.export.video_writer import to_bytes
from lumigraph.viewer.display import ERROR_SHOWN, Look, Photo, picture


@pytest.fixture
def frame() -> Frame:
    generator = torch.Generator().manual_seed(1)
    color, normal = (torch.rand(6, 8, 3, generator=generator) for _ in range(2))
    opacity = torch.rand(6, 8, generator=generator)
    return Frame(color, opacity, opacity + 1, normal * 2 - 1)


def show(frame, photo=None, behind=None, **look):
    return picture(frame, Look(**look), behind=behind, photo=photo)


@pytest.mark.parametrize("channel", ["color", "depth", "normal", "opacity"])
def test_the_first_look_is_what_render_writes(frame, channel):
    assert np.array_equal(show(frame, channel=channel), to_bytes(frame.channel(channel)))


def test_a_stop_doubles_the_light(frame):
    linear = srgb_to_linear(frame.color) * 2
    expected = to_bytes(linear_to_srgb(linear).clamp(0, 1))
    assert np.abs(show(frame, exposure=1.0).astype(int) - expected).max() <= 1


def test_another_background_shows_through_what_is_not_opaque():
    opacity = torch.tensor([[0.0, 0.25, 1.0]])
    green = torch.tensor([0.0, 1.0, 0.0])
    color = opacity[..., None] * green + (1 - opacity)[..., None] * torch.ones(3)
    seen = show(Frame(color, opacity, opacity), behind=torch.ones(3), background=(0.0, 0.0, 1.0))
    assert seen[0].tolist() == [[0, 0, 255], [0, 64, 191], [0, 255, 0]]


def test_a_photograph_is_blended_where_it_has_pixels(frame):
    inside = torch.zeros(6, 8, dtype=torch.bool)
    inside[:, :4] = True
    photo = Photo(torch.zeros(6, 8, 3), inside)
    seen = show(frame, photo=photo, photo_share=1.0)
    assert seen[:, :4].max() == 0
    assert np.array_equal(seen[:, 4:], to_bytes(frame.color)[:, 4:])


def test_errors_grow_from_black_to_pale_and_need_a_photograph(frame):
    everywhere = torch.ones(6, 8, dtype=torch.bool)
    same = show(frame, photo=Photo(frame.color, everywhere), channel="error")
    off = show(frame, photo=Photo((frame.color + ERROR_SHOWN), everywhere), channel="error")
    assert same.max() <= 6 and off.min() > 150
    without = show(frame, channel="error")
    assert np.ptp(without, axis=2).max() == 0  # grey
