"""Lesson 4. Train on images of your own: a scene made of tensors, without files.

Learnt here: what a `Scene` needs (cameras, images, splits, bounds), how training is told about
and asked, and how the trained model renders a view that nobody has seen.

    python examples/lessons/04_train_on_images_in_memory.py [--seconds 20] [--out runs/memory]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import lumigraph as lg
from lumigraph.core import Cameras, MemoryImages, Scene, cube
from lumigraph.core.transforms import look_at
from lumigraph.training.pictures import write_image


def photograph(cameras: Cameras, index: int) -> Tensor:
    """(H, W, 4) uint8: a ball of radius 1 with stripes, its alpha 0 beside the ball."""
    rays = cameras.image_rays(index)
    half = (rays.origins * rays.directions).sum(dim=1)
    inside = half**2 - (rays.origins.square().sum(dim=1) - 1)
    points = rays.points(-half - inside.clamp(min=0).sqrt())
    stripes = 0.5 + 0.5 * torch.sign(torch.sin(8 * points[:, 2] + 3 * points[:, 0]))
    color = torch.stack([stripes, 0.5 + 0.4 * points[:, 1], 1 - 0.6 * stripes], dim=1)
    width, height = cameras.size(index)
    image = torch.cat([color, (inside > 0).float()[:, None]], dim=1).reshape(height, width, 4)
    return (image.clamp(0, 1) * 255).to(torch.uint8)


def make_scene(views: int, side: int) -> Scene:
    """Cameras spread evenly over a sphere of radius 4 (a Fibonacci spiral)."""
    place = (torch.arange(views) + 0.5) / views
    height, angle = 1 - 2 * place, 2.39996 * torch.arange(views)
    circle = (1 - height**2).sqrt()
    eyes = 4 * torch.stack([circle * angle.cos(), circle * angle.sin(), height], dim=1)
    order = torch.arange(views)
    poses = look_at(eyes, torch.zeros(3), up=[0.0, 0.0, 1.0])
    cameras = Cameras.from_intrinsics(poses, side, side, fx=1.6 * side)
    return Scene(
        name="ball",
        source="memory",
        cameras=cameras,
        images=MemoryImages([photograph(cameras, index) for index in range(views)]),
        splits={"train": order[order % 8 != 4], "test": order[order % 8 == 4]},
        bounds=cube(torch.zeros(3), 2.4),
        background="white",
        has_alpha=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="training time")
    parser.add_argument("--out", type=Path, default=Path("runs/memory"), help="run folder")
    parser.add_argument("--quick", action="store_true", help="five steps on small pictures")
    arguments = parser.parse_args()

    scene = make_scene(views=32, side=24 if arguments.quick else 128)
    steps = 5 if arguments.quick else None
    config = lg.training.train_config("nerf", "tiny", seconds=arguments.seconds, steps=steps)
    run = lg.training.train(scene, config, out=arguments.out)
    summary = run.train_summary()
    print(f"{summary['steps']} steps in {summary['seconds']:.1f} s on {summary['device']}")

    # The scene lies on no disk, so the run can be scored and rendered in this process only.
    scores = lg.training.evaluate(run)
    print(f"{scores['views']} test views: PSNR {scores['psnr']:.2f} dB ({scores['protocol']})")

    frame = run.model().render(scene.cameras[4], channels=("color", "depth"))
    picture = torch.cat([frame.channel("color"), frame.channel("depth")], dim=1)
    write_image(run.path / "new-view.png", picture)
    print(f"{run.path / 'new-view.png'}: color | depth")


if __name__ == "__main__":
    main()
