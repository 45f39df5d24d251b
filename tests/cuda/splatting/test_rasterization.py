"""Blending of splats: kernels and twin against dense blending without tiles, the twin against
finite differences, and laws."""

import math

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.ops import project_gaussians, rasterize_splats, splat_tiles

KERNELS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
ALL = ["torch", *KERNELS]
NAMES = ("means", "rotations", "scales", "opacities", "harmonics")
SIZE = (37, 29)
# extras (None: none given), depth, background, probe
CASES = [
    (None, False, False, False),
    (None, True, True, True),
    (0, False, True, False),
    (1, False, True, True),
    (5, True, True, True),
    (16, True, False, False),
    (18, True, True, False),
]
BOUNDS = {"torch": 1e-6, "cpu": 3e-6, "emu": 3e-6, "cuda": 1e-5}


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


@pytest.fixture
def make_splats(scenes):
    """Splats (G, 12) and depths (G,) that float32 can hold, as float64."""

    def make(count: int, *, opaque: bool = False, seed: int = 0) -> tuple[Tensor, Tensor]:
        scene = scenes.random(count, size=SIZE, seed=seed)
        if opaque:
            scene.tensors["opacities"].add_(5)
        leaves, camera = scene.on("exact")
        with torch.no_grad():
            splats, depths = project_gaussians(*(leaves[n] for n in NAMES), camera)
        return splats.float().double(), depths.float().double()

    return make


