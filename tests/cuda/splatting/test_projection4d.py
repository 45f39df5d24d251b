"""Gaussians in space and time: the twin against mathematics, the kernels against the twin."""

import doctest
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import InputError
from lumigraph.core.rotors import rotation_from_rotor, rotor_from_quaternion
from lumigraph.cuda.ops import SplatCamera, project_gaussians, project_gaussians4d
from lumigraph.cuda.reference.gaussian_slicing import slice_gaussians
from lumigraph.cuda.splatting import projection4d as module

BACKENDS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
NAMES = ("means", "times", "rotors", "log_scales", "opacity_logits", "harmonics")
SLICED = NAMES[:5]
PINHOLE, OPENCV = CameraModel.PINHOLE, CameraModel.OPENCV
FISHEYE, ORTHOGRAPHIC = CameraModel.FISHEYE, CameraModel.ORTHOGRAPHIC
# model, plateaus, bands stored, degree, antialiased
CASES = [
    (PINHOLE, False, 4, 3, False),
    (PINHOLE, True, 4, 1, True),
    (OPENCV, True, 3, 1, True),
    (FISHEYE, False, 1, 0, True),
    (ORTHOGRAPHIC, True, 2, 1, False),
]
BOUNDS = {"cpu": 3e-5, "emu": 3e-5, "cuda": 3e-4}  # a GPU's exp, log and division are quick ones
TIME = 0.43


# ---- the twin against mathematics


def sliced(tensors: dict[str, Tensor], time: float, **options):
    return slice_gaussians(
        *(tensors[name] for name in SLICED),
        time,
        log_plateaus=tensors.get("log_plateaus"),
        **options,
    )


@pytest.mark.parametrize("time", [0.0, 0.2, 0.43, 0.8, 1.0])
def test_slices_are_those_of_the_density(time: float) -> None:
    """On a grid of space at one time the density in four dimensions is opacity times the density in
    three; summed up over space its share is what the marginal in time says."""
    generator = torch.Generator().manual_seed(3)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    for _ in range(3):
        tensors = {
            "means": 0.2 * normal(1, 3), "times": 0.5 + 0.2 * normal(1), "rotors": normal(1, 8),
            "log_scales": -1 + 0.3 * normal(1, 4), "opacity_logits": normal(1),
        }  # fmt: skip
        found = sliced(tensors, time)
        root = rotation_from_rotor(tensors["rotors"])[0] * tensors["log_scales"][0].exp()
        inverse = torch.linalg.inv(root @ root.T)
        line = torch.linspace(-5, 5, 81, dtype=torch.float64)
        offsets = torch.stack(torch.meshgrid(line, line, line, indexing="ij"), -1).reshape(-1, 3)
        points = found.means + offsets @ torch.linalg.cholesky(found.covariances[0]).T
        whole = torch.cat([points, torch.full_like(points[:, :1], time)], dim=1)
        whole = whole - torch.cat([tensors["means"], tensors["times"][:, None]], dim=1)
        density = (-0.5 * torch.einsum("ni,ij,nj->n", whole, inverse, whole)).exp()
        density = density * tensors["opacity_logits"].sigmoid()
        in_space = points - found.means
        ours = torch.linalg.inv(found.covariances[0])
        expected = (-0.5 * torch.einsum("ni,ij,nj->n", in_space, ours, in_space)).exp()
        expected = expected * found.opacities
        assert float((density - expected).abs().amax() / expected.amax()) < 1e-10
        # over space the grid's sum is the integral: (2 pi)^(3/2) |covariance|^(1/2) opacity
        cell = (line[1] - line[0]) ** 3 * torch.linalg.det(found.covariances[0]).sqrt()
        integral = (2 * math.pi) ** 1.5 * torch.linalg.det(found.covariances[0]).sqrt()
        assert float(density.sum() * cell) == pytest.approx(
            float(integral * found.opacities), rel=1e-4
        )


