"""Gaussians to pictures in one call: kernels against the float64 twin, the twin against an oracle
that knows only `lumigraph.core` and against finite differences, and laws of whole pictures."""

import ctypes
import doctest
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import InputError
from lumigraph.core.transforms import quaternion_from_rotation, rotation_exp, se3_exp
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.ops import (
    SplatCamera,
    SplatImages,
    SplatOptions,
    project_gaussians,
    rasterize_splats,
    render_gaussians,
    splat_tiles,
)
from lumigraph.cuda.splatting import pipeline as pipeline_module

KERNELS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
NAMES = ("means", "rotations", "scales", "opacities", "harmonics")
PINHOLE, OPENCV = CameraModel.PINHOLE, CameraModel.OPENCV
FISHEYE, ORTHOGRAPHIC = CameraModel.FISHEYE, CameraModel.ORTHOGRAPHIC
MODELS = [PINHOLE, OPENCV, FISHEYE, ORTHOGRAPHIC]
IMAGES = ("color", "opacity", "depth", "extras")


@dataclass(frozen=True)
class Case:
    model: CameraModel
    raw: bool
    bands: int
    degree: int
    antialiased: bool
    extras: int | None
    depth: bool
    background: bool
    probe: str = ""

    def options(self) -> SplatOptions:
        return SplatOptions(
            raw=self.raw, antialiased=self.antialiased, degree=self.degree, depth=self.depth,
            absolute=self.probe == "absolute",
        )  # fmt: skip


CASES = [
    Case(PINHOLE, True, 4, 3, False, None, True, True, "plain"),
    Case(PINHOLE, False, 4, 1, True, 5, False, False),
    Case(OPENCV, True, 3, 1, True, 1, True, True, "absolute"),
    Case(OPENCV, False, 2, 1, False, None, False, True),
    Case(FISHEYE, False, 1, 0, True, None, False, False, "plain"),
    Case(FISHEYE, True, 4, 2, False, 18, True, True),
    Case(ORTHOGRAPHIC, False, 4, 2, False, 5, False, False, "absolute"),
    Case(ORTHOGRAPHIC, True, 3, 2, True, 0, True, True),
]
BOUNDS = {"cpu": 1e-5, "emu": 1e-5, "cuda": 1e-4}


def scene_of(scenes, case: Case, count: int = 180, seed: int = 0):
    return scenes.random(
        count, model=case.model, bands=case.bands, raw=case.raw, extras=case.extras,
        background=case.background, seed=seed,
    )  # fmt: skip


def render(leaves: dict[str, Tensor], camera: SplatCamera, options: SplatOptions) -> SplatImages:
    return render_gaussians(
        *(leaves[name] for name in NAMES), camera, options,
        background=leaves.get("background"), extras=leaves.get("extras"),
        screen_probe=leaves.get("probe"),
    )  # fmt: skip


def weights_of(images: SplatImages, sure: Tensor) -> dict[str, Tensor]:
    """Cotangents of every image, 0 at pixels where a threshold is near."""
    generator = torch.Generator().manual_seed(11)
    found = {}
    for name in IMAGES:
        image = getattr(images, name)
        if image is not None:
            noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
            found[name] = noise * sure.reshape(*image.shape[:2], *[1] * (image.dim() - 2))
    return found


def loss_of(images: SplatImages, weights: dict[str, Tensor]) -> Tensor:
    return torch.stack(
        [(getattr(images, name) * w.to(getattr(images, name))).sum() for name, w in weights.items()]
    ).sum()


def sure_pixels(oracle, splats: Tensor, depths: Tensor, scene) -> Tensor:
    splats = splats.detach()
    found = oracle.blend(splats[:, :6], depths, splats[:, 9:10], scene.cameras.size(0))
    return found.sure


