"""gsplat beside our splatting: its calls on the same tensors and cameras, and how far the results
lie apart.

gsplat (https://github.com/nerfstudio-project/gsplat, Apache-2.0) runs on an NVIDIA GPU only, builds
itself with nvcc on first use, and is never needed. Its settings are made equal to ours: near plane
0.01, low-pass 0.3 pixels^2, tiles of 16 pixels, `packed=False`, rasterize_mode "classic".
Letters: G Gaussians, H W image, I pairs of tile and splat.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import Tensor

from lumigraph.cuda.splatting import project_gaussians, splat_tiles

from .inputs_splat import GaussianInputs
from .peers import recorded_peers
from .splat_cases import LEARNING_RATE, TILE, SplatInputs, SplatWorkload, Tensors, target_images
from .timing import rounded

GSPLAT = "gsplat"
COLOR_BOUND, GRADIENT_BOUND = 2e-3, 1e-3  # largest difference; relative L2
NEAR_ALPHA, NEAR_TRANSMITTANCE = 1e-3, 1e-3  # relative: within these of a threshold both are right
NEAR_DEPTH = 1e-6  # relative: which of two splats comes first is a matter of rounding
LAGS = 3  # places apart in a list at which splats of almost one depth are looked for
SMALLEST_ALPHA, LARGEST_ALPHA, SMALLEST_TRANSMITTANCE = 1 / 255, 0.999, 1e-4


def recorded(name: str, passes: str, size: int) -> dict[str, Any] | None:
    """The fastest recorded peer of a row, or None; `others` holds the rest."""
    rows = [
        {key: row[key] for key in ("peer", "ms", "peak_mib") if key in row}
        for row in recorded_peers()["splatting"]
        if (row["case"], row["passes"], row["size"]) == (name, passes, size)
    ]
    if not rows:
        return None
    rows.sort(key=lambda row: row["ms"])
    return {**rows[0], "others": rows[1:]}


def installed() -> bool:
    return importlib.util.find_spec(GSPLAT) is not None


class GsplatWorkload:
    """The calls of `SplatWorkload` and `SplatTraining` by gsplat."""

    def __init__(self, inputs: SplatInputs) -> None:
        from gsplat import rasterization

        self.rasterization = rasterization
        self.inputs = inputs
        self.leaves = [tensor.clone().requires_grad_() for tensor in inputs.gaussians]
        self.gradient = inputs.pixel_gradient()
        focal, width, height = inputs.focal, inputs.width, inputs.height
        matrix = [[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]]
        self.intrinsics = torch.tensor([matrix], device=inputs.device)
        self.degree = {1: 0, 4: 1, 9: 2, 16: 3}[inputs.gaussians.harmonics.shape[1]]
        self.poses = [pose[None].contiguous() for pose in inputs.poses]

    def color(self, turn: int, gaussians: GaussianInputs) -> Tensor:
        """(H, W, 3)."""
        images, _, _ = self.rasterization(
            means=gaussians.means,
            quats=gaussians.rotations,
            scales=gaussians.scales,
            opacities=gaussians.opacities,
            colors=gaussians.harmonics,
            viewmats=self.poses[turn % len(self.poses)],
            Ks=self.intrinsics,
            width=self.inputs.width,
            height=self.inputs.height,
            near_plane=0.01,
            eps2d=0.3,
            sh_degree=self.degree,
            packed=False,
            tile_size=TILE,
            rasterize_mode="classic",
        )
        return images[0]

    def forward(self, turn: int) -> Tensors:
        with torch.no_grad():
            return (self.color(turn, GaussianInputs(*self.leaves)),)

    def backward(self, turn: int) -> Tensors:
        color = self.color(turn, GaussianInputs(*self.leaves))
        return torch.autograd.grad(color, self.leaves, self.gradient)


class GsplatTraining:
    """Whole steps with torch's activations, an L1 loss and torch's fused Adam."""

    def __init__(self, inputs: SplatInputs) -> None:
        self.workload = GsplatWorkload(inputs)
        self.parameters = [tensor.clone().requires_grad_() for tensor in inputs.gaussians.raw()]
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=LEARNING_RATE, eps=1e-15, fused=inputs.device.type == "cuda"
        )
        self.targets = target_images(inputs)

    def step(self, turn: int) -> Tensors:
        means, rotations, scales, opacities, harmonics = self.parameters
        active = GaussianInputs(means, rotations, scales.exp(), opacities.sigmoid(), harmonics)
        color = self.workload.color(turn, active)
        (color - self.targets[turn % len(self.targets)]).abs().mean().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return (color.detach(),)


def equality(ours: SplatWorkload, theirs: GsplatWorkload, turn: int = 0) -> dict[str, Any]:
    """How far colors and gradients lie apart, where no threshold decides.

    Pixels where a rounding decides (see `undecided_pixels`) are counted and left out; gradients
    are those of one loss over the other pixels, by the same tensors: both sides take quaternions
    of any length.
    """
    mine, other = ours.forward(turn)[0], theirs.forward(turn)[0]
    apart = (mine - other).abs().amax(-1)
    undecided = undecided_pixels(ours, turn)
    decided = apart[~undecided]
    kept = [workload.gradient for workload in (ours, theirs)]
    found: dict[str, Any] = {
        "pixels": apart.numel(),
        "pixels_at_a_threshold": int(undecided.sum()),
        "pixels_beyond_bound": int((apart > COLOR_BOUND).sum()),
        "pixels_beyond_bound_elsewhere": int((decided > COLOR_BOUND).sum()),
        "color_largest": rounded(float(apart.amax())),
        "color_largest_elsewhere": rounded(float(decided.amax())) if decided.numel() else 0.0,
        "color_mean": rounded(float((mine - other).abs().mean())),
        "gradients_all_pixels": _gradients_apart(ours, theirs, turn),
    }
    try:
        for workload in (ours, theirs):
            workload.gradient = workload.gradient * ~undecided[..., None]
        found["gradients"] = _gradients_apart(ours, theirs, turn)
    finally:
        ours.gradient, theirs.gradient = kept
    close = max(found["gradients"].values()) < GRADIENT_BOUND
    found["meets"] = close and found["color_largest_elsewhere"] <= COLOR_BOUND
    return found


def _gradients_apart(ours: SplatWorkload, theirs: GsplatWorkload, turn: int) -> dict[str, float]:
    pairs = zip(ours.backward(turn), theirs.backward(turn), strict=True)
    return {
        name: rounded(float((a - b).norm() / b.norm().clamp_min(1e-30)))
        for name, (a, b) in zip(GaussianInputs._fields, pairs, strict=True)
    }


@torch.no_grad()
def undecided_pixels(workload: SplatWorkload, turn: int = 0) -> Tensor:
    """(H, W) bool: pixels whose value hangs on a rounding: an alpha next to 1/255, a transmittance
    next to 1e-4, or two visible splats of almost one depth."""
    camera = workload.camera(turn)
    means, rotations, scales, opacities, harmonics = workload.leaves
    splats, depths = project_gaussians(
        means, rotations, scales, opacities, harmonics, camera, raw=False
    )
    lists = splat_tiles(splats, depths, camera.width, camera.height)
    rows, columns = -(-camera.height // TILE), -(-camera.width // TILE)
    found = torch.zeros(rows * TILE, columns * TILE, dtype=torch.bool, device=splats.device)
    y, x = torch.meshgrid(torch.arange(TILE), torch.arange(TILE), indexing="ij")
    pixels = (torch.stack([x, y], -1).reshape(-1, 2) + 0.5).to(splats)
    starts = lists.starts.tolist()
    for tile in range(rows * columns):
        if starts[tile + 1] > starts[tile]:
            row, column = divmod(tile, columns)
            corner = pixels.new_tensor([column * TILE, row * TILE])
            listed = splats[lists.ids[starts[tile] : starts[tile + 1]].long()]
            marks = _undecided(listed, pixels + corner).reshape(TILE, TILE)
            found[row * TILE : (row + 1) * TILE, column * TILE : (column + 1) * TILE] = marks
    return found[: camera.height, : camera.width]


def _undecided(splats: Tensor, pixels: Tensor) -> Tensor:
    """(P,) bool for pixels (P, 2) that blend splats (I, 12) in that order."""
    dx = splats[:, None, 0] - pixels[None, :, 0]
    dy = splats[:, None, 1] - pixels[None, :, 1]
    a, b, c, opacity = (splats[:, i, None] for i in (2, 3, 4, 5))
    exponent = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
    alpha = (opacity * (-exponent).exp()).clamp_max(LARGEST_ALPHA)
    hit = alpha >= SMALLEST_ALPHA
    after = torch.cumprod(1 - alpha * hit, 0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    alive = before > SMALLEST_TRANSMITTANCE * (1 - NEAR_TRANSMITTANCE)
    close = (after / SMALLEST_TRANSMITTANCE - 1).abs() < NEAR_TRANSMITTANCE
    close |= (alpha / SMALLEST_ALPHA - 1).abs() < NEAR_ALPHA
    found = (close & alive).any(0)
    seen = hit & alive
    for lag in range(1, min(LAGS, len(splats) - 1) + 1):
        depth = splats[:, 9]
        alike = (depth[lag:] - depth[:-lag]).abs() <= NEAR_DEPTH * depth[lag:]
        found |= (seen[lag:] & seen[:-lag] & alike[:, None]).any(0)
    return found