def test_slices_are_the_formulas_of_the_blocks() -> None:
    generator = torch.Generator().manual_seed(4)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    tensors = {
        "means": normal(100, 3), "times": normal(100), "rotors": normal(100, 8),
        "log_scales": normal(100, 4), "opacity_logits": normal(100), "log_plateaus": normal(100),
    }  # fmt: skip
    found = sliced(tensors, 0.3)
    root = rotation_from_rotor(tensors["rotors"]) * tensors["log_scales"].exp()[:, None]
    whole = root @ root.transpose(1, 2)
    space, mixed, time = whole[:, :3, :3], whole[:, :3, 3], whole[:, 3, 3]
    velocity = mixed / time[:, None]
    later = 0.3 - tensors["times"]
    covariance = space - mixed[:, :, None] * mixed[:, None] / time[:, None, None]
    fade = (later.abs() - tensors["log_plateaus"].exp()).clamp_min(0)
    opacity = tensors["opacity_logits"].sigmoid() * (-(fade**2) / (2 * time)).exp()
    assert torch.allclose(found.velocities, velocity, atol=1e-12)
    assert torch.allclose(found.means, tensors["means"] + velocity * later[:, None], atol=1e-12)
    assert torch.allclose(found.covariances, covariance, atol=1e-12)
    assert torch.allclose(found.opacities, opacity, atol=1e-14)
    assert 10 < int((fade == 0).sum()) < 90
    # held from below: a Gaussian shorter than that moves and fades as if it lasted so long
    held = sliced(tensors, 0.3, shortest=1.5)
    short = time < 1.5**2
    assert 10 < int(short.sum()) < 90
    assert torch.allclose(held.velocities[short], mixed[short] / 1.5**2)
    assert torch.equal(held.velocities[~short], found.velocities[~short])
    assert torch.equal(held.axes, found.axes)


@pytest.mark.parametrize("plateaus", [False, True])
def test_slices_pass_gradcheck(plateaus: bool) -> None:
    generator = torch.Generator().manual_seed(5)
    sizes = ((6, 3), (6,), (6, 8), (6, 4), (6,), (6,))
    leaves = [
        torch.randn(size, generator=generator, dtype=torch.float64).requires_grad_()
        for size in sizes[: 6 if plateaus else 5]
    ]

    def run(*tensors: Tensor) -> tuple[Tensor, ...]:
        found = slice_gaussians(*tensors[:5], 0.3, log_plateaus=tensors[5] if plateaus else None)
        return found.means, found.covariances, found.opacities, found.velocities

    assert torch.autograd.gradcheck(run, leaves)


def test_gradients_are_those_of_the_closed_form(near) -> None:
    """Section by section: G, g and h the gradients by covariance, mean and opacity."""
    generator = torch.Generator().manual_seed(6)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    count, time = 40, 0.3
    sizes = ((count, 3), (count,), (count, 8), (count, 4), (count,))
    leaves = [normal(*size).requires_grad_() for size in sizes]
    found = slice_gaussians(*leaves, time)
    big, small, h = normal(count, 3, 3), normal(count, 3), normal(count)
    big = big + big.transpose(1, 2)
    loss = (
        (found.covariances * big).sum() + (found.means * small).sum() + (found.opacities * h).sum()
    )
    loss.backward()
    times, rotors, log_scales, logits = (leaf.detach() for leaf in leaves[1:])
    rotation, scales = rotation_from_rotor(rotors), log_scales.exp()
    root = rotation * scales[:, None]
    whole = root @ root.transpose(1, 2)
    mixed, rate = whole[:, :3, 3], 1 / whole[:, 3, 3]
    velocity, later = mixed * rate[:, None], time - times
    alpha = found.opacities.detach()
    turned = (big @ mixed[:, :, None])[..., 0]
    by_mixed = -2 * rate[:, None] * turned + (rate * later)[:, None] * small
    along = (mixed * turned).sum(1)
    by_time = rate**2 * along - rate**2 * later * (small * mixed).sum(1)
    by_time = by_time + h * alpha * later**2 * rate**2 / 2
    blocks = torch.zeros(count, 4, 4, dtype=torch.float64)
    blocks[:, :3, :3], blocks[:, 3, 3] = big, by_time
    blocks[:, :3, 3] = blocks[:, 3, :3] = by_mixed / 2
    by_root = 2 * blocks @ root
    by_scales = scales * (rotation * by_root).sum(1)
    near(leaves[0].grad, small, 1e-12, "means")
    near(leaves[1].grad, -(small * velocity).sum(1) + h * alpha * rate * later, 1e-10, "times")
    near(leaves[3].grad, by_scales, 1e-10, "scales")
    peak = logits.sigmoid()
    near(leaves[4].grad, h * alpha * (1 - peak), 1e-10, "opacities")
    fresh = rotors.clone().requires_grad_()
    (rotation_from_rotor(fresh) * (by_root * scales[:, None])).sum().backward()
    near(leaves[2].grad, fresh.grad, 1e-9, "rotors")


