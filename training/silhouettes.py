"""Scenes for surfaces: where the outline of the object is known from, and whether the cameras fit.

Surfaces are learnt from what lies inside the outline, so mask images become the alpha of pictures;
renderings are then judged over a plain background too.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from lumigraph.core import DataError, ImageSource, MapSource, Scene

from .config_neus import NeusConfig
from .pixels import check_images

LOOKED_POINTS = 4096
LEAST_SIDE, MOST_SIDE = 1e-6, 1e9  # of the bounds, in scene units: fp32 keeps positions apart


class CutOutImages:
    """Images whose alpha is a mask, white where the object is."""

    def __init__(self, images: ImageSource, masks: MapSource) -> None:
        self._images, self._masks = images, masks

    def __len__(self) -> int:
        return len(self._images)

    def load(self, index: int) -> Tensor:
        """(H, W, 4) uint8.

        Raises:
            DataError: the mask has another size.
        """
        image, mask = self._images.load(index)[..., :3], self._masks.load(index)
        if image.shape[:2] != mask.shape:
            wide, high = mask.shape[1], mask.shape[0]
            raise DataError(
                f"{self.name(index)}: {image.shape[1]} x {image.shape[0]} pixels, but its mask has "
                f"{wide} x {high}; give masks of the size of the images"
            )
        return torch.cat([image, mask[..., None].to(torch.uint8) * 255], dim=2)

    def size(self, index: int) -> tuple[int, int]:
        return self._images.size(index)

    def name(self, index: int) -> str:
        return self._images.name(index)


def scene_of_surface(scene: Scene, config: NeusConfig) -> Scene:
    """The scene as method `neus` sees it: images with the object's outline as alpha, or a known
    plain background; only what lies in the bounds.

    Raises:
        DataError: no images, no outline where one is needed, or no known background.
    """
    check_images(scene)
    if isinstance(scene.images, CutOutImages):
        return scene
    scene = dataclasses.replace(scene, aabb_scale=1)
    if config.background in ("white", "black"):
        scene = dataclasses.replace(scene, background=config.background)
    kind = _silhouette(scene, config)
    if kind == "masks":
        assert scene.images is not None and scene.masks is not None
        images = CutOutImages(scene.images, scene.masks)
        return dataclasses.replace(scene, images=images, masks=None, has_alpha=True)
    return scene


def _silhouette(scene: Scene, config: NeusConfig) -> str:
    known = {"alpha": scene.has_alpha, "masks": scene.masks is not None}
    wish = config.silhouette
    if wish in known and not known[wish]:
        others = [name for name, there in known.items() if there]
        way = f"it has {others[0]}" if others else "give images with alpha, or a folder of masks"
        raise DataError(f"{scene.source}: silhouette = {wish!r}, but it has no {wish}; {way}")
    if wish in known:
        return wish
    if config.background == "model":
        return "none"
    found = next((name for name, there in known.items() if there), None)
    if wish == "auto" and found is not None:
        return found
    if config.background == "random":
        raise DataError(
            f"{scene.source}: method neus needs the outline of the object; give images with "
            "alpha or a folder of masks, or use --set background=white (or black) for pictures "
            "before a plain wall, --set background=model for others"
        )
    if scene.background is None:
        raise DataError(
            f"{scene.source}: background = 'scene', but the data does not say what it is; use "
            "--set background=white or black, or give masks"
        )
    return "none"


def check_views(scene: Scene, indices: Tensor) -> None:
    """Refuse cameras that cannot show a surface inside the bounds.

    Raises:
        DataError: bounds of no size, fewer than two views, or no place that two of them see.
    """
    side = scene.side
    if not LEAST_SIDE < side < MOST_SIDE:
        raise DataError(
            f"{scene.source}: the bounding sphere has a radius of {side / 2:.3g}; give one that "
            "holds the object (scale_mat in cameras_sphere.npz, or other units)"
        )
    if len(indices) < 2:
        raise DataError(f"{scene.source}: {len(indices)} training view; a surface needs several")
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(LOOKED_POINTS, 3, generator=generator) * 2 - 1
    points = points[points.norm(dim=1) < 1] * (side / 2) + scene.center
    seen = torch.zeros(len(points), dtype=torch.int64)
    for index in indices.tolist():
        pixels, depth = scene.cameras.project(points, index)
        size = torch.tensor(scene.cameras.size(index))
        seen += ((pixels >= 0) & (pixels < size)).all(dim=1) & (depth > 0)
    if int(seen.max()) < 2:
        raise DataError(
            f"{scene.source}: the cameras look at no common region: no place in the bounding "
            f"sphere (centre {_short(scene.center)}, radius {side / 2:.3g}) is seen by two; "
            "check poses and sphere with: lumigraph inspect"
        )


def _short(center: Tensor) -> str:
    return "(" + ", ".join(f"{float(x):.3g}" for x in center) + ")"
