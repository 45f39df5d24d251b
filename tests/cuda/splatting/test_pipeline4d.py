"""Pictures of Gaussians in space and time: kernels against the float64 twin, which passes
gradcheck; exact tile lists against all pairs; the still part."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import InputError
from lumigraph.cuda.dispatch import backend_override
from lumigraph.cuda.ops import (
    SplatImages,
    SplatOptions,
    TileLists,
    project_gaussians,
    project_gaussians4d,
    rasterize_splats,
    render_gaussians4d,
)

KERNELS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
NAMES = ("means", "times", "rotors", "log_scales", "opacity_logits", "harmonics")
STILL = ("means", "rotations", "scales", "opacities", "harmonics")
PINHOLE, OPENCV, FISHEYE = CameraModel.PINHOLE, CameraModel.OPENCV, CameraModel.FISHEYE
BOUNDS = {"cpu": 2e-5, "emu": 2e-5, "cuda": 2e-4}
TIME = 0.43
# model, plateaus, degree, antialiased, extras, depth, probe, still
CASES = [
    (PINHOLE, True, 3, False, None, True, "plain", 40),
    (PINHOLE, False, 1, True, 5, False, "absolute", 0),
    (OPENCV, True, 2, True, None, True, "", 25),
    (FISHEYE, False, 0, False, 18, True, "", 30),
]


def leaves_of(scenes, case, backend: str):
    model, plateaus, _, _, extras, _, probe, still = case
    scene = scenes.moving(140, plateaus=plateaus, model=model, background=True)
    rest = scenes.random(still, model=model, bands=2, seed=3)
    leaves, camera = scene.on(backend)
    more, _ = rest.on(backend)
    more.pop("pose")
    like, rows = leaves["means"], 140 + still
    generator = torch.Generator().manual_seed(9)
    if extras is not None:
        noise = torch.randn(rows, extras, generator=generator)
        leaves["extras"] = noise.to(like).requires_grad_()
    if probe and backend != "exact":
        leaves["probe"] = torch.zeros(rows, 2).to(like).requires_grad_()
    return leaves, more, camera


def render(leaves, more, camera, case) -> SplatImages:
    _, _, degree, antialiased, _, depth, probe, _ = case
    return render_gaussians4d(
        *(leaves[n] for n in NAMES), TIME, camera,
        SplatOptions(
            antialiased=antialiased, degree=degree, depth=depth, absolute=probe == "absolute"
        ),
        log_plateaus=leaves.get("log_plateaus"),
        still=tuple(more[n] for n in STILL), background=leaves["background"],
        extras=leaves.get("extras"), screen_probe=leaves.get("probe"),
    )  # fmt: skip


def images_of(images: SplatImages) -> dict[str, Tensor]:
    names = ("color", "opacity", "depth", "extras")
    found = {name: getattr(images, name) for name in names}
    return {name: image for name, image in found.items() if image is not None}


@pytest.mark.parametrize("backend", KERNELS)
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].name}-{c[4]}-{c[6]}")
def test_matches_float64(scenes, oracle, near, case, backend: str) -> None:
    right, right_more, camera = leaves_of(scenes, case, "exact")
    wanted = render(right, right_more, camera, case)
    rows = wanted.splats
    depths = torch.where(rows[:, 5] > 0, rows[:, 9], torch.inf)
    size = (camera.width, camera.height)
    sure = oracle.blend(rows[:, :6], depths, rows[:, 9:10], size).sure
    assert float(sure.double().mean()) > 0.97
    generator, weights = torch.Generator().manual_seed(11), {}
    for name, image in images_of(wanted).items():
        noise = torch.randn(image.shape, generator=generator, dtype=torch.float64)
        weights[name] = noise * sure.reshape(*image.shape[:2], *[1] * (image.dim() - 2))
    sum((image * weights[n]).sum() for n, image in images_of(wanted).items()).backward()
    ours, more, our_camera = leaves_of(scenes, case, backend)
    images = render(ours, more, our_camera, case)
    found = images_of(images)
    assert set(found) == set(weights)
    sum((image * weights[n].to(image)).sum() for n, image in found.items()).backward()
    bound = BOUNDS[backend]
    for name, image in found.items():
        shape = (len(sure), *image.shape[2:])
        exact = images_of(wanted)[name].reshape(shape)[sure]
        near(image.reshape(shape).cpu()[sure], exact, bound, name)
    for name, leaf in right.items():
        near(ours[name].grad, leaf.grad, 20 * bound, f"gradient by {name}")
    for name, leaf in right_more.items() if case[7] else ():
        near(more[name].grad, leaf.grad, 20 * bound, f"gradient by {name} of the still part")
    if case[6]:
        seen = images.splats[:, 5] > 0
        assert bool(ours["probe"].grad[seen].any()) and not ours["probe"].grad[~seen].any()
    if case[6] == "plain":
        moved = torch.zeros(len(rows), 2, dtype=torch.float64, requires_grad=True)
        again = screen_gradient(right, right_more, camera, case, weights, moved)
        near(ours["probe"].grad, again, 20 * bound, "probe")


def screen_gradient(leaves, more, camera, case, weights, moved: Tensor) -> Tensor:
    """Gradient by screen positions, from the operations one by one."""
    splats, depths = project_gaussians4d(
        *(leaves[n] for n in NAMES), TIME, camera, log_plateaus=leaves.get("log_plateaus"),
        degree=case[2],
    )  # fmt: skip
    others, other_depths = project_gaussians(*(more[n] for n in STILL), camera)
    whole = torch.cat([splats, others])
    whole = torch.cat([whole[:, :2] + moved, whole[:, 2:]], dim=1)
    lists = all_pairs(torch.cat([depths, other_depths]), camera)
    images = rasterize_splats(
        whole, lists, camera.width, camera.height, background=leaves["background"], depth=True
    )
    found = {"color": images.color, "opacity": 1 - images.transmittance, "depth": images.depth}
    loss = sum((image * weights[name]).sum() for name, image in found.items())
    return torch.autograd.grad(loss, moved)[0]


def all_pairs(depths: Tensor, camera) -> TileLists:
    """Every splat that is seen in every tile."""
    order = torch.sort(depths, stable=True)[1][: int(depths.isfinite().sum())].to(torch.int32)
    tiles = -(-camera.width // 16) * -(-camera.height // 16)
    starts = torch.arange(tiles + 1, dtype=torch.int32, device=depths.device) * len(order)
    return TileLists(order.repeat(tiles), starts)


@pytest.mark.parametrize("backend", KERNELS)
def test_exact_lists_and_all_pairs_give_one_picture(scenes, backend: str) -> None:
    case = CASES[0]
    leaves, more, camera = leaves_of(scenes, case, backend)
    images = render(leaves, more, camera, case)
    splats, depths = project_gaussians4d(
        *(leaves[n] for n in NAMES), TIME, camera, log_plateaus=leaves["log_plateaus"], degree=3
    )
    others, other_depths = project_gaussians(*(more[n] for n in STILL), camera)
    whole, depths = torch.cat([splats, others]), torch.cat([depths, other_depths])
    brute = rasterize_splats(
        whole, all_pairs(depths, camera), camera.width, camera.height,
        background=leaves["background"], depth=True,
    )  # fmt: skip
    assert torch.equal(images.splats, whole.detach())
    assert torch.equal(images.color, brute.color)
    assert torch.equal(images.transmittance, brute.transmittance)
    assert torch.equal(images.depth, brute.depth)
    assert torch.equal(images.median_depth, brute.median_depth)


@pytest.mark.parametrize("model", [PINHOLE, FISHEYE], ids=lambda m: m.name)
def test_whole_render_passes_gradcheck(scenes, model) -> None:
    """20 Gaussians, 6 of them still, in an image of 16 x 16 pixels."""
    scene = scenes.moving(14, plateaus=True, size=(16, 16), bands=1, model=model)
    leaves, camera = scene.on("exact")
    still, _ = scenes.random(6, size=(16, 16), bands=1, model=model).on("exact")
    splats, _ = project_gaussians4d(
        *(leaves[n] for n in NAMES), TIME, camera, log_plateaus=leaves["log_plateaus"]
    )
    assert 5 <= int((splats[:, 5] > 0).sum()) < 14

    def color(*tensors: Tensor) -> Tensor:
        images = render_gaussians4d(
            *tensors[:6], TIME, camera.with_pose(tensors[7]), SplatOptions(antialiased=True),
            log_plateaus=tensors[6], still=tensors[8:],
        )  # fmt: skip
        return torch.cat([images.color, images.opacity[..., None]], dim=2)

    inputs = [leaves[name] for name in (*NAMES, "log_plateaus", "pose")]
    inputs += [still[name] for name in STILL]
    assert torch.autograd.gradcheck(color, inputs, eps=1e-7, atol=1e-4, fast_mode=True)


def test_bit_identical_for_any_number_of_threads(scenes) -> None:
    scene = scenes.moving(5000, plateaus=True, size=(150, 90))
    before, results = torch.get_num_threads(), []
    try:
        for count in (1, 2, 5):
            torch.set_num_threads(count)
            with backend_override("cpu"):
                leaves, camera = scene.on("cpu")
                images = render_gaussians4d(
                    *(leaves[n] for n in NAMES), TIME, camera,
                    log_plateaus=leaves["log_plateaus"],
                )  # fmt: skip
                by = torch.autograd.grad(images.color.square().sum(), [*leaves.values()])
            results.append([images.color.detach(), images.splats, *by])
    finally:
        torch.set_num_threads(before)
    assert int((images.splats[:, 5] > 0).sum()) > 1500
    for other in results[1:]:
        assert all(map(torch.equal, results[0], other))


@pytest.mark.parametrize("backend", ["torch", *KERNELS])
def test_nothing_to_see(scenes, backend: str) -> None:
    scene = scenes.moving(20, size=(20, 18), bands=1, background=True)
    scene = replace(scene, tensors=scene.tensors | {"times": scene.tensors["times"] + 1e4})
    none = torch.arange(0)
    gone = torch.arange(20) % 7 != 0  # the others live for ever
    for chosen in (scene.select(none), scene.select(gone)):
        leaves, camera = chosen.on(backend)
        empty = tuple(t.to(leaves["means"]) for t in (
            torch.zeros(0, 3), torch.zeros(0, 4), torch.zeros(0, 3), torch.zeros(0),
            torch.zeros(0, 4, 3),
        ))  # fmt: skip
        images = render_gaussians4d(
            *(leaves[n] for n in NAMES), TIME, camera, SplatOptions(depth=True), still=empty,
            background=leaves["background"],
        )  # fmt: skip
        shade = leaves["background"].detach().expand(18, 20, 3)
        assert torch.equal(images.color.detach(), shade) and not images.depth.any()
        (images.color.sum() + images.depth.sum()).backward()
        assert all(not leaves[name].grad.any() for name in (*NAMES, "pose"))


def test_bad_input_is_named(scenes) -> None:
    leaves, more, camera = leaves_of(scenes, CASES[0], "cpu")
    values = [leaves[n] for n in NAMES]
    still = tuple(more[n] for n in STILL)
    probe = torch.zeros(180, 2, requires_grad=True)
    with pytest.raises(InputError, match="screen_probe needs float32 and at most 16 extras"):
        render_gaussians4d(
            *values, 0.5, camera, still=still, extras=torch.zeros(180, 17), screen_probe=probe
        )
    with pytest.raises(InputError, match=r"screen_probe must have shape \(140, 2\)"):
        render_gaussians4d(*values, 0.5, camera, screen_probe=probe)
    with pytest.raises(InputError, match="extras must have shape"):
        render_gaussians4d(*values, 0.5, camera, still=still, extras=torch.zeros(140, 1))
    with pytest.raises(InputError, match="rotations must have shape"):
        render_gaussians4d(*values, 0.5, camera, still=(still[0], still[0], *still[2:]))
    with pytest.raises(InputError, match="degree must be 0 to 3"):
        render_gaussians4d(*values, 0.5, camera, SplatOptions(degree=4))
