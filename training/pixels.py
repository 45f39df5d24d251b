"""Random training pixels: rays, their colors and what stands behind them.

Decoded 8-bit images stay in memory under a budget. Where they do not all fit, a window of them is
resident and moves on every `WINDOW_STEPS` steps, so that all are seen. Letters: N rays, P pixels.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import Cameras, DataError, Scene
from lumigraph.fields import to_grid_space

WINDOW_STEPS = 200


@dataclass(frozen=True)
class RayBatch:
    """Rays of one step in grid space, with their targets."""

    origins: Tensor
    """(N, 3) in grid space."""
    directions: Tensor
    """(N, 3) unit."""
    jitter: Tensor
    """(N,) in [0, 1): where in the first step a ray starts."""
    target: Tensor
    """(N, 3) sRGB, over `background` where the image has alpha."""
    background: Tensor
    """(N, 3) what a ray sees that hits nothing."""
    weight: Tensor | None
    """(N,) 0 where a mask says to ignore the pixel, else 1."""
    image_places: Tensor
    """(N,) place of the image in the training split."""
    pixels: Tensor
    """(N, 2) x, y of the pixel centre."""
    alpha: Tensor
    """(N,) how much of the pixel the object covers; 1 where the image has no alpha."""
    distance: Tensor | None = None
    """(N,) known distance along the ray in grid units, 0 unknown; None where not asked for."""

    def select(self, chosen: Tensor | slice) -> RayBatch:
        """Some of the rays."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        kept: dict[str, Any] = {k: None if v is None else v[chosen] for k, v in values.items()}
        return RayBatch(**kept)


def check_images(scene: Scene) -> None:
    """Raises DataError for a scene without images."""
    if scene.images is None:
        raise DataError(f"{scene.source}: has no images to train on")


def load_pixels(scene: Scene, index: int) -> Tensor:
    """(H, W, 3 or 4) uint8 of one image.

    Raises:
        DataError: it has not the size that its camera says.
    """
    assert scene.images is not None
    image = scene.images.load(index)
    width, height = scene.cameras.size(index)
    if image.shape[:2] != (height, width):
        raise DataError(
            f"{scene.images.name(index)}: {image.shape[1]} x {image.shape[0]} pixels, "
            f"but its camera says {width} x {height}; fix the camera file"
        )
    return image


