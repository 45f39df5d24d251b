"""What is learnt for each training image besides the scene: its exposure and its camera's error."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lumigraph.core import Cameras
from lumigraph.core.transforms import se3_exp
from lumigraph.fields import to_grid_space


class ExposureTable(nn.Module):
    """Log gain per training image and channel; its mean over images is kept at zero, because a
    common gain cannot be told from the scene's own brightness."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.log_gain = nn.Parameter(torch.zeros(images, 3))

    def forward(self, places: Tensor) -> Tensor:
        return torch.exp(self.log_gain[places])

    def center(self) -> None:
        with torch.no_grad():
            self.log_gain.sub_(self.log_gain.mean(dim=0))


class PoseTable(nn.Module):
    """A small rigid motion per training camera, applied on the left in grid units."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.motion = nn.Parameter(torch.zeros(images, 6))

    def forward(self, origins: Tensor, directions: Tensor, places: Tensor) -> tuple[Tensor, Tensor]:
        matrix = se3_exp(self.motion[places])
        rotation, shift = matrix[:, :3, :3], matrix[:, :3, 3]
        # turning about the middle of the scene, not about a corner of grid space
        moved = (rotation @ (origins - 0.5)[..., None])[..., 0] + 0.5 + shift
        return moved, (rotation @ directions[..., None])[..., 0]

    def center(self) -> None:
        with torch.no_grad():
            self.motion.sub_(self.motion.mean(dim=0))


def refined_cameras(poses: PoseTable, cameras: Cameras, bounds: Tensor) -> Cameras:
    """Training cameras with the learnt corrections, back in the scene frame."""
    side = float(bounds[1, 0] - bounds[0, 0])
    places = torch.arange(len(cameras), device=cameras.device)
    moved = cameras.camera_to_world.clone()
    with torch.no_grad():
        origins = to_grid_space(cameras.positions, bounds)
        new_origins, _ = poses(origins, cameras.forwards, places)
        axes = [poses(origins, moved[:, :3, k], places)[1] for k in range(3)]
    moved[:, :3, :3] = torch.stack(axes, dim=-1)
    moved[:, :3, 3] = new_origins * side + bounds[0]
    return cameras.with_poses(moved)
