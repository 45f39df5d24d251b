"""What `lumigraph bench splat` measures, on one set of Gaussians and a few cameras in turn.

`SplatWorkload` renders activated Gaussians with gradients to all their numbers, as a whole and
stage by stage; `SplatTraining` takes whole steps on raw ones. Letters: G Gaussians, H W image.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumigraph.cuda.ops import adam_rows_, image_loss
from lumigraph.cuda.splatting import (
    SplatCamera,
    SplatImages,
    SplatOptions,
    project_gaussians,
    rasterize_splats,
    render_gaussians,
    splat_tiles,
)

from .inputs import generator_of
from .inputs_splat import GaussianInputs, gaussian_blob, gaussian_scene, orbit_cameras
from .timing import Call

Tensors = tuple[Tensor, ...]

CAMERAS = 4  # in turn
TILE = 16  # pixels
LEARNING_RATE = 1e-6  # so small that the scene stays what it is however long is measured
SSIM_WEIGHT = 0.2
NOISE = 0.1  # of the pictures that steps compare with
BOX_SIGMAS = 3.33  # of the square box whose tiles are counted beside the exact test


@dataclass(frozen=True)
class SplatInputs:
    """Gaussians and cameras of one size, on a device."""

    name: str
    gaussians: GaussianInputs
    poses: Tensor
    """(C, 4, 4) world to camera."""
    focal: float
    """Pixels; the principal point is the middle."""
    width: int
    height: int

    @property
    def device(self) -> torch.device:
        return self.poses.device

    def cameras(self) -> list[SplatCamera]:
        """One for each pose."""
        place = (self.focal, self.focal, self.width / 2, self.height / 2)
        return [
            SplatCamera(pose[:3].contiguous(), place, self.width, self.height)
            for pose in self.poses
        ]

    def pixel_gradient(self) -> Tensor:
        """(H, W, 3) by the colors: normal numbers over the number of pixels."""
        shape = (self.height, self.width, 3)
        drawn = torch.randn(*shape, generator=generator_of(3)) / (self.width * self.height)
        return drawn.to(self.device)


def capture_inputs(count: int, width: int, height: int, device: torch.device) -> SplatInputs:
    """The protocol's scene: `gaussian_scene(count, seed=1)` from `CAMERAS` cameras."""
    poses, focal = orbit_cameras(CAMERAS, width=width)
    gaussians = gaussian_scene(count, seed=1).to(device)
    return SplatInputs("capture", gaussians, poses.to(device), focal, width, height)


def blob_inputs(count: int, side: int, device: torch.device) -> SplatInputs:
    """`gaussian_blob(count)` from 3 units away."""
    pose = torch.eye(4)
    pose[2, 3] = 3.0
    gaussians = gaussian_blob(count).to(device)
    return SplatInputs("blob", gaussians, pose[None].to(device), 1.2 * side, side, side)


class SplatWorkload:
    """Pictures and their gradients through the public operations."""

    options = SplatOptions(raw=False)

    def __init__(self, inputs: SplatInputs) -> None:
        self.inputs = inputs
        self.cameras = inputs.cameras()
        self.leaves = [tensor.clone().requires_grad_() for tensor in inputs.gaussians]
        self.gradient = inputs.pixel_gradient()

    def camera(self, turn: int) -> SplatCamera:
        return self.cameras[turn % len(self.cameras)]

    def images(self, turn: int) -> SplatImages:
        means, rotations, scales, opacities, harmonics = self.leaves
        camera = self.camera(turn)
        return render_gaussians(
            means, rotations, scales, opacities, harmonics, camera, self.options
        )

    def forward(self, turn: int) -> Tensors:
        with torch.no_grad():
            return (self.images(turn).color,)

    def backward(self, turn: int) -> Tensors:
        """By means, rotations, scales, opacities and harmonics."""
        return torch.autograd.grad(self.images(turn).color, self.leaves, self.gradient)

    def raster(self) -> Call:
        """Blending and its gradients alone, on the splats of the first camera."""
        camera = self.camera(0)
        splats, lists = self._projected(0)

        def call(turn: int) -> Tensors:
            images = rasterize_splats(splats, lists, camera.width, camera.height)
            return torch.autograd.grad(images.color, splats, self.gradient)

        return call

    def stages(self) -> dict[str, Call]:
        """Each stage by itself, of the first camera, its inputs being there."""
        camera = self.camera(0)
        size = (camera.width, camera.height)
        splats, lists = self._projected(0)
        depths = self._depths(0)
        flat = splats.detach()
        color = rasterize_splats(splats, lists, *size).color
        projected = self._project(0)[0]
        (by_splats,) = torch.autograd.grad(color, splats, self.gradient, retain_graph=True)

        def without_graph(call: Callable[[], Any]) -> Call:
            def run(turn: int) -> Any:
                with torch.no_grad():
                    return call()

            return run

        return {
            "projection": without_graph(lambda: self._project(0)),
            "tile lists": without_graph(lambda: splat_tiles(flat, depths, *size)),
            "blending": without_graph(lambda: rasterize_splats(flat, lists, *size)),
            "blending, backward": lambda turn: torch.autograd.grad(
                color, splats, self.gradient, retain_graph=True
            ),
            "projection, backward": lambda turn: torch.autograd.grad(
                projected, self.leaves, by_splats, retain_graph=True
            ),
        }

    def _project(self, turn: int) -> tuple[Tensor, Tensor]:
        means, rotations, scales, opacities, harmonics = self.leaves
        camera = self.camera(turn)
        return project_gaussians(means, rotations, scales, opacities, harmonics, camera, raw=False)

    @torch.no_grad()
    def _depths(self, turn: int) -> Tensor:
        return self._project(turn)[1]

    def _projected(self, turn: int) -> tuple[Tensor, Any]:
        with torch.no_grad():
            splats, depths = self._project(turn)
            camera = self.camera(turn)
            lists = splat_tiles(splats, depths, camera.width, camera.height)
        return splats.requires_grad_(), lists

    def counts(self) -> dict[str, Any]:
        """How much there is to do: means over the cameras."""
        visible, exact, boxes = [], [], []
        for turn in range(len(self.cameras)):
            splats, lists = self._projected(turn)
            visible.append(int((splats[:, 5] > 0).sum()))
            exact.append(len(lists.ids))
            boxes.append(box_hits(splats.detach(), self.inputs.width, self.inputs.height))
        count = len(self.cameras)
        return {
            "scene": self.inputs.name,
            "gaussians": len(self.leaves[0]),
            "image": f"{self.inputs.width}x{self.inputs.height}",
            "cameras": count,
            "visible": sum(visible) // count,
            "tile_hits": sum(exact) // count,
            "tile_hits_by_box": sum(boxes) // count,
        }


