"""Scenes for the splatting tests, an oracle that knows only `lumigraph.core`, and how numbers are
compared.

The oracle looks at a Gaussian through `Cameras.project`: its affine map is the derivative of that
function, its sigma points go through it. It blends every splat at every pixel, without tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.harmonics import spherical_harmonics
from lumigraph.core.rotors import rotor_from_quaternion
from lumigraph.core.transforms import look_at, rotation_from_quaternion
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.ops import SplatCamera

NAMES = ("means", "rotations", "scales", "opacities", "harmonics")
LENSES = {
    CameraModel.OPENCV: (0.1, -0.05, 0.01, 0.005, 0.02, 0.03, -0.01, 0.004),
    CameraModel.FISHEYE: (0.05, -0.01, 0.002, 0.001, 0.0, 0.0, 0.0, 0.0),
}
NO_LENS = (0.0,) * 8


@pytest.fixture(autouse=True)
def chosen_backend(request: pytest.FixtureRequest) -> Iterator[None]:
    """Runs a test that takes `backend` with that one."""
    if "backend" not in request.fixturenames:
        yield
        return
    with backend_override(request.getfixturevalue("backend")):
        yield


@dataclass(frozen=True)
class SplatScene:
    """Gaussians and one camera; float64 numbers that float32 can hold."""

    tensors: dict[str, Tensor]
    """`NAMES`, perhaps extras and background."""
    cameras: Cameras
    """One camera, float64."""
    raw: bool

    def on(self, backend: str, *, rounded: bool = True) -> tuple[dict[str, Tensor], SplatCamera]:
        """Leaves in the precision of a backend, and its camera; "exact" is the float64 twin, with
        the pose that float32 has unless `rounded` is False."""
        dtype = torch.float64 if backend == "exact" else torch.float32
        device = "cuda" if backend == "cuda" else "cpu"
        leaves = {
            name: tensor.to(device, dtype, copy=True).requires_grad_()
            for name, tensor in self.tensors.items()
        }
        pose = torch.linalg.inv(self.cameras.camera_to_world[0])[:3]
        pose = pose.float().double() if rounded else pose
        leaves["pose"] = pose.to(device, dtype, copy=True).requires_grad_()
        return leaves, self.camera(leaves["pose"])

    def camera(self, pose: Tensor) -> SplatCamera:
        known = SplatCamera.from_cameras(self.cameras.to(dtype=torch.float32))
        return replace(known, world_to_camera=pose)

    @property
    def activated(self) -> dict[str, Tensor]:
        found = dict(self.tensors)
        if self.raw:
            found["scales"] = found["scales"].exp()
            found["opacities"] = found["opacities"].sigmoid()
        return found

    def select(self, index: Tensor) -> SplatScene:
        kept = {n: t if n == "background" else t[index] for n, t in self.tensors.items()}
        return replace(self, tensors=kept)


def random_scene(
    count: int = 70,
    *,
    model: CameraModel = CameraModel.PINHOLE,
    size: tuple[int, int] = (37, 29),
    bands: int = 4,
    extras: int | None = None,
    background: bool = False,
    raw: bool = True,
    seed: int = 0,
) -> SplatScene:
    """A cloud before a camera that looks at it from the side; some of it lies outside the image and
    behind the camera. Flat and long Gaussians, faint and opaque ones."""
    generator = torch.Generator().manual_seed(1000 * seed + count + bands)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    uniform = lambda *shape: torch.rand(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    tensors = {
        "means": normal(count, 3) * torch.tensor([0.9, 0.8, 1.2]),
        "rotations": normal(count, 4) * (0.2 + 3 * uniform(count, 1)),
        "scales": -2.2 + 0.7 * normal(count, 3),
        "opacities": 2 * normal(count) + 0.5,
        "harmonics": 0.3 * normal(count, bands**2, 3),
    }
    if not raw:
        tensors["scales"] = tensors["scales"].exp()
        tensors["opacities"] = tensors["opacities"].sigmoid()
    if extras is not None:
        tensors["extras"] = normal(count, extras)
    if background:
        tensors["background"] = uniform(3)
    tensors = {name: tensor.float().double() for name, tensor in tensors.items()}
    return SplatScene(tensors, side_camera(model, size), raw)


def random_moving_scene(count: int = 70, *, plateaus: bool = False, **options: Any) -> SplatScene:
    """The same in space and time: turned into each other, alive for long and for short, some
    long before or after what is shown, and some that stand still."""
    scene = random_scene(count, **options)
    generator = torch.Generator().manual_seed(77 + count)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731
    found = scene.tensors
    rotors = rotor_from_quaternion(found.pop("rotations")) + 0.5 * normal(count, 8)
    rotors[::7, 4:] = 0
    in_time = -2.0 + 0.8 * normal(count, 1)
    in_time[::7] = 6.0
    moving = {
        "means": found.pop("means"),
        "times": 0.4 + 0.35 * normal(count),
        "rotors": rotors * (0.2 + 3 * torch.rand(count, 1, generator=generator)),
        "log_scales": torch.cat([found.pop("scales"), in_time], dim=1),
        "opacity_logits": found.pop("opacities") + 1,
        "harmonics": found.pop("harmonics"),
    }
    if plateaus:
        moving["log_plateaus"] = -2 + 0.5 * normal(count)
    tensors = {name: tensor.float().double() for name, tensor in (moving | found).items()}
    return replace(scene, tensors=tensors)


def side_camera(model: CameraModel, size: tuple[int, int]) -> Cameras:
    width, height = size
    focal = 0.9 * max(size)
    if model == CameraModel.ORTHOGRAPHIC:
        focal /= 3
    position = torch.tensor([0.9, -0.7, -2.4], dtype=torch.float64)
    target = torch.tensor([0.1, 0.0, 0.2], dtype=torch.float64)
    cameras = Cameras.from_intrinsics(
        look_at(position, target, up=(0.1, -1.0, 0.0)), width, height, focal, 1.1 * focal,
        width / 2 + 1.3, height / 2 - 0.8, model=model, distortion=LENSES.get(model, NO_LENS),
    )  # fmt: skip
    rounded = cameras.to(dtype=torch.float32).to(dtype=torch.float64)
    return replace(rounded, camera_to_world=cameras.camera_to_world)


# ---- the oracle: core only


def seven_points(scene: SplatScene) -> tuple[Tensor, Tensor]:
    """Means (G, 3) and axes (G, 3, 3): columns R_j s_j."""
    found = scene.activated
    turn = rotation_from_quaternion(found["rotations"])
    return found["means"], turn * found["scales"][:, None, :]


def oracle_covariance(scene: SplatScene) -> tuple[Tensor, Tensor]:
    """Screen positions (G, 2) and covariances (G, 2, 2) without the low-pass."""
    means, axes = seven_points(scene)
    see = lambda points: scene.cameras.project(points, 0)[0]  # noqa: E731
    if int(scene.cameras.models[0]) in (CameraModel.PINHOLE, CameraModel.ORTHOGRAPHIC):
        points = means.clone().requires_grad_()
        pixels = see(points)
        rows = [
            torch.autograd.grad(pixels[:, i].sum(), points, retain_graph=True)[0] for i in (0, 1)
        ]
        half = torch.stack(rows, dim=1) @ axes
        return pixels.detach(), half @ half.transpose(1, 2)
    step = 3**0.5 * axes.transpose(1, 2)  # (G, 3, 3): one row an axis
    around = torch.cat([means[:, None] + step, means[:, None] - step], dim=1)
    images = see(around.reshape(-1, 3)).reshape(-1, 6, 2)
    screen = images.mean(1)
    off, first = images - screen[:, None], see(means) - screen
    covariance = torch.einsum("gni,gnj->gij", off, off) / 6
    return screen, covariance + 2 * first[:, :, None] * first[:, None, :]


def oracle_colors(scene: SplatScene, degree: int) -> Tensor:
    """(G, 3) from the harmonics of core."""
    cameras, rows = scene.cameras, (degree + 1) ** 2
    if int(cameras.models[0]) == CameraModel.ORTHOGRAPHIC:
        direction = cameras.forwards.expand(len(scene.tensors["means"]), 3)
    else:
        direction = scene.tensors["means"] - cameras.positions
    basis = spherical_harmonics(direction / direction.norm(dim=1, keepdim=True), degree + 1)
    color = 0.5 + torch.einsum("gk,gkc->gc", basis, scene.tensors["harmonics"][:, :rows])
    return color.clamp_min(0)


def oracle_depths(scene: SplatScene) -> Tensor:
    """(G,) along the axis, or the distance for a fisheye."""
    if int(scene.cameras.models[0]) == CameraModel.FISHEYE:
        return (scene.tensors["means"] - scene.cameras.positions).norm(dim=1)
    return scene.cameras.project(scene.tensors["means"], 0)[1]


class Pixels(NamedTuple):
    """What dense blending finds; P pixels row by row, D values a splat."""

    values: Tensor
    """(P, D)."""
    transmittance: Tensor
    """(P,)."""
    median: Tensor
    """(P,) depth of what takes the transmittance below one half, else 0."""
    sure: Tensor
    """(P,) bool: no threshold is so near that two right answers exist."""


def dense_blend(
    rows: Tensor, depths: Tensor, values: Tensor, size: tuple[int, int], *, band: float = 1e-4
) -> Pixels:
    """Every splat at every pixel, near to far.

    `rows` are x y a b c opacity of splats (G, 6), or of splats and pixels (G, P, 6), whose gradient
    then tells pixels apart. Splats of infinite depth are left out.
    """
    width, height = size
    x = (torch.arange(width).to(rows) + 0.5).repeat(height)
    y = (torch.arange(height).to(rows) + 0.5).repeat_interleave(width)
    left, total = torch.ones_like(x), values.new_zeros(len(x), values.shape[1])
    running, sure = torch.ones_like(x, dtype=torch.bool), torch.ones_like(x, dtype=torch.bool)
    median = torch.zeros_like(x)
    for i in torch.sort(depths, stable=True)[1].tolist():
        if not bool(depths[i] < torch.inf):
            break
        u, v, a, b, c, opacity = rows[i].unbind(-1)
        dx, dy = u - x, v - y
        alpha = opacity * torch.exp(-(a * dx * dx + c * dy * dy) / 2 - b * dx * dy)
        alpha = alpha.clamp(max=0.999)
        sure &= ~running | ((255 * alpha - 1).abs() > band)
        alpha = torch.where(alpha >= 1 / 255, alpha, torch.zeros_like(alpha))
        after = left * (1 - alpha)
        sure &= ~running | ((1e4 * after - 1).abs() > 10 * band)
        sure &= ~running | ((2 * after - 1).abs() > band)
        running = running & ((after > 1e-4) | (alpha == 0))
        alpha = torch.where(running, alpha, torch.zeros_like(alpha))
        total = total + (left * alpha)[:, None] * values[i]
        after = left * (1 - alpha)
        median = torch.where((left > 0.5) & (after <= 0.5), depths[i], median)
        left = after
    return Pixels(total, left, median, sure)


# ---- comparing


def gap(ours: Tensor, right: Tensor) -> tuple[float, float, float]:
    """Of two vectors: relative L2 distance, 1 - cosine of their angle, and the mean difference over
    the mean size."""
    ours, right = ours.detach().double().cpu().flatten(), right.detach().double().cpu().flatten()
    if not right.numel():
        return 0.0, 0.0, 0.0
    size = float(right.norm().clamp_min(1e-30))
    off = ours - right
    cosine = float(ours @ right) / (size * max(float(ours.norm()), 1e-30)) if size > 1e-29 else 1.0
    bias = float(off.sum().abs() / right.abs().sum().clamp_min(1e-30))
    return float(off.norm()) / size, 1 - cosine, bias


def assert_near(ours: Tensor | None, right: Tensor | None, bound: float, name: str = "") -> None:
    """Equal as vectors: distance below `bound`, no systematic part of it above a third."""
    assert ours is not None and right is not None, name
    assert ours.shape == right.shape, name
    assert bool(ours.isfinite().all()), f"{name} is not finite"
    distance, turn, bias = gap(ours, right)
    worst = f"{name}: distance {distance:.1e}, angle {turn:.1e}, bias {bias:.1e}"
    assert distance <= bound and turn <= bound**2 + 1e-12 and bias <= bound, worst


@pytest.fixture(scope="session")
def scenes() -> Any:
    """`scenes.random(...)`, `scenes.moving(...)` and `scenes.camera(model, size)`."""
    return SimpleNamespace(
        random=random_scene, moving=random_moving_scene, camera=side_camera, Scene=SplatScene
    )


@pytest.fixture(scope="session")
def oracle() -> Any:
    return SimpleNamespace(
        covariance=oracle_covariance, colors=oracle_colors, depths=oracle_depths,
        blend=dense_blend, points=seven_points,
    )  # fmt: skip


@pytest.fixture(scope="session")
def near() -> Any:
    """`near(ours, right, bound, name)`."""
    return assert_near