class PixelSampler:
    """Draws pixels uniformly over the images of a split.

    Args:
        scene: with images.
        indices: (C,) cameras to draw from.
        budget_bytes: memory for decoded pixels.
        random_background: blend a random color behind each ray instead of the scene's.
        distances: whether to give the distances of the scene's depth images.
        device: where pixels are kept and batches made.
        seed: of all random numbers; `state` and `set_state` save and restore the sequence.

    Raises:
        DataError: no images, or none that fits the budget.
    """

    def __init__(
        self,
        scene: Scene,
        indices: Tensor,
        *,
        budget_bytes: int,
        random_background: bool,
        device: torch.device,
        seed: int,
        distances: bool = False,
    ) -> None:
        check_images(scene)
        if distances and scene.depths is None:
            raise DataError(f"{scene.source}: has no depth images to train on")
        self._wants_distances = distances
        self._scene, self._indices, self._device = scene, indices.cpu(), device
        self._random_background = random_background
        self._generator = torch.Generator(device=device).manual_seed(seed)
        self._bounds = scene.bounds.to(device)
        self._window = self._window_length(budget_bytes)
        self._first = -1
        self.cameras: Cameras = scene.cameras[self._indices].to(device)
        self._show_window(0)

    @property
    def window(self) -> int:
        """Number of images that are resident at a time."""
        return self._window

    def _window_length(self, budget_bytes: int) -> int:
        sizes = self._scene.cameras.sizes[self._indices].prod(dim=1)
        channels = 5 if self._scene.masks is not None else 4
        channels += 4 * self._wants_distances
        used = torch.cumsum(sizes * channels, 0)
        fitting = int((used <= budget_bytes).sum())
        if fitting == 0:
            need = int(sizes[0]) * channels / 2**20
            raise DataError(
                f"{self._scene.source}: one image needs {need:.0f} MiB, more than the image "
                "budget; raise it with --set image_budget_gib=N or lower --image-scale"
            )
        return fitting

    def _show_window(self, step: int) -> None:
        count = len(self._indices)
        first = 0
        if self._window < count:
            first = (step // WINDOW_STEPS) * max(1, self._window // 2) % count
        if first == self._first:
            return
        self._first = first
        places = (first + torch.arange(self._window)) % count
        images = [self._load(int(self._indices[place])) for place in places]
        pixels = torch.tensor([image.shape[0] for image in images])
        # four bytes as one number: torch gathers single numbers several times as fast as rows
        self._pixels = torch.cat(images).view(torch.int32)[:, 0].to(self._device)
        self._starts = (torch.cumsum(pixels, 0) - pixels).to(self._device)
        self._places = places.to(self._device)
        self._sizes = self._scene.cameras.sizes[self._indices[places]].to(self._device)
        masks = self._scene.masks
        self._mask = None
        if masks is not None:
            flat = [masks.load(int(self._indices[place])).reshape(-1) for place in places]
            self._mask = torch.cat(flat).to(self._device)
        depths, self._depth = self._scene.depths, None
        if self._wants_distances and depths is not None:
            flat = [depths.load(int(self._indices[place])).reshape(-1) for place in places]
            self._depth = torch.cat(flat).to(self._device)

    def _load(self, index: int) -> Tensor:
        """(P, 4) uint8 of one image; opaque where it has no alpha."""
        flat = load_pixels(self._scene, index).flatten(0, 1)
        if flat.shape[1] == 3:
            flat = torch.cat([flat, flat.new_full((len(flat), 1), 255)], dim=1)
        return flat

    def sample(self, count: int, step: int) -> RayBatch:
        """`count` random rays. The same seed and steps give the same rays."""
        self._show_window(step)
        options: dict[str, Any] = {"generator": self._generator, "device": self._device}
        resident = torch.randint(self._window, (count,), **options)
        size = self._sizes[resident]
        # the product can round up to the size itself
        column, row = torch.minimum((torch.rand(2, count, **options) * size.T).long(), size.T - 1)
        index = self._starts[resident] + row * size[:, 0] + column
        rgba = self._pixels.index_select(0, index).view(torch.uint8).reshape(count, 4) / 255
        alpha = rgba[:, 3:]
        if self._random_background:
            background = torch.rand(count, 3, **options)
        else:
            shade = 0.0 if self._scene.background == "black" else 1.0
            background = torch.full((count, 3), shade, device=self._device)
        places = self._places[resident]
        pixels = torch.stack([column, row], dim=1) + 0.5
        rays = self.cameras.rays(places, pixels)
        return RayBatch(
            origins=to_grid_space(rays.origins, self._bounds),
            directions=rays.directions,
            jitter=torch.rand(count, **options),
            target=torch.lerp(background, rgba[:, :3], alpha),
            background=background,
            weight=None if self._mask is None else self._mask[index].float(),
            image_places=places,
            pixels=pixels,
            alpha=alpha[:, 0],
            distance=self._distances(index, places, rays.directions),
        )

    def _distances(self, index: Tensor, places: Tensor, directions: Tensor) -> Tensor | None:
        """(N,) of the depth images, along the rays and in grid units."""
        if self._depth is None:
            return None
        slant = (self.cameras.forwards[places] * directions).sum(1).clamp_min(1e-6)
        return self._depth[index] / slant / (self._bounds[1, 0] - self._bounds[0, 0])

    def state(self) -> Tensor:
        """State of the random numbers, for a checkpoint."""
        return self._generator.get_state()

    def set_state(self, state: Tensor) -> None:
        self._generator.set_state(state.cpu())
