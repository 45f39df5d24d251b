"""Lesson 6: splatting as an operation. Learnt: what a Gaussian is, camera and picture, gradients
through the rasteriser, a file that other viewers open.

Two hundred Gaussians learn one picture of three discs, seen by one camera.

    python examples/lessons/06_splat_gaussians.py [--quick]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

import lumigraph as lg
from lumigraph.cuda.ops import SplatCamera, image_loss, render_gaussians

SIZE, COUNT = 96, 200


def target() -> torch.Tensor:
    """(H, W, 3): discs in red, green and blue on white."""
    x = torch.linspace(-1, 1, SIZE)
    picture = torch.ones(SIZE, SIZE, 3)
    for channel, (left, top) in enumerate(((-0.4, -0.3), (0.4, -0.3), (0.0, 0.4))):
        inside = (x[None, :] - left) ** 2 + (x[:, None] - top) ** 2 < 0.12
        picture[inside] = torch.eye(3)[channel]
    return picture


def start() -> lg.core.GaussianCloud:
    """Grey, round, half transparent, in front of a camera at the origin that looks along z."""
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(COUNT, 3, generator=generator) * 2 - 1
    means[:, 2] = means[:, 2] * 0.2 + 2
    return lg.core.GaussianCloud(
        means,
        rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(COUNT, 1),  # w x y z
        log_scales=torch.full((COUNT, 3), -2.5),  # natural logarithms of standard deviations
        opacity_logits=torch.zeros(COUNT),  # opacity one half
        harmonics=torch.zeros(COUNT, 1, 3),  # color 0.5: the constant band alone
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="few steps: only to see it work")
    parser.add_argument("--out", type=Path, default=None, help="also write a .ply, .splat or .spz")
    arguments = parser.parse_args()

    # world to camera (3, 4), then fx fy cx cy in pixels
    camera = SplatCamera(torch.eye(4)[:3], (SIZE, SIZE, SIZE / 2, SIZE / 2), SIZE, SIZE)
    field = lg.fields.Gaussians(start())
    optimizer = torch.optim.Adam(field.parameters(), lr=0.02)
    wanted, white = target(), torch.ones(3)
    steps = 5 if arguments.quick else 300
    for step in range(steps + 1):
        seen = render_gaussians(*field.gaussians_at(None), camera, background=white)
        loss = image_loss(seen.color, wanted)  # L1 and structural similarity
        if step % max(1, steps // 5) == 0:
            visible = int((seen.splats[:, 5] > 0).sum())
            print(f"step {step:3d}  L1 {float(loss.l1):.4f}  {visible} Gaussians visible")
        optimizer.zero_grad()
        loss.loss.backward()
        optimizer.step()
    if arguments.out is not None:
        print(lg.export.write_splats(field.cloud(), arguments.out).line())


if __name__ == "__main__":
    main()
