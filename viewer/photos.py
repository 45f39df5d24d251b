"""Photographs of a capture, seen through the viewer's camera.

The viewer's camera is a pinhole with its own size; a photograph has a lens. Where both stand at the
same place, every pixel of the view has one in the photograph: go out along the viewer's ray, come
back in through the lens.
"""

from __future__ import annotations

from torch import Tensor, nn

from lumigraph.core import Cameras, Scene

from .display import Photo

AT_CAMERA = 1e-3
"""A viewer this close to a camera, as a part of the scene's side, stands at it."""
SAME_TURN = 1e-3
"""Entries of two rotations that differ by less are those of one camera."""
SAME_TIME = 1e-4
"""Times this close to each other are those of one photograph."""


def stands_at(scene: Scene, index: int, cameras: Cameras) -> bool:
    """Whether a view (a batch of one) is taken from where camera `index` stands."""
    gap = cameras.positions[0].cpu() - scene.cameras.positions[index].cpu()
    return float(gap.norm()) <= AT_CAMERA * scene.side


def taken_at(scene: Scene, index: int, moment: float) -> int | None:
    """The photograph of a time from where camera `index` stands: its own, or another one from the
    same place, as of a rig that films. None where there is none of that time.

    Where times are unknown, that of the camera itself.
    """
    cameras = scene.cameras
    if cameras.times is None:
        return index
    then = (cameras.times.cpu() - moment).abs() <= SAME_TIME
    if bool(then[index]):
        return index
    poses = cameras.camera_to_world.cpu()
    away = (poses - poses[index]).abs()
    near = (away[:, :3, 3].amax(dim=1) <= AT_CAMERA * scene.side) & (
        away[:, :3, :3].amax(dim=(1, 2)) <= SAME_TURN
    )
    found = (then & near).nonzero()[:, 0]
    return int(found[0]) if len(found) else None


def photo_in_view(scene: Scene, index: int, cameras: Cameras) -> Photo | None:
    """The photograph of camera `index` as `cameras` (a batch of one, at the same place) sees it.

    None where the scene has no photographs or the view is taken from elsewhere.
    """
    if scene.images is None or not stands_at(scene, index, cameras):
        return None
    image = _over_background(scene, scene.images.load(index))
    width, height = cameras.size(0)
    rays = cameras.to("cpu").image_rays(0)
    taken = scene.cameras[index].to("cpu")
    points = taken.positions[0] + rays.directions * scene.side
    pixels, _ = taken.project(points, 0)
    inside = taken.in_view(points, 0)
    size = taken.sizes[0].to(pixels.dtype)
    place = (pixels / size * 2 - 1).reshape(1, height, width, 2)
    sampled = nn.functional.grid_sample(
        image.permute(2, 0, 1)[None], place, padding_mode="border", align_corners=False
    )
    return Photo(sampled[0].permute(1, 2, 0).contiguous(), inside.reshape(height, width))


def _over_background(scene: Scene, image: Tensor) -> Tensor:
    """uint8 with or without alpha -> (H, W, 3) float sRGB."""
    color = image.float() / 255
    if image.shape[2] == 3:
        return color
    alpha = color[..., 3:]
    behind = 0.0 if scene.background == "black" else 1.0
    return color[..., :3] * alpha + behind * (1 - alpha)
