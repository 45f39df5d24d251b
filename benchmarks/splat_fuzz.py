"""Throws broken and absurd Gaussians and cameras at the splatting kernels: every case must end in a
finite picture with finite gradients, or in one InputError, and what cannot be seen must not change
a bit of the picture. Exits with 77 where there is no GPU and one was asked for.

    python benchmarks/splat_fuzz.py --count 1000
    compute-sanitizer --error-exitcode 9 python benchmarks/splat_fuzz.py --device cuda

Case `seed` is the same on every device. Few configurations, so that few kernels are compiled.
Letters: G Gaussians, E extra channels.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lumigraph.core import lenses
from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import requested_backend
from lumigraph.cuda.ops import SplatCamera, SplatImages, SplatOptions, render_gaussians

SKIPPED = 77
LEAVES = ("means", "rotations", "scales", "opacities", "harmonics")
BAD = (math.nan, math.inf, -math.inf)
HUGE = (1e5, -1e5, 1e18, -1e18, 3e38, -3e38, 1e-30, 0.0)


@dataclass(frozen=True)
class Configuration:
    """What decides which kernels are compiled."""

    model: CameraModel
    raw: bool
    bands: int
    """Stored; degree + 1."""
    degree: int
    extras: int
    depth: bool
    antialiased: bool
    probe: bool


CONFIGURATIONS = (
    Configuration(CameraModel.PINHOLE, True, 4, 3, 0, True, False, True),
    Configuration(CameraModel.OPENCV, True, 3, 1, 5, True, True, True),
    Configuration(CameraModel.FISHEYE, False, 1, 0, 0, False, True, False),
    Configuration(CameraModel.ORTHOGRAPHIC, False, 4, 2, 5, False, False, False),
)


@dataclass(frozen=True, eq=False)
class Case:
    """One scene; tensors on the CPU."""

    seed: int
    configuration: Configuration
    gaussians: dict[str, Tensor]
    broken: Tensor
    """(G,) bool: must not be seen."""
    pose: Tensor
    camera: dict[str, Any]
    background: Tensor | None


class Dice:
    """Random choices of one case."""

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def number(self, low: float = 0.0, high: float = 1.0) -> float:
        return low + (high - low) * float(torch.rand((), generator=self.generator))

    def whole(self, end: int) -> int:
        return int(torch.randint(end, (), generator=self.generator))

    def chance(self, share: float) -> bool:
        return self.number() < share

    def choice(self, options: tuple[Any, ...]) -> Any:
        return options[self.whole(len(options))]

    def magnitude(self, low: float, high: float) -> float:
        """A power of ten between two exponents."""
        return 10 ** self.number(low, high)

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def uniform(self, *shape: int) -> Tensor:
        return torch.rand(*shape, generator=self.generator)


def make_case(seed: int) -> Case:
    dice = Dice(seed)
    configuration = CONFIGURATIONS[seed % len(CONFIGURATIONS)]
    count = dice.choice((0, 1, 2, 7, 40, 40, 140))
    gaussians = _gaussians(dice, count, configuration)
    _break(dice, gaussians)
    width, height = (dice.choice((0, 1, 15, 16, 17, 33, 50)) for _ in range(2))
    if dice.chance(0.9):
        width, height = max(width, 9), max(height, 7)
    camera = _camera(dice, configuration.model, width, height)
    background = dice.uniform(3) if dice.chance(0.5) else None
    broken = _broken(gaussians, configuration)
    return Case(seed, configuration, gaussians, broken, _pose(dice), camera, background)


def _gaussians(dice: Dice, count: int, configuration: Configuration) -> dict[str, Tensor]:
    spread = dice.choice((0.5, 1.0, 3.0, 30.0))
    means = spread * dice.normal(count, 3) + torch.tensor([0.0, 0.0, dice.number(-1, 4)])
    log_scales = dice.normal(count, 3) * dice.choice((0.3, 1.5)) + dice.number(-4, 0)
    logits = 3 * dice.normal(count)
    found = {
        "means": means,
        "rotations": dice.normal(count, 4) * dice.magnitude(-3, 3),
        "scales": log_scales if configuration.raw else log_scales.exp(),
        "opacities": logits if configuration.raw else logits.sigmoid(),
        "harmonics": 0.5 * dice.normal(count, configuration.bands**2, 3),
    }
    if configuration.extras:
        found["extras"] = dice.normal(count, configuration.extras)
    return found


def _break(dice: Dice, gaussians: dict[str, Tensor]) -> None:
    """Spoils up to a third of the Gaussians."""
    count = len(gaussians["means"])
    if not count or dice.chance(0.2):
        return
    for _ in range(1 + dice.whole(1 + count // 3)):
        i, name = dice.whole(count), dice.choice(LEAVES)
        places = gaussians[name][i].view(-1)
        if name in ("means", "rotations") and dice.chance(0.2):
            places.zero_()  # often right at the camera; no rotation
        else:
            places[dice.whole(places.numel())] = dice.choice(dice.choice((BAD, HUGE)))


def _broken(gaussians: dict[str, Tensor], configuration: Configuration) -> Tensor:
    used = gaussians["harmonics"][:, : (configuration.degree + 1) ** 2].flatten(1)
    scales, opacities = gaussians["scales"], gaussians["opacities"][:, None]
    if configuration.raw:
        scales, opacities = scales.exp(), opacities.sigmoid()
    rows = torch.cat([gaussians["means"], gaussians["rotations"], scales, opacities, used], dim=1)
    return ~rows.isfinite().all(1) | (gaussians["rotations"] == 0).all(1)


def _pose(dice: Dice) -> Tensor:
    turn = torch.linalg.qr(dice.normal(3, 3))[0] if dice.chance(0.3) else torch.eye(3)
    shift = torch.zeros(3, 1) if dice.chance(0.7) else dice.normal(3, 1)
    pose = torch.cat([turn, shift], dim=1)
    if dice.chance(0.04):
        pose.view(-1)[dice.whole(12)] = dice.choice((*BAD, 1e30))
    return pose


def _camera(dice: Dice, model: CameraModel, width: int, height: int) -> dict[str, Any]:
    usual = max(width, height, 1) * dice.number(0.3, 2)
    if model == CameraModel.ORTHOGRAPHIC:
        usual /= 4
    fx, fy = (usual if dice.chance(0.9) else dice.magnitude(-40, 40) for _ in range(2))
    cx, cy = (
        side / 2 if dice.chance(0.8) else dice.choice((-1, 1)) * dice.magnitude(-3, 12)
        for side in (width, height)
    )
    lens = (0.1, -0.05, 0.01, 0.005, 0.02, 0.0, 0.0, 0.0)
    if model == CameraModel.FISHEYE:
        lens = (0.05, -0.01, 0.002, 0.0, 0.0, 0.0, 0.0, 0.0)
    if dice.chance(0.15):
        lens = tuple(
            dice.choice((-1, 0, 1)) * dice.magnitude(-2, dice.choice((1, 35))) for _ in range(8)
        )
    limits = lenses.fisheye_limits if model == CameraModel.FISHEYE else lenses.opencv_limits
    limit = float(limits(torch.tensor([lens], dtype=torch.float64)))
    if dice.chance(0.1):
        limit = dice.choice((0.0, -1.0, 1e-20, 1e30, math.nan))
    return {
        "intrinsics": (fx, fy, cx, cy),
        "width": width,
        "height": height,
        "model": model,
        "distortion": lens,
        "limit": limit,
        "near": 0.01 if dice.chance(0.8) else dice.choice((0.0, 1e-20, 1e-3, 2.0, 1e30)),
        "low_pass": 0.3 if dice.chance(0.8) else dice.choice((0.0, 1e-12, 1.0, 1e6, 1e30)),
    }


def run_case(case: Case, device: torch.device) -> str:
    """Renders, checks and says "picture" or "refused".

    Raises:
        AssertionError: names what is wrong.
    """
    leaves = {
        name: tensor.to(device, copy=True).requires_grad_()
        for name, tensor in case.gaussians.items()
    }
    leaves["pose"] = case.pose.to(device, copy=True).requires_grad_()
    if case.background is not None:
        leaves["background"] = case.background.to(device, copy=True).requires_grad_()
    if case.configuration.probe:
        leaves["screen_probe"] = torch.zeros(len(leaves["means"]), 2, device=device)
        leaves["screen_probe"].requires_grad_()
    try:
        images = _render(case, leaves)
    except InputError as error:
        assert "\n" not in str(error), "an error of more than one line"
        return "refused"
    _check_finite(vars_of(images))
    opacity = images.opacity.detach()
    assert bool(((opacity >= 0) & (opacity <= 1)).all()), "opacity is not in [0, 1]"
    seen = images.splats.detach()[:, 5] > 0
    assert not bool((seen.cpu() & case.broken).any()), "a broken Gaussian is seen"
    loss = sum(
        (image * torch.linspace(-1, 1, image.numel(), device=device).reshape(image.shape)).sum()
        for name, image in vars_of(images).items()
        if name not in ("splats", "median_depth")
    )
    assert isinstance(loss, Tensor)
    loss.backward()
    _check_finite({f"gradient by {n}": t.grad for n, t in leaves.items() if t.grad is not None})
    missing = [n for n, t in leaves.items() if t.grad is None]
    assert not missing, f"no gradient by {missing}"
    _check_without(case, leaves, seen, images)
    return "picture"


def vars_of(images: SplatImages) -> dict[str, Tensor]:
    return {name: image for name, image in images._asdict().items() if image is not None}


def _render(case: Case, leaves: dict[str, Tensor]) -> SplatImages:
    chosen = case.configuration
    camera = SplatCamera(leaves["pose"], **case.camera)
    options = SplatOptions(
        raw=chosen.raw, antialiased=chosen.antialiased, degree=chosen.degree, depth=chosen.depth
    )
    return render_gaussians(
        *(leaves[name] for name in LEAVES), camera, options,
        background=leaves.get("background"), extras=leaves.get("extras"),
        screen_probe=leaves.get("screen_probe"),
    )  # fmt: skip


def _check_finite(tensors: dict[str, Tensor]) -> None:
    for name, tensor in tensors.items():
        assert bool(tensor.isfinite().all()), f"{name} is not finite"


def _check_without(
    case: Case, leaves: dict[str, Tensor], seen: Tensor, images: SplatImages
) -> None:
    """What is not seen leaves no trace: the picture without it is the same, bit by bit. Only the
    torch twins may round their sums another way."""
    bound = 1e-4 if requested_backend() == "torch" else 0.0
    shared = ("pose", "background")
    kept = {n: t if n in shared else t[seen] for n, t in leaves.items()}
    with torch.no_grad():
        alone = _render(case, {n: t.detach() for n, t in kept.items()})
    for name, image in vars_of(images).items():
        if name != "splats":
            other = vars_of(alone)[name]
            same = torch.allclose(image, other, rtol=bound, atol=bound)
            assert same, f"{name} feels what is not seen"


def run(
    count: int, device: torch.device | str = "cpu", *, first: int = 0
) -> tuple[Counter[str], list[str]]:
    """Outcomes of `count` cases from seed `first` on, and a line for each one that is wrong."""
    outcomes: Counter[str] = Counter()
    wrong = []
    for seed in range(first, first + count):
        try:
            outcomes[run_case(make_case(seed), torch.device(device))] += 1
        except Exception as error:  # the rest must run, too
            name = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            wrong.append(f"case {seed}: {name}{' '.join(str(error).split())[:200]}")
    return outcomes, wrong


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="seed of the first case")
    options = parser.parse_args()
    if options.device.startswith("cuda") and not torch.cuda.is_available():
        print("splat fuzz: no GPU here, skipped")
        return SKIPPED
    begin = time.perf_counter()
    outcomes, wrong = run(options.count, options.device, first=options.first)
    print("\n".join(wrong[:40]))
    seconds = time.perf_counter() - begin
    print(f"{dict(outcomes)}, {len(wrong)} wrong, {seconds:.1f} s")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