def expected_screen(leaves, camera, case: Case, weights: dict[str, Tensor]) -> Tensor:
    """What a probe receives, from the operations one by one: by the twin in float64, or for
    absolute sums in float32."""
    dtype = torch.float32 if case.probe == "absolute" else torch.float64
    values = {n: t.detach().to(dtype) for n, t in leaves.items()}
    camera = camera.with_pose(values["pose"])
    with backend_override("torch"):
        splats, depths = project_gaussians(
            *(values[n] for n in NAMES), camera, raw=case.raw, antialiased=case.antialiased,
            degree=case.degree,
        )  # fmt: skip
        splats.requires_grad_()
        absolute = (
            torch.zeros(len(splats), 2, requires_grad=True) if dtype == torch.float32 else None
        )
        size = (camera.width, camera.height)
        found = rasterize_splats(
            splats, splat_tiles(splats, depths, *size), *size, depth=case.depth,
            background=values.get("background"), extras=values.get("extras"),
            screen_probe=absolute,
        )  # fmt: skip
        loss_of(SplatImages(*found, splats), weights).backward()
    gradient = splats.grad[:, :2] if absolute is None else absolute.grad
    assert gradient is not None
    return gradient.double()


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.model.name}-{c.extras}-{c.probe}")
def test_matches_float64(scenes, oracle, near, case: Case, backend: str) -> None:
    scene = scene_of(scenes, case)
    right, camera = scene.on("exact")
    wanted = render(right, camera, case.options())
    depths = torch.where(wanted.splats[:, 5] > 0, wanted.splats[:, 9], torch.inf)
    sure = sure_pixels(oracle, wanted.splats, depths, scene)
    assert float(sure.double().mean()) > 0.98
    weights = weights_of(wanted, sure)
    loss_of(wanted, weights).backward()

    ours, our_camera = scene.on(backend)
    if case.probe:
        ours["probe"] = torch.zeros(180, 2, device=ours["means"].device).requires_grad_()
    images = render(ours, our_camera, case.options())
    loss_of(images, weights).backward()
    bound = BOUNDS[backend]
    for name in (*IMAGES, "median_depth"):
        image, other = getattr(images, name), getattr(wanted, name)
        assert (image is None) == (other is None), name
        if image is not None:
            shape = (len(sure), *other.shape[2:])
            near(image.reshape(shape).cpu()[sure], other.reshape(shape)[sure], bound, name)
    seen = wanted.splats[:, 5] > 0
    assert int(((images.splats[:, 5].cpu() > 0) != seen).sum()) <= 1
    for name, leaf in right.items():
        near(ours[name].grad, leaf.grad, 10 * bound, f"gradient by {name}")
        if name in NAMES:
            assert not ours[name].grad.cpu()[~seen].any(), f"unseen ones have gradients by {name}"
    if case.probe:
        near(ours["probe"].grad, expected_screen(right, camera, case, weights), 10 * bound, "probe")


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_twin_is_the_picture_of_the_oracle(scenes, oracle, near, model) -> None:
    """Covariances through `Cameras.project`, colors from core, every splat at every pixel. The
    Gaussians lie inside the image, where no guard holds anything."""
    case = Case(model, True, 4, 3, False, 2, True, True)
    scene = scene_of(scenes, case, 600)
    near_mean = scene.cameras.project(scene.tensors["means"], 0)[0]
    size = torch.tensor(scene.cameras.size(0))
    inside = ((near_mean > 2) & (near_mean < size - 2)).all(1)
    inside &= scene.cameras.project(scene.tensors["means"], 0)[1] > 1.2
    scene = scene.select(inside)
    scene = replace(scene, tensors=scene.tensors | {"scales": scene.tensors["scales"] - 0.7})
    assert len(scene.tensors["means"]) > 100
    leaves, camera = scene.on("exact", rounded=False)
    images = render(leaves, camera, case.options())
    screen, covariance = oracle.covariance(scene)
    conic = torch.linalg.inv(covariance + 0.3 * torch.eye(2, dtype=torch.float64))
    rows = torch.cat(
        [screen, conic.flatten(1)[:, [0, 1, 3]], scene.activated["opacities"][:, None]], 1
    )
    depths = oracle.depths(scene)
    values = torch.cat([oracle.colors(scene, 3), depths[:, None], scene.tensors["extras"]], dim=1)
    found = oracle.blend(rows, depths, values, scene.cameras.size(0))
    sure, color = found.sure, found.values[:, :3]
    color = color + found.transmittance[:, None] * scene.tensors["background"]
    assert float((found.transmittance < 0.3).double().mean()) > 0.3
    flat = lambda image: image.reshape(len(sure), *image.shape[2:])[sure]  # noqa: E731
    near(flat(images.color), color[sure], 1e-9, "color")
    near(flat(images.opacity), 1 - found.transmittance[sure], 1e-9, "opacity")
    near(flat(images.depth), found.values[sure, 3], 1e-9, "depth")
    near(flat(images.median_depth), found.median[sure], 1e-9, "median")
    near(flat(images.extras), found.values[sure, 4:], 1e-9, "extras")


