"""Compositing kernels against the float64 reference; the reference against finite differences,
double sums and closed forms.

Bounds are relative to the largest number of each result. Rays here have up to 70 samples, whose
sums in fp32 round 70 times 6e-8 at worst: 5e-6, and the exponential of a GPU adds 2e-6 (its error
grows with the argument, which is the optical thickness, up to 20 here): 1e-5 for all.
"""

import doctest
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda import compositing as compositing_module
from lumigraph.cuda.compositing import Composite, composite
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.reference import compositing as reference

ALL = ["torch", "cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
BOUND = 1e-5


@pytest.fixture(autouse=True)
def chosen_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs a test that takes `backend` with that one."""
    if "backend" not in request.fixturenames:
        yield
        return
    with backend_override(request.getfixturevalue("backend")):
        yield


def device_of(backend: str) -> str:
    return "cuda" if backend == "cuda" else "cpu"


def pack(counts: list[int]) -> Tensor:
    count = torch.tensor(counts, dtype=torch.int32)
    return torch.stack([count.cumsum(0).int() - count, count], 1)


def random_samples(counts: list[int], *, padding: int = 0, thick: float = 6.0) -> dict[str, Tensor]:
    """Arguments of `composite`, in float64; distances rise along each ray."""
    generator = torch.Generator().manual_seed(sum(counts) + len(counts))
    offsets = pack(counts)
    samples = sum(counts) + padding
    uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    steps = 0.02 + 0.1 * uniform(samples)
    distances = torch.zeros(samples, dtype=torch.float64)
    for start, count in offsets.tolist():
        distances[start : start + count] = 2 + steps[start : start + count].cumsum(0)
    return {
        "density": thick * uniform(samples),
        "color": uniform(samples, 3),
        "distances": distances,
        "steps": steps,
        "ray_offsets": offsets,
        "background": uniform(len(counts), 3),
    }


def on_device(samples: dict[str, Tensor], backend: str) -> dict[str, Tensor]:
    device = device_of(backend)
    real = lambda x: x.to(device, torch.float32 if x.is_floating_point() else x.dtype)  # noqa: E731
    return {name: real(tensor) for name, tensor in samples.items()}


def value_and_gradients(
    samples: dict[str, Tensor], directions: list[Tensor], **options: Any
) -> tuple[list[Tensor], list[Tensor]]:
    """Outputs, and gradients of their product with `directions`, by all that have one."""
    leaves = {
        name: samples[name].clone().requires_grad_() for name in ("density", "color", "background")
    }
    result = composite(**{**samples, **leaves}, **options)
    out = [part for part in result[:5] if part is not None]
    loss = torch.stack(
        [(part * along.to(part)).sum() for part, along in zip(out, directions, strict=False)]
    ).sum()
    return [part.detach() for part in out], list(torch.autograd.grad(loss, [*leaves.values()]))


def check_close(ours: list[Tensor], right: list[Tensor]) -> None:
    for mine, theirs in zip(ours, right, strict=True):
        assert mine.shape == theirs.shape
        if mine.numel():
            gap = (mine.cpu().double() - theirs).abs().max()
            assert float(gap) <= BOUND * max(1e-3, float(theirs.abs().max()))


COUNTS = [[0], [1], [8], [7, 9, 0, 16], [70, 3, 0, 0, 33, 1, 8, 64, 2, 12, 5] * 5]


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("counts", COUNTS)
@pytest.mark.parametrize("early_stop", [0.0, 1e-2])
@pytest.mark.parametrize("distortion", [False, True])
def test_matches_float64(
    backend: str, counts: list[int], early_stop: float, distortion: bool
) -> None:
    samples = random_samples(counts, padding=3)
    rays, total = len(counts), len(samples["density"])
    generator = torch.Generator().manual_seed(7)
    shapes = [(rays, 3), (rays,), (rays,), *[(rays,)] * distortion, (total,)]
    along = [torch.randn(*shape, generator=generator) for shape in shapes]
    options = {"early_stop": early_stop, "distortion": distortion}
    right = value_and_gradients(samples, along, **options)
    ours = value_and_gradients(on_device(samples, backend), along, **options)
    check_close(ours[0], right[0])
    check_close(ours[1], right[1])


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("output", range(5))
def test_each_output_alone_has_its_gradient(backend: str, output: int) -> None:
    """A loss on one output leaves the gradients of the others unset, not zero."""
    samples = random_samples([5, 0, 20, 9])

    def gradients(values: dict[str, Tensor]) -> list[Tensor]:
        leaves = {name: values[name].clone().requires_grad_() for name in ("density", "color")}
        part = composite(**{**values, **leaves}, distortion=True)[output]
        assert part is not None
        loss = (part * torch.arange(1, part.numel() + 1).reshape(part.shape).to(part)).sum()
        found = torch.autograd.grad(loss, [*leaves.values()], allow_unused=True)
        pairs = zip(found, leaves.values(), strict=True)
        return [torch.zeros_like(leaf) if g is None else g for g, leaf in pairs]

    check_close(gradients(on_device(samples, backend)), gradients(samples))


@pytest.mark.parametrize("backend", ALL)
def test_without_background(backend: str) -> None:
    samples = random_samples([5, 0, 20, 9])
    black = {**samples, "background": torch.zeros_like(samples["background"])}
    expected = value_and_gradients(black, [torch.ones(4, 3)])
    samples.pop("background")
    values = on_device(samples, backend)
    values["density"].requires_grad_()
    out = composite(**values)
    (gradient,) = torch.autograd.grad(out.color.sum(), [values["density"]])
    check_close([out.color.detach(), gradient], [expected[0][0], expected[1][0]])
    assert not out.color[1].any()


@pytest.mark.parametrize("backend", ALL)
def test_one_background_for_all(backend: str) -> None:
    samples = on_device(random_samples([5, 0, 20, 9]), backend)
    color = torch.tensor([0.2, 0.4, 0.6], device=device_of(backend), requires_grad=True)
    one = composite(**{**samples, "background": color})
    each = composite(**{**samples, "background": color.detach().expand(4, 3)})
    assert torch.equal(one.color.detach(), each.color)
    one.color.sum().backward()
    assert color.grad is not None
    torch.testing.assert_close(color.grad, (1 - one.opacity.detach()).sum().expand(3))
    torch.testing.assert_close(one.color[1], color)


@pytest.mark.parametrize("backend", ALL)
def test_constant_slab(backend: str) -> None:
    """Density s through the length l: opacity 1 - exp(-s l), and the mean distance of an
    exponential that is cut off. Bound: 1200 roundings of 6e-8; the midpoint rule itself is
    good to (s step)^2 / 12 = 5e-7."""
    density, length, near, count = 2.5, 1.2, 3.0, 1200
    step = length / count
    device = device_of(backend)
    steps = torch.full((count,), step, device=device)
    distances = near + (torch.arange(count, device=device) + 0.5) * step
    color = torch.tensor([[0.9, 0.5, 0.1]], device=device).expand(count, 3)
    out = composite(
        torch.full_like(steps, density),
        color,
        distances,
        steps,
        pack([count]).to(device),
        background=torch.ones(3, device=device),
    )
    left = math.exp(-density * length)
    expected = torch.tensor([0.9, 0.5, 0.1]) * (1 - left) + left
    torch.testing.assert_close(out.color[0].cpu(), expected, rtol=7e-5, atol=0)
    assert float(out.opacity[0]) == pytest.approx(1 - left, rel=7e-5)
    mean = near + 1 / density - length * left / (1 - left)
    assert float(out.depth[0] / out.opacity[0]) == pytest.approx(mean, rel=7e-5)
    torch.testing.assert_close(out.weights.sum(), out.opacity[0])


def test_distortion_is_the_double_sum() -> None:
    samples = random_samples([6, 1, 0, 15])
    out = composite(**samples, distortion=True)
    assert out.distortion is not None
    for ray, (start, count) in enumerate(samples["ray_offsets"].tolist()):
        row = slice(start, start + count)
        weight, place, step = out.weights[row], samples["distances"][row], samples["steps"][row]
        pairs = weight[:, None] * weight * (place[:, None] - place).abs()
        expected = pairs.sum() + (weight.square() * step).sum() / 3
        torch.testing.assert_close(out.distortion[ray], expected)


@pytest.mark.parametrize("early_stop", [0.0, 0.3])
def test_reference_against_finite_differences(early_stop: float) -> None:
    samples = random_samples([3, 0, 6, 1], padding=1)

    def outputs(density: Tensor, color: Tensor, background: Tensor) -> tuple[Tensor, ...]:
        values = {**samples, "density": density, "color": color, "background": background}
        return tuple(composite(**values, early_stop=early_stop, distortion=True)[:5])

    leaves = [samples[n].clone().requires_grad_() for n in ("density", "color", "background")]
    assert torch.autograd.gradcheck(outputs, leaves)
    assert torch.autograd.gradgradcheck(outputs, leaves)


@pytest.mark.parametrize("early_stop", [0.0, 1e-2])
def test_closed_form_of_the_backward(early_stop: float) -> None:
    """The equation that the kernels follow is the derivative of the reference."""
    samples = random_samples([30, 0, 6, 1], padding=2)
    generator = torch.Generator().manual_seed(3)
    shapes = [(4, 3), (4,), (4,), (4,), (39,)]
    along = [torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes]
    _, right = value_and_gradients(samples, along, early_stop=early_stop, distortion=True)
    ours = reference.composite_backward(
        (along[0], along[1], along[2], along[3], along[4]), **samples, early_stop=early_stop
    )
    for mine, theirs in zip(ours, right, strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("backend", ALL)
def test_early_stop_leaves_out_the_rest(backend: str) -> None:
    """Thickness 1 a sample: transmittance e^-i; the stop at 1e-2 comes after the fifth."""
    device = device_of(backend)
    ones = torch.ones(20, device=device)
    density = torch.ones(20, device=device, requires_grad=True)
    color = torch.rand(20, 3, device=device, requires_grad=True)
    background = torch.ones(1, 3, device=device, requires_grad=True)
    offsets = pack([20]).to(device)
    out = composite(
        density, color, ones.cumsum(0), ones, offsets, background=background, early_stop=1e-2
    )
    assert (out.weights > 0).tolist() == [True] * 5 + [False] * 15
    assert out.counts.tolist() == [5]
    assert float(out.opacity[0].detach()) == pytest.approx(1 - math.exp(-5), rel=1e-5)
    torch.testing.assert_close(out.color[0], (out.weights[:, None] * color).sum(0))
    out.color.sum().backward()
    for leaf in (density, color, background):
        assert leaf.grad is not None
    assert not density.grad[5:].any()  # type: ignore[index]
    assert not color.grad[5:].any()  # type: ignore[index]
    assert not background.grad.any()  # type: ignore[union-attr]


@pytest.mark.parametrize("backend", ALL)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_bad_sample_spoils_its_own_ray_only(backend: str, bad: float) -> None:
    counts = [12, 20, 7, 0, 30]
    samples = on_device(random_samples(counts), backend)
    good = composite(**samples, distortion=True)
    values = {**samples, "density": samples["density"].clone()}
    values["density"][12 + 9] = bad
    values["density"].requires_grad_()
    out = composite(**values, distortion=True)
    (gradient,) = torch.autograd.grad(out.color.nansum(), [values["density"]])
    others = [0, 2, 3, 4]
    for mine, right in zip(out[:4], good[:4], strict=True):
        assert mine is not None and right is not None
        assert torch.equal(mine[others], right[others])
    assert bool(out.color[1].isnan().any()) == math.isnan(bad)
    assert bool(gradient[:12].isfinite().all())
    assert bool(gradient[32:].isfinite().all())


@pytest.mark.parametrize("backend", ALL)
def test_opaque_wall(backend: str) -> None:
    """Infinite density is a wall: all that is left of the light stops there."""
    device = device_of(backend)
    density = torch.tensor([0.0, 1.0, math.inf, 5.0], device=device)
    steps = torch.full((4,), 0.5, device=device)
    out = composite(
        density,
        torch.eye(4, device=device)[:, 1:],
        steps.cumsum(0),
        steps,
        pack([4]).to(device),
        background=torch.full((3,), 9.0, device=device),
    )
    front = 1 - math.exp(-0.5)
    expected = torch.tensor([0, front, 1 - front, 0])
    torch.testing.assert_close(out.weights.cpu(), expected)
    torch.testing.assert_close(out.color[0].cpu(), expected[1:])


@pytest.mark.parametrize("backend", ALL)
def test_empty(backend: str) -> None:
    device = device_of(backend)
    none = torch.zeros(0, device=device)
    nothing = composite(none, none.reshape(0, 3), none, none, pack([]).reshape(0, 2).to(device))
    assert [len(part) for part in nothing if part is not None] == [0] * 5
    background = torch.rand(2, 3, device=device, requires_grad=True)
    density = torch.zeros(0, device=device, requires_grad=True)
    out = composite(
        density, none.reshape(0, 3), none, none, pack([0, 0]).to(device), background=background
    )
    assert isinstance(out, Composite)
    assert torch.equal(out.color, background)
    assert not out.opacity.any()
    out.color.sum().backward()
    assert background.grad is not None
    assert bool((background.grad == 1).all())


def test_same_for_any_number_of_threads() -> None:
    samples = on_device(random_samples([40, 7, 0, 23] * 400), "cpu")
    along = [torch.ones(1600, 3), torch.ones(1600), torch.ones(1600), torch.ones(1600)]
    threads = torch.get_num_threads()
    results = []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            results.append(value_and_gradients(samples, along, distortion=True))
    finally:
        torch.set_num_threads(threads)
    for first, second in zip(*results, strict=True):
        assert all(map(torch.equal, first, second))


def test_bad_input_is_named() -> None:
    samples = on_device(random_samples([3, 2]), "cpu")
    with pytest.raises(InputError, match="color must have shape"):
        composite(**{**samples, "color": samples["color"][1:]})
    with pytest.raises(InputError, match="background must have shape"):
        composite(**{**samples, "background": torch.zeros(3, 3)})
    with pytest.raises(InputError, match="outside the 5 samples"):
        composite(**{**samples, "ray_offsets": pack([3, 3])})
    with pytest.raises(InputError, match="outside the 5 samples"):
        composite(**{**samples, "ray_offsets": torch.tensor([[-1, 2], [0, 1]])})


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(compositing_module).failed == 0
