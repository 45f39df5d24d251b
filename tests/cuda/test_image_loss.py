"""Image loss kernels against the float64 twin; the twin against mathematics and torchmetrics.

Bounds: 1e-5 for sums of fp32 numbers of order 1; gradients 1e-5 relative (measured below 3e-7),
1e-4 on a GPU.
"""

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.image_loss import ImageLoss, image_loss
from lumigraph.cuda.reference import image_loss as reference

BACKENDS = ["torch", "cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
NATIVE = BACKENDS[1:]
# within and beyond the window, one row and one column, over the 224 numbers and 16 rows of a block
SIZES = [(1, 1), (1, 7), (9, 1), (4, 5), (11, 11), (17, 75), (33, 40), (50, 150)]


def make_pictures(height: int, width: int, *, alike: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """prediction, target, and weights of which a third are 0."""
    generator = torch.Generator().manual_seed(height * 1000 + width)
    prediction, target = torch.rand(2, height, width, 3, generator=generator)
    if alike:
        prediction = target + 0.01 * (prediction - 0.5)
    weight = torch.rand(height, width, generator=generator) * 2
    weight[torch.rand(height, width, generator=generator) < 0.3] = 0
    return prediction, target, weight


def run(
    backend: str,
    prediction: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    share: float = 0.2,
) -> tuple[ImageLoss, Tensor]:
    """The result, and the gradient of three times the loss."""
    device = "cuda" if backend == "cuda" else "cpu"
    leaf = prediction.detach().to(device).requires_grad_()
    weight = None if weight is None else weight.to(device)
    with backend_override(backend):
        found = image_loss(leaf, target.to(device), weight=weight, ssim_weight=share)
        (3 * found.loss).backward()
    assert leaf.grad is not None
    return found, leaf.grad


def assert_same(
    found: tuple[ImageLoss, Tensor], true: tuple[ImageLoss, Tensor], rtol: float
) -> None:
    for one, other in zip(found[0], true[0], strict=True):
        torch.testing.assert_close(
            one.detach().double().cpu(), other.detach(), rtol=1e-5, atol=1e-5, equal_nan=True
        )
    distance = (found[1].double().cpu() - true[1]).norm()
    assert distance <= rtol * true[1].norm() + 1e-9


def double(*tensors: Tensor | None) -> list[Tensor | None]:
    return [None if t is None else t.double() for t in tensors]


# ---- the twin


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_twin_gradient(weighted: bool, share: float) -> None:
    prediction, target, weight = make_pictures(6, 5)
    own = prediction.double().requires_grad_()
    mask = weight.double() if weighted else None
    assert torch.autograd.gradcheck(
        lambda p: image_loss(p, target.double(), weight=mask, ssim_weight=share).loss, (own,)
    )


def test_twin_is_the_ssim_of_others() -> None:
    """Away from the border, where paddings differ."""
    others = pytest.importorskip("torchmetrics.functional.image")
    prediction, target, _ = (t.double() for t in make_pictures(40, 30))
    ours = reference.ssim_map(prediction, target)[5:-5, 5:-5]
    planes = [t.permute(2, 0, 1)[None] for t in (prediction, target)]
    # without its padding theirs averages what lies 5 pixels and more inside
    theirs = others.structural_similarity_index_measure(
        *planes, data_range=1.0, return_full_image=True
    )
    inner = theirs[1][0].permute(1, 2, 0)[5:-5, 5:-5]
    torch.testing.assert_close(ours, inner, rtol=1e-6, atol=1e-7)


def test_window_is_a_gaussian() -> None:
    point = torch.zeros(21, 21, 1, dtype=torch.float64)
    point[10, 10] = 1
    spread = reference.windowed(point)[..., 0]
    assert abs(float(spread.sum()) - 1) < 1e-12
    assert float(spread[10, 4]) == 0 and float(spread[10, 5]) > 0
    ratio = float(spread[10, 12] / spread[10, 10])
    assert abs(ratio - torch.exp(torch.tensor(-(2**2) / 4.5, dtype=torch.float64))) < 1e-12


# ---- kernels against the twin


@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_values_and_gradient(
    backend: str, size: tuple[int, int], weighted: bool, share: float
) -> None:
    prediction, target, weight = make_pictures(*size)
    given = (prediction, target, weight if weighted else None)
    true = run("torch", *double(*given), share)
    assert_same(run(backend, *given, share), true, 1e-4 if backend == "cuda" else 1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_nearly_equal_pictures(backend: str) -> None:
    """Where the plain formula cancels: the gradient keeps its digits."""
    prediction, target, weight = make_pictures(40, 90, alike=True)
    true = run("torch", *double(prediction, target, weight))
    bound = 1e-4 if backend in ("cuda", "torch") else 1e-5
    assert_same(run(backend, prediction, target, weight), true, bound)


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_pictures_lose_nothing(backend: str) -> None:
    _, target, weight = make_pictures(13, 20)
    found, gradient = run(backend, target, target.clone(), weight)
    assert abs(found.loss.item()) < 1e-6 and found.l1.item() == 0
    assert abs(found.ssim.item() - 1) < 1e-6 and found.squared_error.item() == 0
    assert gradient.abs().max() < 1e-6


@pytest.mark.parametrize("backend", BACKENDS)
def test_ignored_pixels_do_not_leak(backend: str) -> None:
    """Neither their value, NaN included, nor through the window; weights below 0 and NaN ignore."""
    prediction, target, weight = make_pictures(20, 33)
    wild = prediction.clone()
    wild[weight == 0] = float("nan")
    true, by_true = run(backend, prediction, target, weight)
    negative = torch.where(weight == 0, -1.0, weight)
    negative[weight == 0] = torch.where(
        torch.arange(int((weight == 0).sum())) % 2 == 0, -1.0, torch.nan
    )
    found, by_found = run(backend, wild, target, negative)
    for one, other in zip(found, true, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(by_found, by_true)
    assert not by_found[(weight == 0).to(by_found.device)].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_mask_scales_the_loss_but_not_the_scores(backend: str) -> None:
    prediction, target, _ = make_pictures(30, 24)
    mask = torch.zeros(30, 24)
    mask[:15] = 1
    found, gradient = run(backend, prediction, target, mask, 0.0)
    whole, by_whole = run(backend, prediction, target, None, 0.0)
    seen = (prediction - target)[:15]
    assert abs(found.loss.item() - seen.abs().mean().item() / 2) < 1e-6
    assert abs(found.l1.item() - seen.abs().mean().item()) < 1e-6
    assert abs(found.squared_error.item() - seen.square().mean().item()) < 1e-6
    torch.testing.assert_close(gradient[:15], by_whole[:15])
    assert found.ssim.isnan() and whole.ssim.isnan()


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_nothing_to_compare(backend: str, share: float) -> None:
    """No pixels, and none that counts: no loss and no gradient."""
    _, _, weight = make_pictures(4, 6)
    for shape, mask in (((0, 5), None), ((5, 0), None), ((0, 0), None), ((4, 6), weight * 0)):
        found, gradient = run(backend, torch.rand(*shape, 3), torch.rand(*shape, 3), mask, share)
        assert found.loss.item() == 0 and found.l1.item() == 0 and found.squared_error.item() == 0
        assert found.ssim.item() == 1 or share == 0
        assert gradient.shape == (*shape, 3) and not gradient.any()


@pytest.mark.parametrize("backend", NATIVE)
def test_extreme_values_stay_in_range(backend: str) -> None:
    prediction, target, _ = make_pictures(24, 30)
    for factor in (1e-30, 1e3, 1e6):
        found, gradient = run(backend, prediction * factor, target * factor)
        assert all(value.isfinite() for value in found) and gradient.isfinite().all()
        assert -1.001 <= found.ssim.item() <= 1.001


@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_values_show(backend: str, share: float) -> None:
    """A NaN makes the loss NaN, but only near pixels lose their gradient."""
    prediction, target, _ = make_pictures(30, 40)
    prediction[3, 4, 1] = float("nan")
    found, gradient = run(backend, prediction, target, None, share)
    assert found.loss.isnan() and found.l1.isnan()
    assert gradient[14:].isfinite().all() and gradient[:, 15:].isfinite().all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_repeats_exactly_and_serves_without_gradient(backend: str) -> None:
    prediction, target, weight = make_pictures(37, 80)
    first, by_first = run(backend, prediction, target, weight)
    second, by_second = run(backend, prediction, target, weight)
    assert torch.equal(torch.stack(first), torch.stack(second)) and torch.equal(by_first, by_second)
    device = first.loss.device
    with backend_override(backend):
        plain = image_loss(prediction.to(device), target.to(device), weight=weight.to(device))
    assert not plain.loss.requires_grad
    torch.testing.assert_close(torch.stack(plain), torch.stack(first).detach())


def test_threads_do_not_matter() -> None:
    prediction, target, weight = make_pictures(41, 60)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            result, gradient = run("cpu", prediction, target, weight)
            found.append(torch.cat([torch.stack(result).detach(), gradient.flatten()]))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_pictures(backend: str) -> None:
    prediction, target, weight = make_pictures(12, 18)
    turned = [t.transpose(0, 1).contiguous().transpose(0, 1) for t in (prediction, target, weight)]
    assert not turned[0].is_contiguous()
    found, gradient = run(backend, *turned)
    true, by_true = run(backend, prediction, target, weight)
    assert torch.equal(found.loss, true.loss) and torch.equal(gradient, by_true)


def test_only_the_loss_has_a_gradient() -> None:
    prediction, target, _ = make_pictures(8, 9)
    found = image_loss(prediction.requires_grad_(), target.requires_grad_())
    assert found.loss.requires_grad
    assert not (found.l1.requires_grad or found.ssim.requires_grad)
    assert not found.squared_error.requires_grad
    found.loss.backward()
    assert target.grad is None and prediction.grad is not None


def test_messages() -> None:
    picture = torch.zeros(4, 5, 3)
    with pytest.raises(InputError, match=r"target must have shape \(H, W, 3\) with H = 4"):
        image_loss(picture, torch.zeros(5, 4, 3))
    with pytest.raises(InputError, match="weight must have shape"):
        image_loss(picture, picture, weight=torch.ones(4, 5, 1))
    with pytest.raises(
        InputError, match="prediction must be torch tensor|prediction must be float"
    ):
        image_loss(picture.half(), picture.half())
    with pytest.raises(InputError, match="ssim_weight must lie in"):
        image_loss(picture, picture, ssim_weight=1.5)
