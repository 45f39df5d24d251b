"""Adam over rows: kernels against the float64 twin, the twin against torch.optim.Adam.

Bounds as in test_optimizer.py.
"""

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.optimizer_rows import adam_rows_
from lumigraph.cuda.reference import optimizer as reference

BACKENDS = ["torch", "cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
# rows of one Gaussian: means, rotations, logits, harmonics of degree 0 to 3; and odd ones
SHAPES = [
    *[(0,), (1,), (1026,), (0, 3), (5, 0), (1, 3), (1025, 3), (515, 4), (600, 1, 3)],
    *[(33, 4, 3), (21, 9, 3), (101, 16, 3), (7, 131)],
]


def make_state(shape: tuple[int, ...], backend: str) -> tuple[list[Tensor], Tensor]:
    """param, grad, moments; and which rows are visible, with long runs of either."""
    generator = torch.Generator().manual_seed(sum(shape))
    param, grad, first = torch.randn(3, *shape, generator=generator)
    second = torch.rand(shape, generator=generator)
    rows = shape[0]
    runs = torch.rand(rows // 32 + 1, generator=generator).repeat_interleave(32)[:rows]
    visible = torch.where(runs < 0.6, runs < 0.3, torch.rand(rows, generator=generator) < 0.5)
    device = "cuda" if backend == "cuda" else "cpu"
    return [t.clone().to(device) for t in (param, grad, first, second)], visible.to(device)


def assert_close(found: Tensor, true: Tensor) -> None:
    torch.testing.assert_close(found.double(), true.double(), rtol=1e-5, atol=2e-6)


def test_twin_is_adam_with_two_groups() -> None:
    torch.manual_seed(0)
    param = torch.randn(20, 5, dtype=torch.float64)
    head, tail = param[:, :2].clone().requires_grad_(), param[:, 2:].clone().requires_grad_()
    groups = [{"params": [head], "lr": 0.1}, {"params": [tail], "lr": 0.01}]
    theirs = torch.optim.Adam(groups, betas=(0.9, 0.999), eps=1e-12)
    first, second = torch.zeros_like(param), torch.zeros_like(param)
    for step in range(1, 6):
        grad = torch.randn(20, 5, dtype=torch.float64)
        head.grad, tail.grad = grad[:, :2].clone(), grad[:, 2:].clone()
        theirs.step()
        settings = reference.AdamSettings(step, 0.1, 0.9, 0.999, 1e-12, skip_zero=False)
        reference.adam_rows_(param, grad, first, second, settings, head=2, tail_learning_rate=0.01)
        assert not grad.any()
    torch.testing.assert_close(param, torch.cat([head, tail], dim=1).detach())


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_rows(backend: str, shape: tuple[int, ...], hidden: bool) -> None:
    tensors, visible = make_state(shape, backend)
    numbers = tensors[0][:1].numel() if shape[0] else 1
    head = min(3, numbers - 1) if numbers > 1 else None
    doubles, before = [t.double() for t in tensors], [t.clone() for t in tensors]
    settings = reference.AdamSettings(7, 0.01, 0.9, 0.999, skip_zero=False, zero_grad=False)
    mask, tail = visible if hidden else None, 0.002 if head is not None else None
    reference.adam_rows_(
        *doubles,
        settings,
        head=numbers if head is None else head,
        tail_learning_rate=0.002,
        visible=mask,
    )
    with backend_override(backend):
        bad = adam_rows_(
            *tensors, step=7, learning_rate=0.01, tail_learning_rate=tail, head=head, visible=mask
        )
    assert int(bad) == 0 and torch.equal(tensors[1], before[1])
    for found, true, old in zip(tensors, doubles, before, strict=True):
        assert_close(found, true)
        if hidden:  # left alone to the last bit
            assert torch.equal(found[~visible], old[~visible])


@pytest.mark.parametrize("mask", ["bool", "uint8", "none", "all hidden"])
@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_cleared_everywhere(backend: str, mask: str) -> None:
    tensors, visible = make_state((203, 3), backend)
    if mask == "all hidden":
        visible = torch.zeros_like(visible)
    given = None if mask == "none" else visible.to(torch.uint8) * 7 if mask == "uint8" else visible
    doubles = [t.double() for t in tensors]
    settings = reference.AdamSettings(2, 0.01, 0.9, 0.999, skip_zero=False)
    reference.adam_rows_(*doubles, settings, head=3, tail_learning_rate=0.5, visible=given)
    with backend_override(backend):
        adam_rows_(*tensors, step=2, learning_rate=0.01, visible=given, zero_grad=True)
    for found, true in zip(tensors, doubles, strict=True):
        assert_close(found, true)
    assert not tensors[1].any()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_gradient_of_zero_moves(backend: str) -> None:
    tensors, _ = make_state((50, 3), backend)
    tensors[1].zero_()
    before = tensors[0].clone()
    with backend_override(backend):
        adam_rows_(*tensors, step=3, learning_rate=0.1)
    assert (tensors[0] != before).all()


@pytest.mark.parametrize("shape", [(101,), (67, 3), (9, 48)], ids=str)
@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_gradients_count_as_zero(backend: str, shape: tuple[int, ...]) -> None:
    tensors, visible = make_state(shape, backend)
    visible[:] = True
    visible[1] = False
    clean = [t.clone() for t in tensors]
    bad = [float("nan"), float("inf"), -float("inf"), 1e30]
    rows = [0, len(visible) - 1, 5, 3]
    for row, value in zip(rows, bad, strict=True):
        tensors[1][row], clean[1][row] = value, 0
    tensors[1][1] = float("nan")  # not looked at
    counter = torch.full((1,), 5, dtype=torch.int32, device=visible.device)
    with backend_override(backend):
        returned = adam_rows_(
            *tensors, step=3, learning_rate=0.01, visible=visible, bad_count=counter
        )
        adam_rows_(*clean, step=3, learning_rate=0.01, visible=visible)
    assert returned is counter and int(counter) == 5 + 4 * tensors[0][0].numel()
    for found, true in zip((tensors[0], *tensors[2:]), (clean[0], *clean[2:]), strict=True):
        assert found.isfinite().all()
        torch.testing.assert_close(found, true)


@pytest.mark.parametrize("backend", BACKENDS)
def test_unaligned_rows(backend: str) -> None:
    """A slice that starts in the middle of a vector takes the narrow path."""
    whole, visible = make_state((31, 3), backend)
    parts, mask = [t[1:] for t in whole], visible[1:].clone()
    doubles = [t.double() for t in parts]
    settings = reference.AdamSettings(1, 0.01, 0.9, 0.999, skip_zero=False, zero_grad=False)
    reference.adam_rows_(*doubles, settings, head=1, tail_learning_rate=0.1, visible=mask)
    edges = [t[0].clone() for t in whole]
    with backend_override(backend):
        options = {"learning_rate": 0.01, "tail_learning_rate": 0.1, "head": 1, "visible": mask}
        adam_rows_(*parts, step=1, **options)
    for found, true, tensor, edge in zip(parts, doubles, whole, edges, strict=True):
        assert_close(found, true)
        assert torch.equal(tensor[0], edge)


def test_messages() -> None:
    def state(*shape: int) -> list[Tensor]:
        return [torch.zeros(shape) for _ in range(4)]

    rates = {"step": 1, "learning_rate": 0.1}
    with pytest.raises(InputError, match=r"head must lie in \[0, 3\]"):
        adam_rows_(*state(4, 3), head=4, **rates)
    with pytest.raises(InputError, match="visible must have shape"):
        adam_rows_(*state(4, 3), visible=torch.ones(3, dtype=torch.bool), **rates)
    with pytest.raises(InputError, match="visible must be bool or uint8"):
        adam_rows_(*state(4, 3), visible=torch.ones(4), **rates)
    with pytest.raises(InputError, match="step counts from 1"):
        adam_rows_(*state(4, 3), step=0, learning_rate=0.1)
    with pytest.raises(InputError, match="grad must have shape"):
        adam_rows_(torch.zeros(4, 3), *state(4, 2)[:3], **rates)
    with pytest.raises(InputError, match="contiguous"):
        adam_rows_(torch.zeros(3, 4).T, *state(4, 3)[:3], **rates)
    with pytest.raises(InputError, match=r"param must have shape \(G, ...\)"):
        adam_rows_(*state(), **rates)