# ---- kernels against the twin


def project(scene, backend: str, options=(None, False), time: float = TIME, **more):
    leaves, camera = scene.on(backend)
    degree, antialiased = options
    splats, depths = project_gaussians4d(
        *(leaves[n] for n in NAMES), time, camera, log_plateaus=leaves.get("log_plateaus"),
        antialiased=antialiased, degree=degree, **more,
    )  # fmt: skip
    return leaves, splats, depths


def decided(scene, splats: Tensor) -> Tensor:
    """(G,) bool: seen, and not at the edge of being seen, nor of a color that ends at black."""
    width, height = scene.cameras.size(0)
    half = torch.where(splats[:, 11:] < 0, splats[:, 10:].flip(1).abs(), splats[:, 10:])
    size = torch.tensor([width, height])
    ends = torch.cat([splats[:, :2] + half, size - splats[:, :2] + half], 1)
    faint = (255 * splats[:, 5] - 1).abs() < 1e-3
    dark = ((splats[:, 6:9] > 0) & (splats[:, 6:9] < 1e-5)).any(1)
    return (splats[:, 5] > 0) & ~faint & ~dark & (ends > 1e-3).all(1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}-{case[1:]}")
def test_matches_float64(scenes, near, case, backend: str) -> None:
    model, plateaus, bands, *options = case
    count = 261
    scene = scenes.moving(count, plateaus=plateaus, model=model, bands=bands)
    right, splats, depths = project(scene, "exact", options)
    ours, our_splats, our_depths = project(scene, backend, options)
    sure = decided(scene, splats.detach())
    found = sliced({n: t.detach() for n, t in right.items()}, TIME)
    assert int((found.opacities < 1 / 255).sum()) > 20 and 60 < int(sure.sum()) < count - 40
    bound = BOUNDS[backend]
    for j in range(12):
        near(our_splats[:, j].cpu() * sure, splats[:, j] * sure, bound, f"column {j}")
    unsure = (our_depths.isinf().cpu() != depths.isinf()) & ~sure
    assert torch.equal(our_depths.isinf().cpu() & ~unsure, depths.isinf() & ~unsure)
    assert int(unsure.sum()) <= 2
    near(our_depths.cpu()[sure], depths[sure], bound, "depths")
    along = torch.randn(count, 12, generator=torch.Generator().manual_seed(3)) * sure[:, None]
    # inverse covariances are large where splats are small; weigh them alike
    along = along / (1 + splats.detach().abs())
    (splats * along).sum().backward()
    (our_splats * along.to(our_splats)).sum().backward()
    for name in right:
        near(ours[name].grad, right[name].grad, 10 * bound, f"gradient by {name}")
        if name != "pose":
            assert not ours[name].grad.cpu()[~sure & depths.isinf()].any(), name


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", [PINHOLE, OPENCV, FISHEYE, ORTHOGRAPHIC], ids=lambda m: m.name)
def test_the_static_limit(scenes, near, model, backend: str) -> None:
    """Splats of Gaussians that stand still are those of `project_gaussians`."""
    scene = scenes.random(150, model=model)
    leaves, camera = scene.on(backend)
    still = [leaves[n] for n in ("means", "rotations", "scales", "opacities", "harmonics")]
    means, rotations, scales, opacities, harmonics = still
    count, wanted = len(means), project_gaussians(*still, camera)[0]
    ours, _ = project_gaussians4d(
        means, means.new_full((count,), 0.5), rotor_from_quaternion(rotations),
        torch.cat([scales, means.new_full((count, 1), math.log(1e3))], dim=1), opacities,
        harmonics, 0.1, camera,
    )  # fmt: skip
    near(ours, wanted.detach().double().cpu(), BOUNDS[backend] / 3, "splats")