def box_hits(splats: Tensor, width: int, height: int) -> int:
    """Pairs of tile and splat by the usual square box of 3.33 standard deviations of the longer
    axis, for comparison with the exact test."""
    a, b, c = splats[splats[:, 5] > 0, 2:5].double().unbind(1)
    determinant = a * c - b * b
    xx, yy = c / determinant, a / determinant  # of the covariance
    middle = (xx + yy) / 2
    longest = middle + (middle.square() - 1 / determinant).clamp_min(0).sqrt()
    radius = (BOX_SIGMAS * longest.sqrt()).ceil()
    hits = torch.ones_like(radius)
    centers = splats[splats[:, 5] > 0, :2].double()
    for center, side in zip(centers.unbind(1), (width, height), strict=True):
        tiles = -(-side // TILE)
        first = ((center - radius) / TILE).floor().clamp(0, tiles)
        last = (((center + radius) / TILE).floor() + 1).clamp(0, tiles)
        hits *= last - first
    return int(hits.sum())


class SplatTraining:
    """Whole steps: picture, loss, gradients, dense Adam on all numbers of all Gaussians."""

    def __init__(self, inputs: SplatInputs, *, ssim: bool = False) -> None:
        self.cameras = inputs.cameras()
        self.ssim = ssim
        self.parameters = [tensor.clone().requires_grad_() for tensor in inputs.gaussians.raw()]
        self.moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in self.parameters]
        self.targets = target_images(inputs)
        self.bad_count = torch.zeros(1, dtype=torch.int32, device=inputs.device)
        self.steps = 0

    def step(self, turn: int) -> Tensors:
        place = turn % len(self.cameras)
        means, rotations, scales, opacities, harmonics = self.parameters
        images = render_gaussians(
            means, rotations, scales, opacities, harmonics, self.cameras[place]
        )
        self._loss(images.color, self.targets[place]).backward()
        self.steps += 1
        for parameter, (first, second) in zip(self.parameters, self.moments, strict=True):
            assert parameter.grad is not None
            adam_rows_(
                parameter.data, parameter.grad, first, second,
                step=self.steps, learning_rate=LEARNING_RATE, bad_count=self.bad_count,
            )  # fmt: skip
            parameter.grad = None
        return (images.color.detach(),)

    def _loss(self, color: Tensor, target: Tensor) -> Tensor:
        if not self.ssim:
            return (color - target).abs().mean()
        return image_loss(color, target, ssim_weight=SSIM_WEIGHT).loss


def target_images(inputs: SplatInputs) -> list[Tensor]:
    """(H, W, 3) each in [0, 1]: what the cameras see, with noise, so that no gradient is zero."""
    workload = SplatWorkload(inputs)
    noise = torch.randn(inputs.height, inputs.width, 3, generator=generator_of(4)) * NOISE
    noise = noise.to(inputs.device)
    return [(workload.forward(turn)[0] + noise).clamp(0, 1) for turn in range(len(inputs.poses))]


def loss_call(width: int, height: int, device: torch.device) -> Call:
    """SSIM with L1, forward and backward to the picture."""
    shape = (CAMERAS, height, width, 3)
    pictures = torch.rand(*shape, generator=generator_of(5)).to(device)
    noise = torch.randn(*shape[1:], generator=generator_of(6)).to(device) * NOISE
    targets = [(picture + noise).clamp(0, 1) for picture in pictures]
    predictions = [picture.clone().requires_grad_() for picture in pictures]

    def call(turn: int) -> Tensors:
        prediction, target = predictions[turn % CAMERAS], targets[turn % CAMERAS]
        loss = image_loss(prediction, target, ssim_weight=SSIM_WEIGHT).loss
        return torch.autograd.grad(loss, prediction)

    return call


def adam_call(gaussians: GaussianInputs, *, visible_share: float = 1.0) -> Call:
    """Adam over the 59 numbers of every Gaussian; below 1 of the visible ones alone."""
    parameters = [tensor.clone() for tensor in gaussians.raw()]
    gradients = [1e-3 * tensor for tensor in parameters]
    moments = [(torch.zeros_like(p), torch.zeros_like(p)) for p in parameters]
    bad_count = torch.zeros(1, dtype=torch.int32, device=parameters[0].device)
    visible = None
    if visible_share < 1:
        drawn = torch.rand(len(parameters[0]), generator=generator_of(7))
        visible = (drawn < visible_share).to(parameters[0].device)

    def call(turn: int) -> Tensors:
        for parameter, gradient, (first, second) in zip(
            parameters, gradients, moments, strict=True
        ):
            adam_rows_(
                parameter, gradient, first, second,
                step=10, learning_rate=LEARNING_RATE, visible=visible, bad_count=bad_count,
            )  # fmt: skip
        return (parameters[0],)

    return call
