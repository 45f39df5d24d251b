"""Lesson 1. Cameras and rays: a pixel is a ray, and a point falls back onto its pixel.

Learnt here: the axes (x right, y down, z forward), pixel centres at +0.5, what lens distortion
does, and how a batch of cameras is resized, cropped and asked for rays.

    python examples/lessons/01_cameras_and_rays.py
"""

from __future__ import annotations

import torch

from lumigraph.core import CameraModel, Cameras
from lumigraph.core.transforms import look_at


def ring(count: int) -> torch.Tensor:
    """(count, 4, 4) poses on a circle of radius 3, one unit above the origin, looking at it."""
    angles = torch.arange(count) * (2 * torch.pi / count)
    eyes = torch.stack([3 * angles.cos(), 3 * angles.sin(), torch.ones(count)], dim=1)
    return look_at(eyes, torch.zeros(3), up=[0.0, 0.0, 1.0])


def main() -> None:
    # One lens for all cameras here; give lists for one each. fx is in pixels.
    cameras = Cameras.from_intrinsics(
        ring(8), 640, 480, fx=500.0, model=CameraModel.OPENCV, distortion=[-0.2, 0.05, 1e-3, 0.0]
    )
    print(f"{len(cameras)} cameras; the first stands at {rounded(cameras.positions[0])}")
    print(f"and looks along {rounded(cameras.forwards[0])}")

    # The middle of the image looks along the optical axis; directions have unit length.
    middle = torch.tensor([[320.0, 240.0]])
    rays = cameras.rays(torch.tensor([0]), middle)
    print(f"ray through the middle: {rounded(rays.directions[0])}")

    # A ray and a projection undo each other, distortion included.
    pixels = torch.rand(1000, 2) * torch.tensor([640.0, 480.0])
    which = torch.randint(len(cameras), (1000,))
    rays = cameras.rays(which, pixels)
    points = rays.points(torch.full((1000,), 2.5))
    again, depth = cameras.project(points, which)
    print(f"pixel -> ray -> point -> pixel: off by {float((again - pixels).abs().max()):.4f} px")

    # Distance runs along the ray, depth along the optical axis.
    factors = cameras.depth_factors(rays)
    print(f"distance 2.5 is depth {float(depth.min()):.3f} to {float(depth.max()):.3f}")
    assert torch.allclose(depth, 2.5 * factors, atol=1e-4)

    # Resizing and cropping change the intrinsics, never the rays of what is still seen.
    small = cameras.resized(0.5).cropped(10, 20, 200, 100)
    first = small.rays(torch.tensor([0]), torch.tensor([[0.0, 0.0]])).directions
    same = cameras.rays(torch.tensor([0]), torch.tensor([[20.0, 40.0]])).directions
    print(
        f"after resize and crop: {small.size(0)}, rays differ by {float((first - same).norm()):.1e}"
    )

    # All rays of one image, row by row.
    image = cameras.image_rays(0, step=8)
    print(f"every 8th pixel of camera 0: {len(image)} rays = 80 x 60")


def rounded(vector: torch.Tensor) -> list[float]:
    return [round(value, 3) + 0.0 for value in vector.tolist()]


if __name__ == "__main__":
    main()
