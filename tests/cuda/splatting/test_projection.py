"""Projection of Gaussians: kernels against the float64 twin, the twin against mathematics."""

import doctest
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lumigraph.core.cameras import CameraModel, Cameras
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import se3_exp
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.ops import SplatCamera, project_gaussians
from lumigraph.cuda.splatting import camera as camera_module
from lumigraph.cuda.splatting import projection as projection_module

BACKENDS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
NAMES = ("means", "rotations", "scales", "opacities", "harmonics")
PINHOLE, OPENCV = CameraModel.PINHOLE, CameraModel.OPENCV
FISHEYE, ORTHOGRAPHIC = CameraModel.FISHEYE, CameraModel.ORTHOGRAPHIC
MODELS = [PINHOLE, OPENCV, FISHEYE, ORTHOGRAPHIC]
# model, raw, bands stored, degree, antialiased
CASES = [
    (PINHOLE, True, 4, 3, False),
    (PINHOLE, False, 4, 1, True),
    (OPENCV, True, 3, 1, True),
    (OPENCV, False, 2, 1, False),
    (FISHEYE, False, 1, 0, True),
    (FISHEYE, True, 4, 2, False),
    (ORTHOGRAPHIC, False, 4, 2, False),
    (ORTHOGRAPHIC, True, 3, 2, True),
]
BOUNDS = {"cpu": 2e-5, "emu": 2e-5, "cuda": 2e-4}  # a GPU's exp, log and division are quick ones


def project(scene, backend, options, *, rounded=True):
    leaves, camera = scene.on(backend, rounded=rounded)
    raw, degree, antialiased = options
    splats, depths = project_gaussians(
        *(leaves[n] for n in NAMES), camera, raw=raw, antialiased=antialiased, degree=degree
    )
    return leaves, splats, depths


def decided(scene, splats: Tensor) -> Tensor:
    """(G,) bool: seen, and not at the edge of being seen, nor of a color that ends at black."""
    width, height = scene.cameras.size(0)
    half = torch.where(splats[:, 11:] < 0, splats[:, 10:].flip(1).abs(), splats[:, 10:])
    ends = torch.cat(
        [splats[:, :2] + half, torch.tensor([width, height]) - splats[:, :2] + half], 1
    )
    faint = (255 * splats[:, 5] - 1).abs() < 1e-3
    dark = ((splats[:, 6:9] > 0) & (splats[:, 6:9] < 1e-5)).any(1)
    return (splats[:, 5] > 0) & ~faint & ~dark & (ends > 1e-3).all(1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].name}-{case[1:]}")