@pytest.mark.parametrize("backend", BACKENDS)
def test_rotors_of_any_length_and_sign(scenes, near, backend: str) -> None:
    scene = scenes.moving(40, bands=1)
    results = []
    for factor in (1.0, -1.0, 1e-16, 1e16, 1e-30, 1e30):
        turned = scene.tensors["rotors"] * factor
        changed = replace(scene, tensors=scene.tensors | {"rotors": turned})
        leaves, splats, _ = project(changed, backend)
        splats[:, 2:5].sum().backward()
        results.append((splats, leaves["rotors"].grad * factor))
    for splats, gradient in results[1:]:
        near(splats, results[0][0].double().cpu(), BOUNDS[backend], "splats")
        near(gradient, results[0][1].double().cpu(), 10 * BOUNDS[backend], "gradient")


def one_gaussian(device: str, **changes: Tensor) -> tuple[list[Tensor], Tensor | None]:
    values = {
        "means": torch.tensor([[0.0, 0.0, 2.0]]),
        "times": torch.tensor([0.5]),
        "rotors": torch.tensor([[1.0, 0, 0, 0, 0.2, 0.1, -0.1, 0.05]]),
        "log_scales": torch.tensor([[-3.0, -3, -3, -2]]),
        "opacity_logits": torch.tensor([2.0]),
        "harmonics": torch.zeros(1, 1, 3),
    }
    plateaus = changes.pop("log_plateaus", None)
    tensors = [value.to(device).requires_grad_() for value in (values | changes).values()]
    return tensors, None if plateaus is None else plateaus.to(device).requires_grad_()


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_extreme_values(backend: str) -> None:
    """Culled or shown, never a number that is not finite, and no gradient either."""
    device = "cuda" if backend == "cuda" else "cpu"
    camera = SplatCamera(torch.eye(4, device=device)[:3], (20.0, 20.0, 10.0, 8.0), 20, 16)
    tensor, nan, inf = torch.tensor, math.nan, math.inf
    scales = lambda *numbers: {"log_scales": tensor([numbers])}  # noqa: E731
    hidden = {
        "long ago": {"times": tensor([-9.0])},
        "very long ago": {"times": tensor([-1e30])},
        "never": {"times": tensor([nan])},
        "at no time": {"times": tensor([inf])},
        "no rotation": {"rotors": torch.zeros(1, 8)},
        "half a rotation": {"rotors": tensor([[1.0, 0, 0, 0, 0, 0, 0, -1.0]])},
        "rotor no number": {"rotors": tensor([[1.0, 0, 0, 0, 0, 0, nan, 0]])},
        "rotor infinite": {"rotors": tensor([[1.0, 0, 0, 0, 0, inf, 0, 0]])},
        "size no number": scales(-3.0, nan, -3.0, -2.0),
        "infinitely large": scales(-3.0, 1e3, -3.0, -2.0),
        "no duration at all": scales(-inf, -inf, -inf, -inf),
        "faint": {"opacity_logits": tensor([-9.0])},
        "opacity no number": {"opacity_logits": tensor([nan])},
        "plateau no number": {"log_plateaus": tensor([nan])},
        "color no number": {"harmonics": torch.full((1, 1, 3), inf)},
        "mean no number": {"means": tensor([[0.0, nan, 2.0]])},
    }
    shown = {
        "for ever": scales(-3.0, -3.0, -3.0, 30.0),
        "nearly for ever": scales(-3.0, -3.0, -3.0, 12.0),
        "tiny": scales(-30.0, -30.0, -30.0, -3.0),
        "its moment alone": {"times": tensor([0.4]), **scales(-3.0, -3.0, -3.0, -60.0)},
        "small rotor": {"rotors": tensor([[1e-30, 0, 0, 0, 0, 0, 0, 0]])},
        "whole life": {"times": tensor([-3.0]), "log_plateaus": tensor([2.0])},
        "for ever, flat": {"times": tensor([-3.0]), "log_plateaus": tensor([inf])},
        "no plateau": {"log_plateaus": tensor([-inf])},
        "opaque": {"opacity_logits": tensor([inf])},
    }
    for name, changes in (hidden | shown).items():
        values, plateaus = one_gaussian(device, **changes)
        if name == "whole life":
            values[2] = tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]], device=device).requires_grad_()
        if name == "for ever, flat":
            values[2] = tensor([[1.0, 0, 0, 0, 0, 0, 0, 0]], device=device).requires_grad_()
        splats, depths = project_gaussians4d(*values, 0.4, camera, log_plateaus=plateaus)
        if name in hidden:
            assert not splats.any() and depths.isinf().all(), name
        else:
            assert bool(splats[0, 5] > 0) and bool(splats.isfinite().all()), name
        (splats[:, 2:9] * 1e-3).sum().backward()
        for value in [*values, *([] if plateaus is None else [plateaus])]:
            assert value.grad is not None and bool(value.grad.isfinite().all()), name
            assert name not in hidden or not value.grad.any(), name


