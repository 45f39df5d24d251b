"""Pyramids of cameras: corners lie where the image's corners project from."""

import torch

from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.frusta import frusta
from lumigraph.core.transforms import look_at


def test_corners_project_to_the_corners_of_the_image():
    poses = torch.stack(
        [
            look_at(torch.tensor([3.0, x, 1.0]), torch.zeros(3), up=(0.0, 0.0, 1.0))
            for x in (-1.0, 2.0)
        ]
    )
    cameras = Cameras.from_intrinsics(poses, 64, 48, 60.0, 50.0)
    shapes = frusta(cameras, torch.tensor([0.5, 2.0]))
    assert shapes.rims.dtype == torch.float64 and shapes.marks.shape == (2, 3, 3)
    expected = torch.tensor([[0.0, 0], [64, 0], [64, 48], [0, 48]])
    for index, depth in enumerate((0.5, 2.0)):
        pixels, depths = cameras.project(shapes.rims[index], index)
        torch.testing.assert_close(pixels, expected, atol=1e-3, rtol=0)
        torch.testing.assert_close(depths, torch.full((4,), depth))
        # The mark stands above the image.
        assert float(cameras.project(shapes.marks[index], index)[0][1, 1]) < 0


def test_wide_and_round_lenses_stay_small():
    wide = Cameras.from_intrinsics(torch.eye(4), 100, 100, 1.0)
    round_lens = Cameras.from_intrinsics(torch.eye(4), 100, 50, model=CameraModel.EQUIRECTANGULAR)
    assert float(frusta(wide, 1.0).rims.abs().max()) == 1.5
    assert frusta(round_lens, 1.0).rims[0, 2].tolist() == [0.5, 0.25, 1.0]