def test_matches_float64(scenes, near, case, backend: str) -> None:
    model, raw, bands, *options = case
    scene = scenes.random(131, model=model, bands=bands, raw=raw)
    right, splats, depths = project(scene, "exact", (raw, *options))
    ours, our_splats, our_depths = project(scene, backend, (raw, *options))
    sure = decided(scene, splats.detach())
    assert 40 < int(sure.sum()) < 131
    bound = BOUNDS[backend]
    for j in range(12):
        near(our_splats[:, j].cpu() * sure, splats[:, j] * sure, bound, f"column {j}")
    hidden = depths.isinf()
    assert torch.equal(our_depths.isinf().cpu() & ~sure, hidden & ~sure)
    near(our_depths.cpu()[sure], depths[sure], bound, "depths")
    along = torch.randn(131, 12, generator=torch.Generator().manual_seed(3)) * sure[:, None]
    # inverse covariances are large where splats are small; weigh them alike
    along = along / (1 + splats.detach().abs())
    (splats * along).sum().backward()
    (our_splats * along.to(our_splats)).sum().backward()
    for name in (*NAMES, "pose"):
        near(ours[name].grad, right[name].grad, 10 * bound, f"gradient by {name}")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_twin_is_what_the_oracle_sees(scenes, oracle, near, model) -> None:
    """Affine maps are derivatives of `Cameras.project`, sigma points go through it."""
    scene = scenes.random(200, model=model)
    _, splats, depths = project(scene, "exact", (True, 2, False), rounded=False)
    screen, covariance = oracle.covariance(scene)
    # the guards hold maps and sigma points that lie outside the image: not the oracle's business
    width, height = scene.cameras.size(0)
    means, axes = oracle.points(scene)
    reach = 3**0.5 * torch.cat([torch.zeros_like(axes[:, :, :1]), axes, -axes], dim=2)
    around = (means[:, :, None] + reach).transpose(1, 2)
    pixels, ahead = scene.cameras.project(around.reshape(-1, 3), 0)
    inside = (pixels > 0) & (pixels < torch.tensor([width, height]))
    inside = inside.all(1) & (ahead > 0.05)
    chosen = inside.reshape(-1, 7).all(1) & (splats[:, 5] > 0)
    assert int(chosen.sum()) > 30
    blurred = covariance + 0.3 * torch.eye(2, dtype=torch.float64)
    conic = torch.linalg.inv(blurred)
    expected = torch.stack([conic[:, 0, 0], conic[:, 0, 1], conic[:, 1, 1]], dim=1)
    near(splats[chosen, :2], screen[chosen], 1e-9, "positions")
    near(splats[chosen, 2:5], expected[chosen], 1e-9, "conics")
    near(splats[chosen, 5], scene.activated["opacities"][chosen], 1e-12, "opacities")
    near(splats[chosen, 6:9], oracle.colors(scene, 2)[chosen], 1e-9, "colors")
    near(splats[chosen, 9], oracle.depths(scene)[chosen], 1e-9, "depths")
    assert torch.equal(depths[chosen], splats[chosen, 9].detach())
    # the box is where alpha falls to 1/255
    reach = 2 * (255 * splats[chosen, 5]).log()
    sides = torch.stack([blurred[chosen, 0, 0], blurred[chosen, 1, 1]], dim=1)
    half = (reach[:, None] * sides).sqrt()
    near(splats[chosen, 10], half.amax(1), 1e-9, "longer half sides")
    near(splats[chosen, 11].abs(), half.amin(1), 1e-9, "shorter half sides")
    assert torch.equal(splats[chosen, 11] < 0, half[:, 0] < half[:, 1])


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
@pytest.mark.parametrize("antialiased", [False, True])
def test_twin_against_finite_differences(scenes, model, antialiased: bool) -> None:
    scene = scenes.random(60, model=model, bands=3)
    _, splats, _ = project(scene, "exact", (True, 2, antialiased))
    bright = (splats[:, 6:9] > 0.05).all(1)
    chosen = (decided(scene, splats.detach()) & bright).nonzero()[:4, 0]
    assert len(chosen) == 4
    leaves, camera = scene.select(chosen).on("exact")

    def seen(*tensors: Tensor) -> Tensor:
        found = project_gaussians(
            *tensors[:5], replace(camera, world_to_camera=tensors[5]), antialiased=antialiased
        )
        return found[0][:, :10]

    inputs = [leaves[name] for name in (*NAMES, "pose")]
    assert torch.autograd.gradcheck(seen, inputs, eps=1e-6, atol=1e-6, rtol=1e-4)