@pytest.mark.parametrize("backend", ["torch", *BACKENDS])
def test_none_and_nobody(scenes, backend: str) -> None:
    for scene, time in ((scenes.moving(5).select(torch.arange(0)), 0.4), (scenes.moving(30), 1e4)):
        still = torch.arange(len(scene.tensors["means"])) % 7 == 0
        leaves, splats, depths = project(scene.select(~still), backend, time=time)
        assert not splats.any() and bool(depths.isinf().all())
        splats.sum().backward()
        assert all(leaf.grad is not None and not leaf.grad.any() for leaf in leaves.values())


def test_bad_input_is_named() -> None:
    camera = SplatCamera(torch.eye(4)[:3], (8.0, 8.0, 4.0, 4.0), 8, 8)
    good, _ = one_gaussian("cpu")
    for place, name in enumerate(NAMES):
        wrong = [g[None] if i == place else g for i, g in enumerate(good)]
        with pytest.raises(InputError, match=name):
            project_gaussians4d(*wrong, 0.5, camera)
    with pytest.raises(InputError, match="log_plateaus must have shape"):
        project_gaussians4d(*good, 0.5, camera, log_plateaus=torch.zeros(2))
    for time in (math.nan, math.inf):
        with pytest.raises(InputError, match="time must be finite"):
            project_gaussians4d(*good, time, camera)
    with pytest.raises(InputError, match="shortest must be finite and above 0"):
        project_gaussians4d(*good, 0.5, camera, shortest=0.0)
    with pytest.raises(InputError, match="degree must be 0 to 0"):
        project_gaussians4d(*good, 0.5, camera, degree=1)
    with pytest.raises(InputError, match="1, 4, 9 or 16 rows; got 2"):
        project_gaussians4d(*good[:5], torch.zeros(1, 2, 3), 0.5, camera)


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(module).failed == 0