@pytest.mark.parametrize("antialiased", [False, True])
@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_loss_against_finite_differences(scenes, oracle, model, antialiased: bool) -> None:
    """Along a random direction of each tensor, and of the camera's six motions."""
    case = Case(model, True, 3, 2, antialiased, 2, True, True)
    scene = scene_of(scenes, case, 90)
    leaves, camera = scene.on("exact")
    images = render(leaves, camera, case.options())
    depths = torch.where(images.splats[:, 5] > 0, images.splats[:, 9], torch.inf)
    weights = weights_of(images, sure_pixels(oracle, images.splats, depths, scene))
    twist = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    poses = scene.cameras.camera_to_world

    def loss(changed: dict[str, Tensor]) -> Tensor:
        values = leaves | changed
        moved = poses[0] @ se3_exp(values.pop("twist", twist))
        camera_there = camera.with_pose(torch.linalg.inv(moved)[:3])
        return loss_of(render(values, camera_there, case.options()), weights)

    loss({}).backward()
    generator = torch.Generator().manual_seed(4)
    leaves_and_twist = {n: t for n, t in leaves.items() if n != "pose"} | {"twist": twist}
    step = 1e-7  # larger ones carry pixels over thresholds
    with torch.no_grad():
        for name, leaf in leaves_and_twist.items():
            way = torch.randn(leaf.shape, generator=generator, dtype=torch.float64)
            ahead, back = loss({name: leaf + step * way}), loss({name: leaf - step * way})
            slope = float((ahead - back) / (2 * step))
            assert leaf.grad is not None
            ours = float((leaf.grad * way).sum())
            scale = float(leaf.grad.norm() * way.norm()) / max(1, leaf.numel()) ** 0.5
            assert abs(ours - slope) < 1e-4 * max(abs(slope), scale), name


def test_whole_render_passes_gradcheck(scenes) -> None:
    """20 Gaussians in an image of 16 x 16 pixels."""
    scene = scenes.random(20, size=(16, 16), bands=1)
    leaves, camera = scene.on("exact")

    def color(*tensors: Tensor) -> Tensor:
        there = camera.with_pose(tensors[5])
        images = render_gaussians(*tensors[:5], there, SplatOptions(antialiased=True))
        return torch.cat([images.color, images.opacity[..., None]], dim=2)

    inputs = [leaves[name] for name in (*NAMES, "pose")]
    assert torch.autograd.gradcheck(color, inputs, eps=1e-7, atol=1e-4, fast_mode=True)


@pytest.mark.parametrize("backend", KERNELS)
def test_order_of_gaussians_does_not_matter(scenes, near, backend: str) -> None:
    case = CASES[0]
    scene = scene_of(scenes, case)
    order = torch.randperm(180, generator=torch.Generator().manual_seed(8))
    results = []
    for chosen in (scene, scene.select(order)):
        leaves, camera = chosen.on(backend)
        images = render(leaves, camera, case.options())
        (images.color.square().sum() + images.depth.square().sum()).backward()
        results.append((images, leaves))
    (first, leaves), (second, mixed) = results
    for name in ("color", "opacity", "depth", "median_depth"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    for name in NAMES:
        near(mixed[name].grad, leaves[name].grad[order].double().cpu(), 1e-5, name)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_moving_everything_changes_nothing(scenes, near, model) -> None:
    """A rigid motion of the scene and of its camera, for colors without direction."""
    case = Case(model, True, 1, 0, False, None, True, False)
    scene = scene_of(scenes, case)
    turn = rotation_exp(torch.tensor([0.7, -1.1, 0.4], dtype=torch.float64))
    shift = torch.tensor([3.0, -2.0, 0.5], dtype=torch.float64)
    w, *xyz = quaternion_from_rotation(turn)
    axis, (v, *rest) = torch.stack(xyz), scene.tensors["rotations"].unbind(1)
    other = torch.stack(rest, dim=1)
    product = torch.cat(
        [
            (w * v - other @ axis)[:, None],
            w * other + v[:, None] * axis + torch.linalg.cross(axis.expand_as(other), other),
        ],
        dim=1,
    )
    moved = {"means": scene.tensors["means"] @ turn.T + shift, "rotations": product}
    motion = torch.eye(4, dtype=torch.float64)
    motion[:3, :3], motion[:3, 3] = turn, shift
    cameras = scene.cameras.with_poses(motion @ scene.cameras.camera_to_world)
    there = replace(scene, tensors=scene.tensors | moved, cameras=cameras)
    pictures = []
    for place in (scene, there):
        leaves, camera = place.on("exact", rounded=False)
        pictures.append(render(leaves, camera, case.options()))
    for name in ("color", "opacity", "depth"):
        near(getattr(pictures[1], name), getattr(pictures[0], name), 1e-9, name)


@pytest.mark.parametrize("backend", KERNELS)
def test_one_call_is_the_three_operations(scenes, near, backend: str) -> None:
    case = CASES[2]
    scene = scene_of(scenes, case)
    results = []
    for steps in (False, True):
        leaves, camera = scene.on(backend)
        size, options = (camera.width, camera.height), case.options()
        if steps:
            splats, depths = project_gaussians(
                *(leaves[n] for n in NAMES), camera, antialiased=True, degree=1
            )
            lists = splat_tiles(splats, depths, *size)
            images = rasterize_splats(
                splats, lists, *size, extras=leaves["extras"], background=leaves["background"],
                depth=True,
            )  # fmt: skip
        else:
            images = render(leaves, camera, options)
        parts = [images.color, images.depth, images.median_depth, images.extras]
        (images.color.sum() + images.extras.square().sum() + images.depth.sum()).backward()
        results.append((parts, [leaf.grad for leaf in leaves.values()]))
    (images, gradients), (others, other_gradients) = results
    assert all(map(torch.equal, images, others))
    for ours, theirs in zip(gradients, other_gradients, strict=True):
        near(ours, theirs.double().cpu(), 1e-5)


def native_threads() -> int:
    """How many threads the kernels' OpenMP would take now: torch's and theirs is one library."""
    return int(ctypes.CDLL("libgomp.so.1").omp_get_max_threads())


def test_bit_identical_for_any_number_of_threads(scenes) -> None:
    """Forward and backward, more Gaussians than a group of the projection or of the tile lists."""
    case = replace(CASES[0], probe="absolute", extras=3)
    scene = scenes.random(5000, size=(150, 90), bands=4, extras=3, background=True)
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 3, 5):
            torch.set_num_threads(count)
            assert native_threads() == count
            with backend_override("cpu"):
                leaves, camera = scene.on("cpu")
                leaves["probe"] = torch.zeros(5000, 2).requires_grad_()
                images = render(leaves, camera, case.options())
                generator = torch.Generator().manual_seed(1)
                loss = sum(
                    (
                        getattr(images, n)
                        * torch.rand(getattr(images, n).shape, generator=generator)
                    ).sum()
                    for n in IMAGES
                )
                by = torch.autograd.grad(loss, [*leaves.values()])
            kept = [image.detach() for image in images if image is not None]
            results.append([*kept, *by])
    finally:
        torch.set_num_threads(before)
    assert int((images.splats[:, 5] > 0).sum()) > 2048
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("backend", KERNELS)
def test_each_image_alone_has_its_gradient(scenes, near, backend: str) -> None:
    case = replace(CASES[0], extras=2, probe="")
    scene = scene_of(scenes, case, 60)
    for name in IMAGES:
        gradients = []
        for kind in ("exact", backend):
            leaves, camera = scene.on(kind)
            image = getattr(render(leaves, camera, case.options()), name)
            generator = torch.Generator().manual_seed(2)
            weight = torch.randn(image.shape, generator=generator, dtype=torch.float64).to(image)
            (image * weight).sum().backward()
            gradients.append(leaves["means"].grad)
        near(gradients[1], gradients[0], 2e-3, name)


