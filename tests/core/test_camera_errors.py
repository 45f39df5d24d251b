"""Cameras that cannot be: each gives one line that names the camera and the fault."""

import pytest
import torch

from lumigraph.core import Cameras, InputError


def changed_pose(row: int, column: int, value: float) -> torch.Tensor:
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[1, row, column] = value
    return poses


@pytest.mark.parametrize(
    ("poses", "message"),
    [
        (changed_pose(0, 3, float("nan")), "camera 1: camera_to_world holds NaN"),
        (changed_pose(2, 2, float("inf")), "camera 1: camera_to_world holds NaN or infinite"),
        (changed_pose(0, 0, 2.0), "camera 1: the 3x3 part .* not a rotation .*2.0"),
        (changed_pose(0, 0, -1.0), "camera 1: the 3x3 part of camera_to_world mirrors"),
        (changed_pose(3, 0, 1.0), "camera 1: the last row of camera_to_world must be 0 0 0 1"),
        (torch.zeros(3, 2, 4), r"must be 4x4 or 3x4 matrices.*got shape \(3, 2, 4\)"),
        (torch.zeros(5), r"must be 4x4 or 3x4 matrices.*got shape \(5,\)"),
    ],
)
def test_wrong_poses(poses: torch.Tensor, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Cameras.from_intrinsics(poses, 8, 8, 8.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"width": 0}, "width and height must be at least 1 pixel; got .0, 8."),
        ({"fx": 0.0}, "focal lengths fx, fy must be positive"),
        ({"fx": float("nan")}, "intrinsics must be finite"),
        ({"fx": None}, "fx is missing"),
        ({"fx": [1.0, 2.0, 3.0]}, "fx must be one number or 1"),
        ({"model": 9}, "model must be 0 to 4"),
        ({"times": [1.5]}, r"time must lie in \[0, 1\]"),
        ({"distortion": [float("inf")]}, "distortion must be finite"),
        ({"distortion": [0.0] * 9}, "distortion must be up to 8 numbers"),
    ],
)
def test_wrong_intrinsics(arguments: dict, message: str) -> None:
    usual = {"camera_to_world": torch.eye(4), "width": 8, "height": 8, "fx": 8.0}
    with pytest.raises(InputError, match=message):
        Cameras.from_intrinsics(**(usual | arguments))


def test_wrong_shape_in_the_constructor() -> None:
    good = Cameras.from_intrinsics(torch.eye(4), 8, 8, 8.0)
    with pytest.raises(InputError, match=r"camera_to_world must have shape \(C, 4, 4\)"):
        Cameras(
            camera_to_world=torch.eye(4),
            intrinsics=good.intrinsics,
            sizes=good.sizes,
            models=good.models,
            distortion=good.distortion,
        )


def test_other_wishes_that_cannot_be_met() -> None:
    cameras = Cameras.from_intrinsics(torch.eye(4), 8, 8, 8.0)
    with pytest.raises(InputError, match="at least 1 pixel; got 0 x 8"):
        cameras.resized_to(0, 8)
    with pytest.raises(InputError, match="scale must be a positive number"):
        cameras.resized(0)
    with pytest.raises(InputError, match="camera 3 does not exist; there are 1"):
        cameras.project(torch.zeros(1, 3), 3)
    with pytest.raises(InputError, match="at least one batch of cameras"):
        Cameras.concatenate([])
    timed = Cameras.from_intrinsics(torch.eye(4), 8, 8, 8.0, times=0.5)
    with pytest.raises(InputError, match="times must be given for all"):
        Cameras.concatenate([cameras, timed])
