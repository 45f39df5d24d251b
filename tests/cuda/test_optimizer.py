"""Optimizer kernels against the float64 reference; the reference against torch.optim.Adam.

Bounds: 2e-6 relative for fp32 sums and one division; 1e-5 on a GPU, whose division and square
root are approximate.
"""

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.optimizer import adam_step_, ema_step_
from lumigraph.cuda.reference import optimizer as reference

BACKENDS = ["torch", "cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
SIZES = [0, 1, 3, 4, 17, 1023, 1024, 5003]


def make_state(size: int, backend: str, *, sparse: bool = True) -> list[Tensor]:
    """param, grad (half of the groups of 16 zero, some single zeros), moments."""
    generator = torch.Generator().manual_seed(size)
    param, grad, first = torch.randn(3, size, generator=generator)
    second = torch.rand(size, generator=generator)
    if sparse:
        groups = torch.rand(size // 16 + 1, generator=generator) < 0.5
        grad = grad * groups.repeat_interleave(16)[:size]
        grad[torch.rand(size, generator=generator) < 0.2] = 0
    device = "cuda" if backend == "cuda" else "cpu"
    return [t.clone().to(device) for t in (param, grad, first, second)]


def assert_close(found: Tensor, true: Tensor) -> None:
    torch.testing.assert_close(found.double(), true.double(), rtol=1e-5, atol=2e-6)


def test_reference_is_adam() -> None:
    torch.manual_seed(0)
    param = torch.randn(50, dtype=torch.float64)
    theirs = param.clone().requires_grad_()
    optimizer = torch.optim.Adam([theirs], lr=0.01, betas=(0.9, 0.99), eps=1e-8, weight_decay=0.1)
    first, second = torch.zeros_like(param), torch.zeros_like(param)
    for step in range(1, 6):
        grad = torch.randn(50, dtype=torch.float64)
        theirs.grad = grad.clone()
        optimizer.step()
        settings = reference.AdamSettings(step, 0.01, eps=1e-8, weight_decay=0.1, skip_zero=False)
        reference.adam_step_(param, grad, first, second, settings)
        assert not grad.any()
    torch.testing.assert_close(param, theirs.detach())


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"skip_zero": False, "zero_grad": False, "grad_scale": 128.0},
        {"weight_decay": 0.1, "eps": 1e-8, "beta1": 0.8, "beta2": 0.95},
        {"skip_zero": False, "weight_decay": 0.01},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_adam(backend: str, size: int, options: dict) -> None:
    tensors = make_state(size, backend)
    doubles = [t.double() for t in tensors]
    half, true_half = tensors[0].half(), doubles[0].half()
    settings = reference.AdamSettings(7, 0.01, **options)
    reference.adam_step_(*doubles, settings, half_copy=true_half)
    with backend_override(backend):
        bad = adam_step_(*tensors, step=7, learning_rate=0.01, half_copy=half, **options)
    assert int(bad) == 0
    for found, true in zip(tensors, doubles, strict=True):
        assert_close(found, true)
    torch.testing.assert_close(half, true_half, rtol=2**-10, atol=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_untouched_entries_keep_their_bits(backend: str) -> None:
    tensors = make_state(1000, backend)
    before = [t.clone() for t in tensors]
    still = tensors[1] == 0
    with backend_override(backend):
        adam_step_(*tensors, step=1, learning_rate=0.1, weight_decay=0.5)
    for found, old in zip((tensors[0], *tensors[2:]), (before[0], *before[2:]), strict=True):
        assert torch.equal(found[still], old[still])
        assert not torch.equal(found[~still], old[~still])


@pytest.mark.parametrize("skip_zero", [True, False])
@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_gradients_count_as_zero(backend: str, skip_zero: bool) -> None:
    """NaN, infinities and squares that overflow are counted and leave everything finite."""
    tensors = make_state(103, backend)
    places = {2: float("nan"), 40: float("inf"), 102: -float("inf"), 50: 1e30}
    clean = [t.clone() for t in tensors]
    for place, value in places.items():
        tensors[1][place], clean[1][place] = value, 0
    counter = torch.full((1,), 5, dtype=torch.int32, device=tensors[0].device)
    options = {"step": 3, "learning_rate": 0.01, "skip_zero": skip_zero}
    with backend_override(backend):
        returned = adam_step_(*tensors, bad_count=counter, **options)
        adam_step_(*clean, **options)
    assert returned is counter and int(counter) == 5 + len(places)
    for found, true in zip(tensors, clean, strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found, true)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_copy_saturates(backend: str) -> None:
    tensors = make_state(8, backend, sparse=False)
    tensors[0][3] = 1e6
    half = tensors[0].half()
    with backend_override(backend):
        adam_step_(*tensors, step=1, learning_rate=0.01, half_copy=half)
    assert half.isfinite().all() and half[3] == 65504


@pytest.mark.parametrize("backend", BACKENDS)
def test_unaligned_views(backend: str) -> None:
    """A slice that starts in the middle of a vector takes the narrow path."""
    whole = make_state(70, backend)
    doubles = [t[1:].double() for t in whole]
    reference.adam_step_(*doubles, reference.AdamSettings(1, 0.01))
    edges = [t[0].clone() for t in whole]
    with backend_override(backend):
        adam_step_(*(t[1:] for t in whole), step=1, learning_rate=0.01)
    for found, true, edge in zip(whole, doubles, edges, strict=True):
        assert_close(found[1:], true)
        assert found[0] == edge


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("backend", BACKENDS)
def test_ema(backend: str, size: int) -> None:
    average, param, *_ = make_state(size, backend)
    true = 0.95 * average.double() + 0.05 * param.double()
    with backend_override(backend):
        ema_step_(average, param, 0.95)
    assert_close(average, true)


def test_many_small_steps_reach_the_minimum() -> None:
    target = torch.linspace(-1, 1, 40)
    param, first, second = torch.zeros(3, 40)
    for step in range(1, 400):
        adam_step_(param, 2 * (param - target), first, second, step=step, learning_rate=0.02)
    assert (param - target).abs().max() < 1e-2


def test_messages() -> None:
    a, b = torch.zeros(4), torch.zeros(3)
    with pytest.raises(InputError, match="grad"):
        adam_step_(a, b, a, a, step=1, learning_rate=0.1)
    with pytest.raises(InputError, match="step counts from 1"):
        adam_step_(a, a.clone(), a.clone(), a.clone(), step=0, learning_rate=0.1)
    with pytest.raises(InputError, match="half_copy"):
        adam_step_(a, a.clone(), a.clone(), a.clone(), step=1, learning_rate=0.1, half_copy=b)
    with pytest.raises(InputError, match="contiguous"):
        ema_step_(torch.zeros(4, 2).T, torch.zeros(2, 4), 0.5)
    with pytest.raises(InputError, match="decay"):
        ema_step_(a, a, 1.5)