@pytest.mark.parametrize("backend", ["torch", *KERNELS])
def test_nothing_to_see(scenes, backend: str) -> None:
    """No Gaussians, or all of them behind the camera: the background, and gradients of 0."""
    scene = scenes.random(20, size=(20, 18), bands=1, background=True)
    away = scene.tensors["means"] + 50 * (scene.cameras.positions - scene.tensors["means"])
    behind = replace(scene, tensors=scene.tensors | {"means": away})
    for chosen in (scene.select(torch.arange(0)), behind):
        leaves, camera = chosen.on(backend)
        images = render(leaves, camera, SplatOptions(depth=True))
        shade = leaves["background"].detach().expand(18, 20, 3)
        assert torch.equal(images.color.detach(), shade)
        assert not images.opacity.any() and not images.depth.any() and not images.splats.any()
        (images.color.sum() + images.depth.sum()).backward()
        for name in (*NAMES, "pose"):
            gradient = leaves[name].grad
            assert gradient is not None and gradient.shape == leaves[name].shape
            assert not gradient.any()


def test_bad_input_is_named(scenes) -> None:
    leaves, camera = scenes.random(5, bands=1).on("cpu")
    values = [leaves[name] for name in NAMES]
    probe = torch.zeros(5, 2, requires_grad=True)
    with pytest.raises(InputError, match="screen_probe needs float32 and at most 16 extras"):
        render_gaussians(*values, camera, extras=torch.zeros(5, 17), screen_probe=probe)
    with pytest.raises(InputError, match="screen_probe"):
        render_gaussians(*values, camera, screen_probe=torch.zeros(5, 3))
    with pytest.raises(InputError, match="background must have shape"):
        render_gaussians(*values, camera, background=torch.zeros(1, 3))
    with pytest.raises(InputError, match="must be float32"):
        render_gaussians(*values, camera.with_pose(leaves["pose"].double()))
    with pytest.raises(InputError, match="degree must be 0 to 0"):
        render_gaussians(*values, camera, SplatOptions(degree=2))


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(pipeline_module).failed == 0
