"""Whole training views in random order: targets, masks and depths at the resolution of the hour.

Two reasons to leave a pixel out are kept apart: `weight` 0 says that nothing is known of it (the
scene's masks), alpha 0 says that it is known to be empty and must show what is behind the scene.
Letters: C training views, H W image.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core import Cameras, DataError, Scene
from lumigraph.cuda.splatting import SplatCamera
from lumigraph.cuda.splatting.camera import NEAR
from lumigraph.datasets.images import area_average, reduced_size
from lumigraph.training.pixels import check_images, load_pixels

from .depth_targets import depth_target

MOST_WORKERS = 4  # decoding images at a time


@dataclass(frozen=True)
class ViewImages:
    """What is known of one view, at one resolution, on the training device."""

    rgba: Tensor
    """(H, W, 3) or (H, W, 4) uint8 sRGB with straight alpha."""
    weight: Tensor | None
    """(H, W) float in [0, 1]; 0 where a mask says to ignore the pixel."""
    depth: Tensor | None
    """(H, W) float, depth in scene units, 0 where unknown."""

    @property
    def nbytes(self) -> int:
        return sum(t.nbytes for t in (self.rgba, self.weight, self.depth) if t is not None)


@dataclass(frozen=True)
class View:
    """One training view."""

    place: int
    """In the training split."""
    camera: Cameras
    """A batch of one, at the size of the images, on the CPU."""
    splat: SplatCamera
    """The same for the rasteriser, on the training device."""
    images: ViewImages

    @property
    def time(self) -> float | None:
        """Of the camera, in [0, 1]."""
        return _time(self.camera)

    def directions(self) -> Tensor:
        """(H W, 3) unit directions of the pixels in the scene frame, on the training device."""
        return self.camera.image_rays(0).directions.to(self.splat.world_to_camera.device)

    def target(self, background: Tensor) -> Tensor:
        """(H, W, 3) sRGB in [0, 1], over `background` (3,) or (H, W, 3) where there is alpha."""
        pixels = self.images.rgba.float() / 255
        if pixels.shape[2] == 3:
            return pixels
        return torch.lerp(background.expand(*pixels.shape[:2], 3), pixels[..., :3], pixels[..., 3:])


class ViewSampler:
    """Each view once, then in another order again; cameras and times of a moving scene alike.

    Images are kept on the device as they are needed, up to a budget, and the next ones are prepared
    in the background. A scene of any number of images takes no more than the budget and those.

    Args:
        scene: with images.
        indices: (C,) cameras to draw from.
        budget_bytes: memory for prepared images.
        device: where views are used.
        seed: of the order.
        depths: also prepare depths, from the scene's depth maps or else its points.
        near: depth before which the rasteriser sees nothing, scene units.
        ahead: views that are prepared before they are asked for.

    Raises:
        DataError: no images; or depths are wanted and nothing is known of them.
    """

    def __init__(
        self,
        scene: Scene,
        indices: Tensor,
        *,
        budget_bytes: int,
        device: torch.device,
        seed: int,
        depths: bool = False,
        near: float = NEAR,
        ahead: int = 1,
    ) -> None:
        check_images(scene)
        if depths and scene.depths is None and scene.points is None:
            raise DataError(f"{scene.source}: has neither depths nor points; set depth_weight to 0")
        self._scene, self._device, self._depths = scene, device, depths
        self._indices: Sequence[int] = indices.tolist()
        self._cameras = scene.cameras[indices]
        self._budget, self._near = budget_bytes, near
        self._generator = torch.Generator().manual_seed(seed)
        self._order, self._next = torch.empty(0, dtype=torch.int64), 0
        self._scale = 1.0
        self._kept: dict[int, View] = {}
        self._kept_bytes = 0
        workers = min(ahead, MOST_WORKERS)
        self._workers = ThreadPoolExecutor(workers, thread_name_prefix="next-view")
        self._most_ahead = ahead
        self._ahead: dict[int, Future[View]] = {}

    def __len__(self) -> int:
        return len(self._indices)

    def next(self, scale: float = 1.0) -> View:
        """The next view.

        Args:
            scale: factor on width and height, in (0, 1].
        """
        if scale != self._scale:
            self._scale, self._kept, self._kept_bytes, self._ahead = scale, {}, 0, {}
        place = self._advance()
        view = self._kept.get(place) or self._awaited(place)
        self._keep(view)
        self._prepare_next()
        return view

    def some(self, most: int) -> list[tuple[float | None, SplatCamera]]:
        """Times and cameras of at most so many views, evenly spread, at the size of the hour."""
        places = torch.linspace(0, len(self) - 1, min(most, len(self))).round().long().tolist()
        views = [self._sized(place, self._scale) for place in places]
        return [(_time(camera), self._splat(camera)) for camera in views]

    def _advance(self) -> int:
        if self._next >= len(self._order):
            self._order = torch.randperm(len(self), generator=self._generator)
            self._next = 0
        place = int(self._order[self._next])
        self._next += 1
        return place

    def _awaited(self, place: int) -> View:
        ahead = self._ahead.pop(place, None)
        return self._prepare(place, self._scale) if ahead is None else ahead.result()

    def _prepare_next(self) -> None:
        # what follows the last view of an order is not known yet
        for place in self._order[self._next : self._next + self._most_ahead].tolist():
            if place not in self._kept and place not in self._ahead:
                self._ahead[place] = self._workers.submit(self._prepare, place, self._scale)

    def _keep(self, view: View) -> None:
        size = view.images.nbytes
        if view.place not in self._kept and self._kept_bytes + size <= self._budget:
            self._kept[view.place] = view
            self._kept_bytes += size

    def _prepare(self, place: int, scale: float) -> View:
        index, camera = self._indices[place], self._sized(place, scale)
        rgba = load_pixels(self._scene, index)
        width, height = camera.size(0)
        weight = None
        if self._scene.masks is not None:
            mask = self._scene.masks.load(index).to(torch.uint8)[..., None] * 255
            weight = _reduced(mask, width, height)[..., 0].float() / 255
        depth = depth_target(self._scene, index, camera) if self._depths else None
        images = ViewImages(
            _reduced(rgba, width, height).to(self._device),
            None if weight is None else weight.to(self._device),
            None if depth is None else depth.to(self._device),
        )
        return View(place, camera, self._splat(camera), images)

    def _sized(self, place: int, scale: float) -> Cameras:
        camera = self._cameras[place]
        return camera.resized_to(*(max(side, 1) for side in reduced_size(*camera.size(0), scale)))

    def _splat(self, camera: Cameras) -> SplatCamera:
        splat = SplatCamera.from_cameras(camera, near=self._near)
        return splat.with_pose(splat.world_to_camera.to(self._device))

    def state(self) -> dict[str, Tensor]:
        """Order and random numbers, for a checkpoint."""
        return {
            "random.views": self._generator.get_state(),
            "random.views_left": self._order[self._next :].clone(),
        }

    def restore(self, tensors: dict[str, Tensor]) -> None:
        """Go on from `state`."""
        self._generator.set_state(tensors["random.views"].cpu())
        self._order, self._next = tensors["random.views_left"].cpu().clone(), 0
        self._ahead = {}


def _time(camera: Cameras) -> float | None:
    return None if camera.times is None else float(camera.times[0])


def _reduced(image: Tensor, width: int, height: int) -> Tensor:
    if image.shape[:2] == (height, width):
        return image
    return torch.from_numpy(area_average(image.numpy(), width, height))
