"""Plain torch twin of tile lists and blending; differentiable, any dtype and device.

Source: 3D Gaussian Splatting (Kerbl et al. 2023, section 6). With sigma the exponent of a splat at
a pixel centre, alpha = min(0.999, opacity exp(-sigma)), left out below 1/255;

    picture = sum_i alpha_i T_i value_i + T_end background,   T_{i+1} = T_i (1 - alpha_i)

front to back; a pixel stops before the splat that would take T to 1e-4 or below. Letters: G splats,
I pairs of a tile and a splat, P pixels of a tile, n splats of its list.
"""

from __future__ import annotations

import torch
from torch import Tensor

TILE = 16
SMALLEST_ALPHA = 1 / 255
LARGEST_ALPHA = 0.999
SMALLEST_TRANSMITTANCE = 1e-4

Six = tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]


def reach(opacities: Tensor) -> Tensor:
    """The exponent at which alpha falls to 1/255, with room for rounding."""
    return (255 * opacities).log() * 1.0001 + 1e-3


def _smallest_sigma(row: Tensor, corner: Tensor) -> Tensor:
    """Over the pixel centres of tiles whose first one is `corner` (I, 2); `row` is (I, 12)."""
    a, b, c = row[:, 2], row[:, 3], row[:, 4]
    low = corner - row[:, :2]
    high = low + (TILE - 1)
    x = torch.minimum(torch.maximum(low[:, 0], torch.zeros_like(a)), high[:, 0])
    y = torch.minimum(torch.maximum(low[:, 1], torch.zeros_like(a)), high[:, 1])
    fy = torch.minimum(torch.maximum(low[:, 1], -b * x / c), high[:, 1])
    fx = torch.minimum(torch.maximum(low[:, 0], -b * y / a), high[:, 0])
    first = 0.5 * (a * x * x + c * fy * fy) + b * x * fy
    second = 0.5 * (a * fx * fx + c * y * y) + b * fx * y
    return torch.minimum(first, second)


