"""Lesson 3. A field of your own: whatever has a density and a color can be rendered.

Learnt here: the protocol `VolumeField`, grid space (the cube `bounds` is the unit cube), the
occupancy grid that lets rays skip empty space, and the `Frame` that comes out.

    python examples/lessons/03_render_analytic_field.py [--out analytic.png]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

from lumigraph.core import Cameras, cube
from lumigraph.core.transforms import look_at
from lumigraph.renderers import OccupancyGrid, VolumeRenderer
from lumigraph.training.pictures import write_image

SHARPNESS = 400.0  # density per grid unit well inside


class Balls:
    """Three balls with soft edges. A volume field, with nothing to train."""

    bounds = cube(torch.zeros(3), 2.0)
    cascades = 1
    centers = torch.tensor([[0.35, 0.35, 0.4], [0.65, 0.4, 0.5], [0.5, 0.65, 0.6]])
    colors = torch.tensor([[0.9, 0.3, 0.2], [0.2, 0.6, 0.9], [0.95, 0.8, 0.3]])
    radius = 0.16

    def density(self, positions: Tensor) -> Tensor:
        depth = self.radius - torch.cdist(positions, self.centers)
        return SHARPNESS * torch.sigmoid(depth * 200).amax(dim=1)

    def query(self, positions: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        nearest = torch.cdist(positions, self.centers).argmin(dim=1)
        outward = torch.nn.functional.normalize(positions - self.centers[nearest], dim=1)
        light = 0.55 + 0.45 * (outward @ torch.tensor([0.4, -0.5, 0.77])).clamp(min=0)
        return self.density(positions), self.colors[nearest] * light[:, None]

    def networks(self) -> None:
        """No parts for the fused kernels: the renderer asks `query` instead."""
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("analytic.png"))
    parser.add_argument("--quick", action="store_true", help="a picture of 32 pixels")
    arguments = parser.parse_args()
    side = 32 if arguments.quick else 256

    field = Balls()
    occupancy = OccupancyGrid(resolution=64, cascades=1, march_steps=384)
    generator = torch.Generator().manual_seed(0)
    # look at every cell once; cells without density are skipped from now on
    occupancy.update(field.density, count=0, decay=1.0, generator=generator, every_cell=True)
    print(f"occupied: {occupancy.occupied_fraction():.1%} of the cells")

    pose = look_at(torch.tensor([2.2, -2.6, 1.8]), torch.zeros(3), up=[0.0, 0.0, 1.0])
    camera = Cameras.from_intrinsics(pose, side, side, fx=2.2 * side)
    renderer = VolumeRenderer(occupancy, background=torch.ones(3))
    frame = renderer.render(field, camera, normals=True)

    near, far = frame.depth_range()
    print(f"depth {near:.2f} to {far:.2f} scene units, {frame.opacity.mean():.1%} covered")
    print(f"samples a ray: {frame.extras['samples'].mean():.1f}")
    pictures = [frame.channel(name) for name in ("color", "depth", "normal")]
    write_image(arguments.out, torch.cat(pictures, dim=1))
    print(f"{arguments.out}: color | depth | normal")


if __name__ == "__main__":
    main()
