"""Noise on means: kernels against the float64 twin, the twin against the covariance.

Bound 2e-5 relative: the gate's slope turns rounding of the opacity into 1e-5 of the gate.
"""

import math

import pytest
import torch
from torch import Tensor

from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.perturb import perturb_means_
from lumigraph.cuda.reference import perturb as reference

BACKENDS = ["torch", "cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make_gaussians(count: int, backend: str) -> list[Tensor]:
    """means, rotations of any length, log scales, logits around the gate, noise."""
    generator = torch.Generator().manual_seed(count)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rotations = normal(count, 4) * torch.exp(3 * normal(count, 1))
    logits = math.log(0.005) + normal(count)
    device = "cuda" if backend == "cuda" else "cpu"
    tensors = (normal(count, 3), rotations, normal(count, 3), logits, normal(count, 3))
    return [t.to(device) for t in tensors]


@pytest.mark.parametrize("count", [0, 1, 255, 256, 1003])
@pytest.mark.parametrize("backend", BACKENDS)
def test_against_the_twin(backend: str, count: int) -> None:
    tensors = make_gaussians(count, backend)
    true = reference.perturb_means(*[t.double() for t in tensors], rate=0.3)
    before = [t.clone() for t in tensors]
    with backend_override(backend):
        assert perturb_means_(*tensors, rate=0.3) is None
    scale = (true - before[0]).norm(dim=1, keepdim=True) + before[0].abs() + 1e-3
    assert not count or float(((tensors[0] - true) / scale).abs().max()) < 2e-5
    for found, old in zip(tensors[1:], before[1:], strict=True):
        assert torch.equal(found, old)


def test_twin_moves_by_the_covariance() -> None:
    """Sigma times noise, by a rotation matrix made another way, and the gate's values."""
    means, rotations, log_scales, _, noise = [t.double() for t in make_gaussians(40, "torch")]
    logit = torch.full((40,), math.log(0.005 / 0.995), dtype=torch.float64)  # the gate is half open
    moved = reference.perturb_means(means, rotations, log_scales, logit, noise, rate=2.0) - means
    w, *axis = (rotations / rotations.norm(dim=1, keepdim=True)).unbind(1)
    vector = torch.stack(axis, dim=1)
    for i in range(40):
        columns = []
        for unit in torch.eye(3, dtype=torch.float64):  # q v q* with cross products
            turn = 2 * torch.linalg.cross(vector[i], unit)
            columns.append(unit + w[i] * turn + torch.linalg.cross(vector[i], turn))
        matrix = torch.stack(columns, dim=1)
        covariance = matrix @ torch.diag(torch.exp(2 * log_scales[i])) @ matrix.T
        torch.testing.assert_close(moved[i], covariance @ noise[i])


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_seen_stays(backend: str) -> None:
    tensors = make_gaussians(50, backend)
    tensors[3][:25], tensors[3][25:] = 2.0, -30.0
    before = tensors[0].clone()
    with backend_override(backend):
        perturb_means_(*tensors, rate=1.0)
    assert torch.equal(tensors[0][:25], before[:25])
    assert (tensors[0][25:] != before[25:]).any(dim=1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_broken_gaussians_stay(backend: str) -> None:
    nan, inf = float("nan"), float("inf")
    tensors = make_gaussians(9, backend)
    tensors[3][:] = -20.0
    before = tensors[0].clone()
    tensors[1][0] = 0.0
    tensors[1][1, 2] = nan
    tensors[2][2, 0] = 80.0
    tensors[2][3, 1] = nan
    tensors[3][4] = nan
    tensors[4][5, 0] = inf
    tensors[3][6] = inf  # fully opaque: no move
    tensors[1][7] *= 1e25  # any length serves
    tensors[3][8] = -inf
    with backend_override(backend):
        perturb_means_(*tensors, rate=0.5)
    assert torch.equal(tensors[0][:7], before[:7])
    assert tensors[0].isfinite().all() and (tensors[0][7:] != before[7:]).any(dim=1).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_unaligned_and_strided_inputs(backend: str) -> None:
    tensors = make_gaussians(20, backend)
    true = reference.perturb_means(*[t.double() for t in tensors], rate=0.3)
    store = torch.zeros(20 * 4 + 1, device=tensors[0].device)
    store[1:] = tensors[1].flatten()
    tensors[1] = store[1:].view(20, 4)
    tensors[4] = tensors[4].T.contiguous().T
    with backend_override(backend):
        perturb_means_(*tensors, rate=0.3)
    torch.testing.assert_close(tensors[0].double(), true, rtol=1e-4, atol=1e-4)


def test_parameters_move_in_place() -> None:
    tensors = make_gaussians(4, "cpu")
    parameter = torch.nn.Parameter(tensors[0].clone())
    perturb_means_(parameter, *tensors[1:], rate=0.3)
    assert not torch.equal(parameter.detach(), tensors[0]) and parameter.grad is None


def test_messages() -> None:
    tensors = make_gaussians(4, "cpu")
    with pytest.raises(InputError, match="rate must be finite"):
        perturb_means_(*tensors, rate=float("nan"))
    with pytest.raises(InputError, match="noise must have shape"):
        perturb_means_(*tensors[:4], torch.zeros(3, 3), rate=1.0)
    with pytest.raises(InputError, match="contiguous"):
        perturb_means_(torch.zeros(3, 4).T, *tensors[1:], rate=1.0)