def tiles(splats: Tensor, depths: Tensor, width: int, height: int) -> tuple[Tensor, Tensor]:
    """Lists of splats a tile: ids (I,) int32 and starts (tiles + 1,) int32."""
    columns, rows = -(-width // TILE), -(-height // TILE)
    visible = (splats[:, 5] > 0).nonzero()[:, 0]
    order = visible[torch.sort(depths[visible], stable=True)[1]]
    row = splats[order]
    slack = 0.5 + 1e-3 * row[:, 10:11]
    upright = row[:, 11] < 0
    sides = torch.stack(
        [
            torch.where(upright, -row[:, 11], row[:, 10]),
            torch.where(upright, row[:, 10], row[:, 11]),
        ],
        dim=1,
    )
    most = splats.new_tensor([columns, rows])
    zero = torch.zeros_like(most)
    first = ((row[:, :2] - sides - slack) / TILE).floor()
    last = ((row[:, :2] + sides + slack) / TILE).floor() + 1
    first = torch.minimum(torch.maximum(first, zero), most).long()
    last = torch.minimum(torch.maximum(last, zero), most).long()
    extent = (last - first).clamp_min(0)
    counts = extent[:, 0] * extent[:, 1]
    place = torch.arange(len(order), device=splats.device).repeat_interleave(counts)
    within = torch.arange(len(place), device=splats.device)
    within = within - (counts.cumsum(0) - counts)[place]
    x = first[place, 0] + within % extent[place, 0].clamp_min(1)
    y = first[place, 1] + within // extent[place, 0].clamp_min(1)
    corner = torch.stack([x, y], dim=1) * TILE + 0.5
    pairs = row[place]
    hit = _smallest_sigma(pairs, corner.to(splats.dtype)) <= reach(pairs[:, 5])
    tile, place = (y * columns + x)[hit], place[hit]
    tile, permutation = torch.sort(tile, stable=True)
    edges = torch.arange(columns * rows + 1, device=splats.device)
    starts = torch.searchsorted(tile, edges)
    return order[place[permutation]].int(), starts.int()


def _pixels(tile: int, width: int, height: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Centres (P, 2) of a tile's pixels inside the image, and their places in it (P,)."""
    columns = -(-width // TILE)
    left, top = tile % columns * TILE, tile // columns * TILE
    x = torch.arange(left, min(left + TILE, width), device=like.device)
    y = torch.arange(top, min(top + TILE, height), device=like.device)
    grid_y, grid_x = torch.meshgrid(y, x, indexing="ij")
    centers = torch.stack([grid_x, grid_y], dim=-1).reshape(-1, 2) + 0.5
    return centers.to(like.dtype), (grid_y * width + grid_x).flatten()


def _exponents(row: Tensor, centers: Tensor) -> tuple[Tensor, Tensor]:
    """sigma (n, P) and offsets (n, P, 2) from pixels to splats."""
    offsets = row[:, None, :2] - centers[None]
    dx, dy = offsets.unbind(-1)
    a, b, c = (row[:, j, None] for j in (2, 3, 4))
    return 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy, offsets


def _weights(opacity: Tensor, sigma: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Weights (n, P), transmittance in front of each splat (n, P) and behind all (P,)."""
    alpha = (opacity[:, None] * torch.exp(-sigma)).clamp(max=LARGEST_ALPHA)
    alpha = torch.where((sigma >= 0) & (alpha >= SMALLEST_ALPHA), alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=0)
    alpha = torch.where(after > SMALLEST_TRANSMITTANCE, alpha, torch.zeros_like(alpha))
    after = torch.cumprod(1 - alpha, dim=0)
    before = torch.cat([torch.ones_like(after[:1]), after[:-1]])
    return alpha * before, before, after[-1]


def rasterize(
    splats: Tensor, extras: Tensor | None, background: Tensor | None, ids: Tensor, starts: Tensor,
    width: int, height: int, depth: bool,
) -> Six:  # fmt: skip
    """Color (H, W, 3), transmittance (H, W), the last place of the lists that a pixel used (H, W)
    int32, blended and median depth (H, W) or empty, blended extras (H, W, E)."""
    further = splats.new_empty(len(splats), 0) if extras is None else extras
    values = torch.cat([splats[:, 6:10], further], dim=1)
    bounds = starts.tolist()
    parts = []
    for tile, (first, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        if first < end:
            parts.append(_blend_tile(splats, values, ids[first:end].long(), tile, (width, height)))
            parts[-1][2].add_(first).masked_fill_(parts[-1][2] < first, -1)
    pixels, dtype = width * height, splats.dtype
    nothing = values[:0].sum()  # ties an empty picture to its splats, too
    seen = torch.zeros(pixels, values.shape[1], dtype=dtype, device=splats.device) + nothing
    left = torch.ones(pixels, dtype=dtype, device=splats.device) + nothing
    last = torch.full((pixels,), -1, dtype=torch.int32, device=splats.device)
    median = torch.zeros(pixels, dtype=dtype, device=splats.device)
    if parts:
        blended, after, rank, middle, place = (torch.cat(part) for part in zip(*parts, strict=True))
        seen = seen.index_copy(0, place, blended)
        left = left.index_copy(0, place, after)
        last[place] = rank
        median[place] = middle
    color = seen[:, :3] if background is None else seen[:, :3] + left[:, None] * background
    shape = (height, width)
    no_depth = splats.new_empty(0)
    return (
        color.reshape(*shape, 3),
        left.reshape(shape),
        last.reshape(shape),
        seen[:, 3].reshape(shape) if depth else no_depth,
        median.reshape(shape) if depth else no_depth.clone(),
        seen[:, 4:].reshape(*shape, further.shape[1]),
    )


def _blend_tile(
    splats: Tensor, values: Tensor, ids: Tensor, tile: int, size: tuple[int, int]
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """For the pixels of a tile: blended values, transmittance, last place in `ids` (-1: none),
    median depth, and the pixels' places in the image."""
    centers, place = _pixels(tile, *size, splats)
    row = splats[ids]
    sigma, _ = _exponents(row, centers)
    weights, before, left = _weights(row[:, 5], sigma)
    with torch.no_grad():
        rank = torch.arange(len(ids), dtype=torch.int32, device=ids.device)[:, None]
        last = torch.where(weights > 0, rank, -1).amax(0)
        crosses = (before > 0.5) & (before - weights <= 0.5)
        median = (crosses * row[:, 9, None]).sum(0)
    return weights.T @ values[ids], left, last, median, place


def rasterize_backward(
    gradients: list[Tensor | None], splats: Tensor, extras: Tensor | None,
    background: Tensor | None, ids: Tensor, starts: Tensor, width: int, height: int, depth: bool,
    absolute: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients by splats and extras (empty without), and sums over pixels of the absolute gradient
    by the splats' positions (G, 2) (empty unless asked), from those by color, transmittance, depth
    and blended extras, each of which may be None."""
    rows = splats.detach().requires_grad_()
    more = None if extras is None else extras.detach().requires_grad_()
    shapes = (rows, more, background, ids, starts, width, height, depth)
    with torch.enable_grad():
        color, left, _, far, _, blended = rasterize(*shapes)
        pairs = zip((color, left, far, blended), gradients, strict=True)
        terms = [(image * g).sum() for image, g in pairs if g is not None and image.numel()]
        total = torch.stack(terms).sum() if terms else rows.sum() * 0
        leaves = [rows] if more is None else [rows, more]
        found = torch.autograd.grad(total, leaves, materialize_grads=True)
    by_position = splats.new_empty(0, 2)
    if absolute:
        by_position = _absolute(gradients, shapes)
    return found[0], splats.new_empty(0) if more is None else found[1], by_position


def _absolute(
    gradients: list[Tensor | None],
    shapes: tuple[Tensor, Tensor | None, Tensor | None, Tensor, Tensor, int, int, bool],
) -> Tensor:
    splats, extras, background, ids, starts, width, height, _ = shapes
    splats = splats.detach()
    further = splats.new_empty(len(splats), 0) if extras is None else extras.detach()
    shade = splats.new_zeros(3) if background is None else background.detach()
    values = torch.cat([splats[:, 6:10], further], dim=1)
    # what each pixel's transmittance and blended values are multiplied by in the loss
    by_left, by_values = splats.new_zeros(height * width, 1), torch.zeros_like(values[:1])
    by_values = by_values.repeat(height * width, 1)
    columns = (slice(0, 3), None, slice(3, 4), slice(4, None))
    for place, g in zip(columns, gradients, strict=True):
        if g is None or not g.numel():
            continue
        flat = g.reshape(height * width, -1)
        if place is None:
            by_left = by_left + flat
        else:
            by_values[:, place] += flat
    by_left = (by_left + by_values[:, :3] @ shade[:, None])[:, 0]
    total = splats.new_zeros(len(splats), 2)
    bounds = starts.tolist()
    for tile, (first, end) in enumerate(zip(bounds[:-1], bounds[1:], strict=True)):
        if first < end:
            chosen = ids[first:end].long()
            centers, pixels = _pixels(tile, width, height, splats)
            gradient = (by_values[pixels], by_left[pixels])
            sums = _absolute_tile(splats[chosen], values[chosen], centers, gradient)
            total.index_add_(0, chosen, sums)
    return total


def _absolute_tile(
    row: Tensor, values: Tensor, centers: Tensor, gradient: tuple[Tensor, Tensor]
) -> Tensor:
    """(n, 2) for one tile, from the gradients by blended values (P, D) and transmittance (P,)."""
    sigma, offsets = _exponents(row, centers)
    sigma = sigma.detach().requires_grad_()
    with torch.enable_grad():
        weights, _, left = _weights(row[:, 5], sigma)
        loss = ((weights.T @ values) * gradient[0]).sum() + (left * gradient[1]).sum()
        (by_sigma,) = torch.autograd.grad(loss, sigma)
    a, b, c = (row[:, j, None] for j in (2, 3, 4))
    dx, dy = offsets.unbind(-1)
    by_x, by_y = by_sigma * (a * dx + b * dy), by_sigma * (b * dx + c * dy)
    return torch.stack([by_x.abs().sum(1), by_y.abs().sum(1)], dim=1)
