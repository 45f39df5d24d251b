"""What runs where, and why not faster: builds the kernels and checks every operation against its
torch twin on small input."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from lumigraph.core.errors import BackendError

from .build import build_cpu_library, build_cubin, cpu_library, host_compiler, kernel_files
from .compositing import composite
from .dispatch import backend_for, backend_override
from .grid import GridLayout, grid_encode
from .harmonics import harmonics_encode
from .image_loss import image_loss
from .marching import MarchGrid, march_rays
from .mlp import mlp, mlp_weight_count
from .nvrtc import nvrtc_version
from .optimizer_rows import adam_rows_
from .perturb import perturb_means_
from .runtime import device_architecture
from .splatting import SplatCamera, SplatOptions, render_gaussians, render_gaussians4d
from .surface import SurfaceNetworks, surface_query

OK, SLOWER, FAILED = "ok", "slower", "failed"
TOLERANCE_CPU, TOLERANCE_GPU = 1e-4, 2e-2  # relative; a GPU computes networks in half precision
POINTS = 257


@dataclass(frozen=True)
class Row:
    """One line of the report."""

    name: str
    status: str
    """"ok", "slower" (works, and could be faster: `detail` says how) or "failed"."""
    detail: str


def report() -> list[Row]:
    """All checks, in the order in which they are worth reading. Takes seconds on first use."""
    rows = [
        Row("python", OK, f"{platform.python_version()}, torch {torch.__version__}"),
        _cpu_row(),
        _gpu_row(),
    ]
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        rows += _operation_rows(torch.device(device))
    return rows


def _cpu_row() -> Row:
    begin = time.perf_counter()
    try:
        build_cpu_library()
        cpu_library()
    except BackendError as error:
        return Row("cpu kernels", SLOWER, f"torch twins are used: {error}")
    seconds = time.perf_counter() - begin
    threads = torch.get_num_threads()
    built = "from the cache" if seconds < 1 else f"compiled in {seconds:.1f} s"
    compiler = os.path.basename(host_compiler())
    return Row("cpu kernels", OK, f"{built} with {compiler}, {threads} threads")


def _gpu_row() -> Row:
    if not torch.cuda.is_available():
        hint = "torch has no CUDA support" if torch.version.cuda is None else "none was found"
        return Row("gpu", SLOWER, f"no NVIDIA GPU in use ({hint}); everything runs on the CPU")
    try:
        major, minor = nvrtc_version()
        begin = time.perf_counter()
        for file in kernel_files():
            build_cubin(file, device_architecture(0))
    except BackendError as error:
        return Row("gpu", FAILED, str(error))
    seconds = time.perf_counter() - begin
    name = torch.cuda.get_device_name(0)
    detail = f"{name}, {device_architecture(0)}, NVRTC {major}.{minor}, kernels in {seconds:.2f} s"
    return Row("gpu", OK, detail)


def _operation_rows(device: torch.device) -> list[Row]:
    try:
        backend = backend_for(device)
    except BackendError as error:
        return [Row(f"operations on {device.type}", FAILED, str(error))]
    return [
        _check(f"{name} on {device.type}", run, device, backend) for name, run in CHECKS.items()
    ]


def _check(
    name: str, run: Callable[[torch.device], Tensor], device: torch.device, kind: str
) -> Row:
    begin = time.perf_counter()
    try:
        found = run(device).double()
        with backend_override("torch"):
            wanted = run(device).double()
    except Exception as error:  # a report says what is broken instead of breaking
        return Row(name, FAILED, f"{type(error).__name__}: {' '.join(str(error).split())[:160]}")
    seconds = time.perf_counter() - begin
    if found.shape != wanted.shape:
        return Row(name, FAILED, f"shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
    difference = float((found - wanted).norm() / wanted.norm().clamp_min(1e-12))
    tolerance = TOLERANCE_GPU if device.type == "cuda" else TOLERANCE_CPU
    status = OK if difference <= tolerance else FAILED
    if status == OK and kind == "torch":
        status = SLOWER
    return Row(name, status, f"{kind}, differs from torch by {difference:.1e}, {seconds:.2f} s")


def _random(*shape: int, device: torch.device) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(len(shape))).to(device)


def _gradients(value: Tensor, *leaves: Tensor) -> Tensor:
    found = torch.autograd.grad(value.float().square().sum(), leaves)
    return torch.cat([value.detach().float().flatten(), *[g.float().flatten() for g in found]])


def _grid(device: torch.device) -> Tensor:
    layout = GridLayout(levels=4, features=2, log2_table_size=10)
    table = _random(layout.entries, 2, device=device).requires_grad_()
    x = _random(POINTS, 3, device=device).requires_grad_()
    return _gradients(grid_encode(x, table, layout), table, x)


def _mlp(device: torch.device) -> Tensor:
    widths = (32, 64, 64, 16)
    weights = (_random(mlp_weight_count(widths), device=device) - 0.5).mul(0.3).requires_grad_()
    x = _random(POINTS, 32, device=device).requires_grad_()
    return _gradients(mlp(x, weights, widths), weights, x)


def _harmonics(device: torch.device) -> Tensor:
    directions = torch.nn.functional.normalize(_random(POINTS, 3, device=device) - 0.4, dim=1)
    directions.requires_grad_()
    return _gradients(harmonics_encode(directions), directions)


def _march(device: torch.device) -> Tensor:
    bits = torch.full((32**3 // 8,), 255, dtype=torch.uint8, device=device)
    coarse = torch.ones(4**3, dtype=torch.uint8, device=device)
    grid = MarchGrid(bits, coarse, 32, 1, 0.02, 0.02, 0.0)
    origins = _random(POINTS, 3, device=device) - torch.tensor([0.0, 0.0, 2.0], device=device)
    directions = torch.tensor([[0.0, 0.0, 1.0]], device=device).expand(POINTS, 3).contiguous()
    samples = march_rays(origins, directions, grid, jitter=None, max_samples=2**16)
    return torch.cat([samples.positions.flatten(), samples.ray_offsets.float().flatten()])


def _composite(device: torch.device) -> Tensor:
    rays, each = 16, 16
    count = rays * each
    density = _random(count, device=device).mul(5).requires_grad_()
    color = _random(count, 3, device=device).requires_grad_()
    steps = torch.full((count,), 0.05, device=device)
    distances = torch.arange(each, device=device).mul(0.05).repeat(rays)
    starts = torch.arange(rays, dtype=torch.int32, device=device) * each
    offsets = torch.stack([starts, torch.full_like(starts, each)], dim=1)
    result = composite(density, color, distances, steps, offsets)
    return _gradients(result.color, density, color)


def _image_loss(device: torch.device) -> Tensor:
    prediction = _random(37, 41, 3, device=device).requires_grad_()
    weight = _random(37, 41, device=device).sub(0.3).clamp_min(0)
    found = image_loss(prediction, _random(37, 41, 3, device=device).square(), weight=weight)
    (gradient,) = torch.autograd.grad(found.loss * POINTS, prediction)
    return torch.cat([torch.stack(found).detach(), gradient.flatten()])


def _adam_rows(device: torch.device) -> Tensor:
    state = [_random(POINTS, 48, device=device) + i for i in range(4)]
    adam_rows_(
        *state,
        step=3,
        learning_rate=0.01,
        tail_learning_rate=0.1,
        head=3,
        visible=_random(POINTS, device=device) < 0.5,
    )
    return torch.cat([state[0], state[2], state[3]])


def _perturb(device: torch.device) -> Tensor:
    means, noise = _random(POINTS, 3, device=device), _random(POINTS, 3, device=device)
    rotations, logits = _random(POINTS, 4, device=device), _random(POINTS, device=device) - 6
    perturb_means_(means, rotations, noise - 0.5, logits, noise, rate=0.5)
    return means


def _splatting(device: torch.device) -> Tensor:
    """A picture with depth, and gradients by the Gaussians and the pose."""
    pose = torch.eye(4, device=device)[:3].requires_grad_()
    camera = SplatCamera(pose, (40.0, 40.0, 25.0, 20.0), 50, 40)
    shift = torch.tensor([-0.5, -0.5, 1.5], device=device)
    means = (_random(POINTS, 3, device=device) + shift).requires_grad_()
    rotations = (_random(POINTS, 4, device=device) + 0.1).requires_grad_()
    scales = (_random(POINTS, 3, device=device) - 3.5).requires_grad_()
    opacities = (4 * _random(POINTS, device=device) - 2).requires_grad_()
    harmonics = (_random(POINTS, 16, 3, device=device) - 0.4).requires_grad_()
    options = SplatOptions(depth=True)
    images = render_gaussians(means, rotations, scales, opacities, harmonics, camera, options)
    assert images.depth is not None
    picture = torch.cat([images.color, images.depth[..., None], images.opacity[..., None]], dim=2)
    return _gradients(picture, means, rotations, scales, opacities, harmonics, pose)


def _splatting4d(device: torch.device) -> Tensor:
    """A picture of one moment, and gradients by the Gaussians in space and time."""
    camera = SplatCamera(torch.eye(4, device=device)[:3], (40.0, 40.0, 25.0, 20.0), 50, 40)
    shift = torch.tensor([-0.5, -0.5, 1.5], device=device)
    leaves = [
        _random(POINTS, 3, device=device) + shift,
        _random(POINTS, device=device),
        _random(POINTS, 8, device=device) + torch.eye(8, device=device)[0],
        _random(POINTS, 4, device=device) - 3.0,
        4 * _random(POINTS, device=device) - 1,
        _random(POINTS, 16, 3, device=device) - 0.4,
    ]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    means, times, rotors, log_scales, opacity_logits, harmonics = leaves
    images = render_gaussians4d(
        means, times, rotors, log_scales, opacity_logits, harmonics, 0.4, camera
    )
    return _gradients(images.color, *leaves)


def _surface(device: torch.device) -> Tensor:
    """A loss on distances and normals."""
    layout = GridLayout(levels=4, log2_table_size=10)
    table = (_random(layout.entries, 2, device=device) - 0.5).requires_grad_()
    count = (3 + layout.output_width) * 32 + 32 * 16
    weights = (_random(count, device=device) - 0.5).requires_grad_()
    networks = SurfaceNetworks(layout, table, weights, hidden_width=32, activation="softplus")
    x = _random(POINTS, 3, device=device).requires_grad_()
    samples = surface_query(networks, x)
    return _gradients(torch.cat([samples.feature, samples.gradient], 1), table, weights, x)


CHECKS: dict[str, Callable[[torch.device], Tensor]] = {
    "grid encoding": _grid,
    "network": _mlp,
    "harmonics": _harmonics,
    "surface": _surface,
    "ray marching": _march,
    "compositing": _composite,
    "splatting": _splatting,
    "splatting in space and time": _splatting4d,
    "image loss": _image_loss,
    "Adam over rows": _adam_rows,
    "noise on means": _perturb,
}