def wide_cameras(scenes, model: CameraModel) -> Cameras:
    """Wide views, through lenses whose polynomials stop to grow before the corners."""
    cameras = scenes.camera(model, (40, 30))
    bend = {OPENCV: -0.4, FISHEYE: -0.35}.get(model, 0.0)
    lens = torch.tensor([[bend, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.float64)
    shrink = torch.tensor([0.5, 0.5, 1, 1], dtype=torch.float64)
    return replace(cameras, distortion=lens, intrinsics=cameras.intrinsics * shrink)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", [OPENCV, FISHEYE], ids=lambda m: m.name)
def test_beyond_the_end_of_a_lens(scenes, near, model, backend: str) -> None:
    """Values and gradients where a lens polynomial has ended, and the twin's slope there."""
    scene = replace(scenes.random(400, model=model, bands=1), cameras=wide_cameras(scenes, model))
    right, splats, _ = project(scene, "exact", (True, 0, False))
    local = scene.tensors["means"] @ right["pose"].detach()[:, :3].T + right["pose"].detach()[:, 3]
    angle = torch.atan2(local[:, :2].norm(dim=1), local[:, 2])
    end = scene.on("exact")[1].limit
    end = math.atan(end**0.5) if model == OPENCV else end
    beyond = decided(scene, splats.detach()) & (angle > end)
    assert int(beyond.sum()) > 15
    ours, our_splats, _ = project(scene, backend, (True, 0, False))
    near(our_splats.cpu()[beyond], splats[beyond], BOUNDS[backend], "splats")
    along = beyond[:, None] / (1 + splats.detach().abs())
    along[:, 10:] = 0
    (splats * along).sum().backward()
    (our_splats * along.to(our_splats)).sum().backward()
    for name in (*NAMES, "pose"):
        near(ours[name].grad, right[name].grad, 10 * BOUNDS[backend], f"gradient by {name}")
    step = 1e-6 * torch.randn(400, 3, generator=torch.Generator().manual_seed(1)).double()
    sums = []
    for sign in (1, -1):
        moved = scene.tensors["means"] + sign * step
        there = replace(scene, tensors=scene.tensors | {"means": moved})
        sums.append(float((project(there, "exact", (True, 0, False))[1] * along).detach().sum()))
    slope = float((right["means"].grad * step).sum())
    assert (sums[0] - sums[1]) / 2 == pytest.approx(slope, rel=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_positions_are_those_of_the_camera(scenes, model, backend: str) -> None:
    """Tiny Gaussians stand where `Cameras.project` puts their means, inside the image and outside,
    up to beyond the end of a lens polynomial."""
    cameras = wide_cameras(scenes, model)
    generator = torch.Generator().manual_seed(2)
    flat = torch.randn(400, 2, generator=generator, dtype=torch.float64)
    local = torch.cat([flat, torch.ones(400, 1, dtype=torch.float64)], dim=1)
    if model == FISHEYE:
        local[::3, 2] = -0.4  # behind the camera is in its image, too
    pose = cameras.camera_to_world[0]
    means = local @ pose[:3, :3].T + pose[:3, 3]
    expected, _ = cameras.project(means, 0)
    scene = scenes.Scene({}, cameras, True)
    _, camera = scene.on(backend)
    device = camera.world_to_camera.device
    count = len(means)
    splats, depths = project_gaussians(
        means.float().to(device),
        torch.tensor([[1.0, 0, 0, 0]], device=device).expand(count, 4).contiguous(),
        torch.full((count, 3), -12.0, device=device),
        torch.full((count,), 6.0, device=device),
        torch.zeros(count, 1, 3, device=device),
        replace(camera, guard=1e3 if model == OPENCV else None),
    )
    seen = depths.isfinite().cpu()
    beyond = expected - 4 if model == FISHEYE else expected
    inside = ((beyond > 0) & (expected < torch.tensor([40, 30]))).all(1)
    assert int(seen.sum()) > 150
    assert bool(seen[inside].all())
    error = (splats.detach()[:, :2].cpu()[seen] - expected[seen]).abs().amax()
    assert float(error) < 2e-3


def lens_samples(scene, index: int, count: int = 200_000) -> Tensor:
    """Where samples of one Gaussian appear: (count, 2)."""
    generator = torch.Generator().manual_seed(5)
    normal = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    found, turn = scene.activated, None
    w, x, y, z = torch.nn.functional.normalize(found["rotations"][index], dim=0)
    turn = torch.stack([
        torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
        torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
        torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
    ])  # fmt: skip
    points = found["means"][index] + (normal * found["scales"][index]) @ turn.T
    return scene.cameras.project(points, 0)[0]


@pytest.mark.parametrize("model", [OPENCV, FISHEYE], ids=lambda m: m.name)
def test_unscented_shape_against_samples(scenes, model) -> None:
    """Mean and covariance of 200,000 samples through the exact lens. Samples err by 0.002; the
    transform is exact to second order, and Gaussians here are up to a fifth of their distance long,
    which leaves 3 % at most."""
    scene = scenes.random(40, model=model, size=(60, 44))
    close = {**scene.tensors, "scales": scene.tensors["scales"].clamp(-4, -1.2)}
    scene = replace(scene, tensors=close)
    _, splats, _ = project(scene, "exact", (True, 0, False))
    splats, checked = splats.detach(), 0
    for index in decided(scene, splats).nonzero()[:, 0].tolist():
        inside = (splats[index, :2] > 4) & (splats[index, :2] < torch.tensor([56.0, 40]))
        far = scene.cameras.project(scene.tensors["means"][index : index + 1], 0)[1]
        if not bool(inside.all()) or float(far) < 1.5:
            continue
        pixels = lens_samples(scene, index)
        covariance = torch.cov(pixels.T) + 0.3 * torch.eye(2)
        a, b, c = splats[index, 2:5]
        ours = torch.linalg.inv(torch.stack([torch.stack([a, b]), torch.stack([b, c])]))
        size = covariance.trace().sqrt()
        assert float((pixels.mean(0) - splats[index, :2]).norm() / size) < 0.01
        assert float((ours - covariance).norm() / covariance.norm()) < 0.05
        checked += 1
    assert checked >= 8


def test_affine_and_unscented_agree_for_small_gaussians(scenes, near) -> None:
    """An OpenCV lens that hardly bends against the pinhole: both maps are the derivative then. The
    difference falls with the square of the size."""
    flat = scenes.random(120)
    bent = replace(
        flat,
        cameras=replace(
            flat.cameras,
            models=torch.tensor([int(OPENCV)]),
            distortion=torch.tensor([[1e-12, 0, 0, 0, 0, 0, 0, 0]], dtype=torch.float64),
        ),
    )
    distances = []
    for shift in (-3.0, -4.0):
        small = flat.tensors | {"scales": flat.tensors["scales"] + shift}
        _, affine, _ = project(replace(flat, tensors=small), "exact", (True, 0, False))
        _, unscented, _ = project(replace(bent, tensors=small), "exact", (True, 0, False))
        width, height = flat.cameras.size(0)
        inside = (affine[:, :2] > 0) & (affine[:, :2] < torch.tensor([width, height]))
        both = (affine[:, 5] > 0) & (unscented[:, 5] > 0) & inside.all(1)
        assert int(both.sum()) > 30
        near(unscented[both, 2:5], affine[both, 2:5], 1e-3, "conics")
        near(unscented[both, 5:10], affine[both, 5:10], 1e-12, "the rest")
        distances.append(float((unscented[both, :2] - affine[both, :2]).detach().norm()))
    assert distances[1] < 0.2 * distances[0]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_pose_gradients_reach_the_cameras(scenes, near, model) -> None:
    """Turning and moving a camera: gradients through `SplatCamera.from_cameras` against finite
    differences of the float64 twin."""
    scene = scenes.random(60, model=model, bands=2)
    _, splats, _ = project(scene, "exact", (True, 1, False))
    generator = torch.Generator().manual_seed(1)
    along = torch.randn(60, 12, generator=generator).double() * decided(scene, splats)[:, None]
    along[:, 10:] = 0
    values = [scene.tensors[name] for name in NAMES]

    def loss(twist: Tensor) -> Tensor:
        poses = scene.cameras.camera_to_world @ se3_exp(twist.double())[None]
        pose = torch.linalg.inv(poses[0])[:3]
        found, _ = project_gaussians(*values, scene.camera(pose))
        return (found * along).sum()

    step, expected = 1e-5, torch.zeros(6, dtype=torch.float64)
    with torch.no_grad():
        for j in range(6):
            moved = torch.zeros(6, dtype=torch.float64)
            moved[j] = step
            expected[j] = (loss(moved) - loss(-moved)) / (2 * step)
    twist = torch.zeros(6, requires_grad=True)
    poses = scene.cameras.camera_to_world.float() @ se3_exp(twist)[None]
    cameras = scene.cameras.to(dtype=torch.float32).with_poses(poses)
    camera = SplatCamera.from_cameras(cameras)
    with backend_override("cpu"):
        found, _ = project_gaussians(*(v.float() for v in values), camera)
        (found * along.float()).sum().backward()
    near(twist.grad, expected, 1e-3, "gradient by the pose")


@pytest.mark.parametrize("backend", BACKENDS)
def test_antialiasing_keeps_the_light(scenes, near, backend: str) -> None:
    """Opacity falls as the low-pass widens: opacity sqrt(det) is what it was without it."""
    scene = scenes.random(150)
    raw = (True, 0, False)
    _, plain, _ = project(scene, backend, raw)
    _, dimmed, _ = project(scene, backend, (True, 0, True))
    both = (plain[:, 5] > 0) & (dimmed[:, 5] > 0)
    conic = plain[both].double()
    covariance = torch.linalg.inv(
        torch.stack([conic[:, 2:4], torch.stack([conic[:, 3], conic[:, 4]], 1)], dim=1)
    )
    without = covariance - 0.3 * torch.eye(2, device=covariance.device)
    share = (torch.linalg.det(without) / torch.linalg.det(covariance)).clamp_min(0).sqrt()
    near(dimmed[both, 5], plain[both, 5] * share.clamp_min(0.005), 1e-3, "opacities")
    assert torch.equal(dimmed[both, :5], plain[both, :5])


@pytest.mark.parametrize("backend", BACKENDS)
def test_quaternions_of_any_length_and_sign(scenes, near, backend: str) -> None:
    scene = scenes.random(40, bands=1)
    results = []
    for factor in (1.0, -1.0, 1e-16, 1e16, 1e-30, 1e30):
        turned = scene.tensors["rotations"] * factor
        changed = replace(scene, tensors=scene.tensors | {"rotations": turned})
        leaves, splats, _ = project(changed, backend, (True, 0, False))
        splats[:, 2:5].sum().backward()
        results.append((splats, leaves["rotations"].grad * factor))
    for splats, gradient in results[1:]:
        near(splats, results[0][0].double().cpu(), 1e-5, "splats")
        near(gradient, results[0][1].double().cpu(), 1e-4, "gradient")


def one_gaussian(device: str, **changes: Tensor) -> list[Tensor]:
    values = {
        "means": torch.tensor([[0.0, 0.0, 2.0]]),
        "rotations": torch.tensor([[1.0, 0, 0, 0]]),
        "scales": torch.full((1, 3), -3.0),
        "opacities": torch.tensor([2.0]),
        "harmonics": torch.zeros(1, 1, 3),
    }
    return [value.to(device) for value in (values | changes).values()]


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_cannot_be_seen_is_culled(backend: str) -> None:
    device = "cuda" if backend == "cuda" else "cpu"
    camera = SplatCamera(torch.eye(4, device=device)[:3], (20.0, 20.0, 10.0, 8.0), 20, 16)
    faintest = math.log(1 / 254)
    tensor = torch.tensor
    hidden = {
        "behind": {"means": tensor([[0.0, 0.0, -2.0]])},
        "at the camera": {"means": tensor([[0.0, 0.0, 0.0]])},
        "nearer than near": {"means": tensor([[0.0, 0.0, 0.009]])},
        "beside": {"means": tensor([[4.0, 0.0, 2.0]])},
        "faint": {"opacities": tensor([faintest - 0.01])},
        "no rotation": {"rotations": torch.zeros(1, 4)},
        "infinite": {"scales": tensor([[0.0, 0.0, 1e3]])},
        "far away": {"means": tensor([[0.0, 0.0, 1e12]])},
        "opacity no number": {"opacities": tensor([math.nan])},
        "color no number": {"harmonics": torch.full((1, 1, 3), math.inf)},
    }
    for name, changes in hidden.items():
        splats, depths = project_gaussians(*one_gaussian(device, **changes), camera)
        assert not splats.any() and depths.isinf().all(), name
    shown = {
        "a point": {"scales": torch.full((1, 3), -math.inf)},
        "opaque": {"opacities": tensor([math.inf])},
        "beyond near": {"means": tensor([[0.0, 0.0, 0.011]])},
        "hardly faint": {"opacities": tensor([faintest + 0.01])},
    }
    for name, changes in shown.items():
        splats, depths = project_gaussians(*one_gaussian(device, **changes), camera)
        assert float(splats[0, 5]) > 0 and depths.isfinite().all(), name


def test_from_cameras_takes_over_every_number() -> None:
    lens = (0.1, -0.02, 0.001, 0.002, 0.003)
    cameras = Cameras.from_intrinsics(
        torch.eye(4).expand(2, 4, 4), 40, 30, 25.0, 26.0, 19.0, 16.0,
        model=[PINHOLE, OPENCV], distortion=[[0.0] * 5, lens],
    )  # fmt: skip
    plain, bent = SplatCamera.from_cameras(cameras), SplatCamera.from_cameras(cameras, 1, near=0.5)
    assert (plain.model, bent.model) == (PINHOLE, OPENCV)
    assert (plain.width, plain.height, plain.intrinsics) == (40, 30, (25.0, 26.0, 19.0, 16.0))
    assert bent.distortion == pytest.approx((*lens, 0, 0, 0)) and bent.near == 0.5
    without = replace(cameras, distortion=torch.zeros(2, 8))
    assert SplatCamera.from_cameras(without, 1).model == PINHOLE


def test_bad_input_is_named() -> None:
    camera = SplatCamera(torch.eye(4)[:3], (8.0, 8.0, 4.0, 4.0), 8, 8)
    good = one_gaussian("cpu")
    for place, name in enumerate(NAMES):
        with pytest.raises(InputError, match=name):
            project_gaussians(*[g[None] if i == place else g for i, g in enumerate(good)], camera)
    with pytest.raises(InputError, match="degree must be 0 to 0, the stored one; got 1"):
        project_gaussians(*good, camera, degree=1)
    with pytest.raises(InputError, match="1, 4, 9 or 16 rows; got 2"):
        project_gaussians(*good[:4], torch.zeros(1, 2, 3), camera)
    with pytest.raises(InputError, match="float32"):
        project_gaussians(*good[:4], good[4].double(), camera)
    bad = {
        "intrinsics must hold 4 numbers; got 3": {"intrinsics": (1.0, 1.0, 1.0)},
        "focal lengths must be above 0": {"intrinsics": (0.0, 1.0, 1.0, 1.0)},
        "intrinsics must be finite": {"intrinsics": (math.nan, 1.0, 1.0, 1.0)},
        "distortion must hold 8 numbers; got 2": {"distortion": (0.1, 0.2)},
        "near must be finite and not negative; got -1": {"near": -1.0},
        "limit must be finite and not negative": {"limit": math.inf},
        "this fisheye polynomial grows nowhere": {"limit": 0.0, "model": FISHEYE},
        "guard must be finite and above 0": {"guard": 0.0},
        "width must be 0 to 32768 pixels; got -1": {"width": -1},
        "EQUIRECTANGULAR cannot be splatted": {"model": CameraModel.EQUIRECTANGULAR},
    }
    for message, changes in bad.items():
        with pytest.raises(InputError, match=message):
            replace(camera, **changes)


@pytest.mark.parametrize("module", [camera_module, projection_module], ids=lambda m: m.__name__)
def test_examples_in_docstrings(module) -> None:
    assert doctest.testmod(module).failed == 0