def along(shape: tuple[int, ...], seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def expected(oracle, inputs: dict[str, Tensor], depths: Tensor, depth: bool):
    """Pixels of the dense oracle, their cotangents, and gradients of the product: by the rows of
    each pixel, values, background."""
    splats, pixels = inputs["splats"], SIZE[0] * SIZE[1]
    rows = splats[:, None, :6].expand(-1, pixels, -1).clone().requires_grad_()
    more = inputs.get("extras", splats.new_zeros(len(splats), 0))
    values = torch.cat([splats[:, 6:10], more], dim=1).requires_grad_()
    background = inputs.get("background", torch.zeros(3).double()).clone().requires_grad_()
    found = oracle.blend(rows, depths, values, SIZE)
    color = found.values[:, :3] + found.transmittance[:, None] * background
    parts = {"color": color, "transmittance": found.transmittance}
    if depth:
        parts["depth"] = found.values[:, 3]
    parts["extras"] = found.values[:, 4:]
    weights = {
        name: along(tuple(part.shape), 7 + n) * found.sure.reshape(-1, *[1] * (part.dim() - 1))
        for n, (name, part) in enumerate(parts.items())
    }
    loss = sum((part * weights[name]).sum() for name, part in parts.items())
    gradients = torch.autograd.grad(loss, (rows, values, background))
    return found, parts, weights, gradients


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("opaque", [False, True])
def test_matches_dense_blending(make_splats, oracle, near, case, opaque, backend: str) -> None:
    count, depth, with_background, probed = case
    splats, depths = make_splats(260, opaque=opaque)
    inputs = {"splats": splats}
    if count is not None:
        inputs["extras"] = along((260, count), 1).float().double()
    if with_background:
        inputs["background"] = torch.tensor([0.2, 0.5, 0.9]).double()
    found, parts, weights, gradients = expected(oracle, inputs, depths, depth)
    assert float(found.sure.double().mean()) > 0.98
    if opaque:
        assert float((found.transmittance < 2e-4).double().mean()) > 0.05
    device, bound = device_of(backend), BOUNDS[backend]
    ours = {name: t.to(device, torch.float32).requires_grad_() for name, t in inputs.items()}
    probe = torch.zeros(260, 2, device=device).requires_grad_() if probed else None
    lists = splat_tiles(ours["splats"], depths.to(device, torch.float32), *SIZE)
    images = rasterize_splats(
        ours["splats"], lists, *SIZE, extras=ours.get("extras"), depth=depth,
        background=ours.get("background"), screen_probe=probe,
    )  # fmt: skip
    loss = torch.zeros((), device=device)
    for name, part in parts.items():
        image = getattr(images, name)
        if image is None:
            assert name == "extras" and count is None
            continue
        assert image.shape[:2] == (SIZE[1], SIZE[0])
        flat = image.reshape(part.shape).cpu()
        near(flat[found.sure], part[found.sure], bound, name)
        loss = loss + (image.reshape(part.shape) * weights[name].to(image)).sum()
    if depth:
        median = images.median_depth.flatten().cpu()[found.sure]
        near(median, found.median[found.sure], 1e-6, "median")
    else:
        assert images.depth is None and images.median_depth is None
    loss.backward()
    by_rows, by_values, by_background = gradients
    got = ours["splats"].grad
    for j, name in enumerate(("x", "y", "a", "b", "c", "opacity")):
        near(got[:, j], by_rows[:, :, j].sum(1), 20 * bound, f"gradient by {name}")
    near(got[:, 6 : 9 + depth], by_values[:, : 3 + depth], 10 * bound, "gradient by colors")
    assert not got[:, 9 + depth :].any()
    if count:
        near(ours["extras"].grad, by_values[:, 4:], 10 * bound, "gradient by extras")
    if with_background:
        near(ours["background"].grad, by_background, 10 * bound, "gradient by background")
    if probed:
        near(probe.grad, by_rows[:, :, :2].abs().sum(1), 20 * bound, "absolute sums")


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("output", ["color", "transmittance", "depth", "extras"])
def test_each_output_alone_has_its_gradient(make_splats, near, output, backend: str) -> None:
    """A loss on one image leaves the gradients of the others unset, not zero."""
    splats, depths = make_splats(80)
    results = []
    for dtype, device in ((torch.float64, "cpu"), (torch.float32, device_of(backend))):
        leaf = splats.to(device, dtype).requires_grad_()
        extras = along((80, 2), 1).to(leaf)
        shade = torch.tensor([0.3, 0.2, 0.1]).to(leaf)
        lists = splat_tiles(leaf, depths.to(leaf), *SIZE)
        images = rasterize_splats(leaf, lists, *SIZE, extras=extras, background=shade, depth=True)
        image = getattr(images, output)
        (gradient,) = torch.autograd.grad(
            (image * along(tuple(image.shape), 3).to(leaf)).sum(), leaf
        )
        results.append(gradient)
    near(results[1], results[0], 1e-4, output)


@pytest.mark.parametrize("depth", [False, True])
def test_twin_against_finite_differences(make_splats, depth: bool) -> None:
    splats, depths = make_splats(80)
    chosen = torch.sort(torch.where(splats[:, 5] > 0.05, depths, torch.inf))[1][:6]
    splats, depths = splats[chosen], depths[chosen]
    splats = splats.clone()
    splats[:, 5] *= 0.9
    small = (11, 9)
    splats[:, :2] = splats[:, :2] * torch.tensor([11 / 37, 9 / 29])
    lists = splat_tiles(splats, depths, *small)
    assert len(lists.ids) >= 5

    def images(rows: Tensor, extras: Tensor, background: Tensor) -> tuple[Tensor, ...]:
        whole = torch.cat([rows, splats[:, 10:]], dim=1)
        found = rasterize_splats(
            whole, lists, *small, extras=extras, background=background, depth=depth
        )
        return tuple(i for i in (*found[:3], found.extras) if i is not None)

    leaves = [splats[:, :10].clone(), along((6, 2), 1), along((3,), 2)]
    assert torch.autograd.gradcheck(
        images, [leaf.requires_grad_() for leaf in leaves], eps=1e-7, atol=1e-5, rtol=1e-4
    )


def one_splat(covariance: list[list[float]], opacity: float) -> tuple[Tensor, Tensor]:
    """In the middle of an image of 64 x 48, color (1, 0.5, 0.25), depth 3."""
    conic = torch.linalg.inv(torch.tensor(covariance, dtype=torch.float64))
    half = (2 * math.log(255 * opacity) * torch.tensor(covariance).diagonal()).sqrt()
    row = torch.zeros(1, 12)
    row[0, :6] = torch.tensor([31.2, 24.9, conic[0, 0], conic[0, 1], conic[1, 1], opacity])
    row[0, 6:10] = torch.tensor([1.0, 0.5, 0.25, 3.0])
    row[0, 10], row[0, 11] = half.max(), half[1] if half[0] >= half[1] else -half[0]
    return row, torch.tensor([3.0])


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize(
    "covariance", [[[9.0, 0], [0, 9]], [[40.0, 12], [12, 5]], [[4, -9], [-9, 25]]]
)
def test_one_splat_is_its_formula(covariance, near, backend: str) -> None:
    """alpha = o exp(-d^T C^-1 d / 2) at pixel centres; the light that leaves is 2 pi o sqrt(det C),
    less the part below 1/255, which is 1 / (255 o) of it."""
    opacity, device = 0.8, device_of(backend)
    row, depths = (t.to(device) for t in one_splat(covariance, opacity))
    images = rasterize_splats(row, splat_tiles(row, depths, 64, 48), 64, 48, depth=True)
    matrix = torch.tensor(covariance, dtype=torch.float64)
    y, x = torch.meshgrid(torch.arange(48).double(), torch.arange(64).double(), indexing="ij")
    d = torch.stack([x + 0.5 - 31.2, y + 0.5 - 24.9], dim=-1)
    sigma = 0.5 * torch.einsum("hwi,ij,hwj->hw", d, torch.linalg.inv(matrix), d)
    alpha = opacity * torch.exp(-sigma)
    alpha = torch.where(alpha >= 1 / 255, alpha, 0.0)
    near(1 - images.transmittance, alpha, 2e-6, "opacity")
    near(images.color, alpha[..., None] * torch.tensor([1, 0.5, 0.25]), 2e-6, "color")
    near(images.depth, 3 * alpha, 2e-6, "depth")
    assert torch.equal(images.median_depth.cpu() == 3, alpha >= 0.5)
    light = 2 * math.pi * opacity * float(torch.linalg.det(matrix)) ** 0.5
    light *= 1 - 1 / (255 * opacity)
    assert float((1 - images.transmittance).double().sum()) == pytest.approx(light, rel=5e-3)


@pytest.mark.parametrize("backend", ALL)
def test_light_is_kept(make_splats, near, backend: str) -> None:
    """Blended ones are the opacity, and white in front of white is white."""
    splats, depths = make_splats(260, opaque=True)
    white = splats.to(device_of(backend), torch.float32)
    white[:, 6:9] = 1
    ones = torch.ones(len(white), 17, device=white.device)  # two passes
    lists = splat_tiles(white, depths.to(white), *SIZE)
    images = rasterize_splats(white, lists, *SIZE, extras=ones, background=ones[0, :3])
    assert bool((images.transmittance >= 0).all()) and bool((images.transmittance <= 1).all())
    torch.testing.assert_close(images.color, torch.ones_like(images.color), rtol=0, atol=3e-6)
    opacity = (1 - images.transmittance)[..., None].expand_as(images.extras)
    torch.testing.assert_close(images.extras, opacity, rtol=0, atol=3e-6)


@pytest.mark.parametrize("backend", ALL)
def test_opaque_splats_hide_what_is_behind(backend: str) -> None:
    """Alpha is at most 0.999, and a pixel stops before its transmittance is 1e-4: after one such
    splat 0.001 is left, the next would leave 1e-6 and is not blended, nor is any behind it."""
    device = device_of(backend)
    splats = torch.zeros(4, 12, device=device)
    splats[:, :2], splats[:, 2], splats[:, 4] = 8.5, 1e-6, 1e-6
    splats[:, 5], splats[:, 10:] = 1.0, 5000.0
    splats[:, 6:9] = torch.eye(4, 3, device=device)
    splats[:, 9] = depths = torch.tensor([2.0, 1.0, 3.0, 4.0], device=device)
    splats[2:, 5] = 0.01
    splats.requires_grad_()
    lists = splat_tiles(splats, depths, 17, 17)
    assert lists.ids[:4].tolist() == [1, 0, 2, 3]
    images = rasterize_splats(splats, lists, 17, 17, depth=True)
    expected_color = torch.tensor([0.0, 0.999, 0.0], device=device).expand(17, 17, 3)
    torch.testing.assert_close(images.color, expected_color)
    torch.testing.assert_close(
        images.transmittance, torch.full_like(images.transmittance, 1e-3), rtol=1e-3, atol=0
    )
    assert bool((images.median_depth == 1).all())
    images.color.sum().backward()
    assert not splats.grad[[0, 2, 3]].any()
    assert not splats.grad[1, :6].any()  # held at 0.999
    assert splats.grad[1, 6:9].tolist() == pytest.approx([0.999 * 17 * 17] * 3, rel=1e-5)


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("size", [(0, 0), (0, 9), (9, 0), (1, 1), (16, 16), (17, 33)], ids=str)
def test_odd_sizes_and_no_splats(make_splats, size, backend: str) -> None:
    device = device_of(backend)
    shade = torch.tensor([0.1, 0.2, 0.3], device=device, requires_grad=True)
    splats, depths = (t.to(device, torch.float32) for t in make_splats(40))
    for count in (40, 1, 0):
        leaf = splats[:count].clone().requires_grad_()
        extras = torch.ones(count, 3, device=device, requires_grad=True)
        lists = splat_tiles(leaf, depths[:count], *size)
        images = rasterize_splats(leaf, lists, *size, extras=extras, background=shade, depth=True)
        assert images.color.shape == (size[1], size[0], 3)
        assert images.extras.shape == (size[1], size[0], 3)
        if not count:
            assert torch.equal(images.color, shade.detach().expand_as(images.color))
        loss = images.color.sum() + images.extras.sum() + images.depth.sum()
        by_splats, by_extras, by_shade = torch.autograd.grad(loss, (leaf, extras, shade))
        assert by_splats.shape == leaf.shape and bool(by_splats.isfinite().all())
        assert by_extras.shape == extras.shape
        left = float(images.transmittance.detach().sum())
        torch.testing.assert_close(by_shade.cpu(), torch.full((3,), left), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("backend", ALL)
def test_views_with_gaps_in_memory(make_splats, near, backend: str) -> None:
    splats, depths = (t.to(device_of(backend), torch.float32) for t in make_splats(60))
    lists = splat_tiles(splats, depths, *SIZE)
    table = torch.arange(9.0, device=splats.device).reshape(3, 3) / 9
    extras = torch.arange(240.0, device=splats.device).reshape(60, 4) / 240
    results = []
    for spread in (False, True):
        leaf = splats.clone().requires_grad_()
        rows, shade, more = leaf, table[:, 1].clone(), extras[:, ::2].clone()
        if spread:
            rows = torch.cat([leaf, leaf], dim=1)[:, :12]
            shade, more = table[:, 1], extras[:, ::2]
        images = rasterize_splats(rows, lists, *SIZE, extras=more, background=shade)
        (images.color.sum() + images.extras.square().sum()).backward()
        results.append((images.color, images.extras, leaf.grad))
    for whole, scattered in zip(*results, strict=True):
        near(scattered, whole.double().cpu(), 1e-6)


def test_bad_input_is_named(make_splats) -> None:
    splats, depths = (t.float() for t in make_splats(10))
    lists = splat_tiles(splats, depths, *SIZE)
    with pytest.raises(InputError, match="extras"):
        rasterize_splats(splats, lists, *SIZE, extras=torch.zeros(9, 2))
    with pytest.raises(InputError, match="background must have shape"):
        rasterize_splats(splats, lists, *SIZE, background=torch.zeros(4))
    with pytest.raises(InputError, match="lists.starts must have shape"):
        rasterize_splats(splats, lists, 100, 100)
    probe = torch.zeros(10, 2, requires_grad=True)
    with pytest.raises(InputError, match="screen_probe needs float32"):
        rasterize_splats(splats.double(), lists, *SIZE, screen_probe=probe.double())
    with pytest.raises(InputError, match="at most 16 extras; got 17"), backend_override("cpu"):
        rasterize_splats(splats, lists, *SIZE, extras=torch.zeros(10, 17), screen_probe=probe)
