"""Prepared Gaussians in space and time show what the plain way shows, and a frame touches what is
there alone."""

import pytest
import torch
from torch import Tensor

from lumigraph.core.cameras import CameraModel
from lumigraph.core.errors import InputError
from lumigraph.cuda.ops import (
    SplatOptions,
    prepare_gaussians4d,
    project_gaussians4d,
    render_gaussians4d,
    render_prepared4d,
)
from lumigraph.cuda.reference.gaussian_slicing import slice_gaussians
from lumigraph.cuda.splatting.prepared4d import SEGMENTS

KERNELS = ["cpu", "emu", pytest.param("cuda", marks=pytest.mark.gpu)]
NAMES = ("means", "times", "rotors", "log_scales", "opacity_logits", "harmonics")
STILL = ("means", "rotations", "scales", "opacities", "harmonics")
PINHOLE, OPENCV = CameraModel.PINHOLE, CameraModel.OPENCV
FISHEYE, ORTHOGRAPHIC = CameraModel.FISHEYE, CameraModel.ORTHOGRAPHIC
# model, plateaus, degree, antialiased, bands stored
CASES = [
    (PINHOLE, True, None, False, 4),
    (OPENCV, False, 2, True, 4),
    (FISHEYE, True, 1, False, 3),
    (ORTHOGRAPHIC, False, None, True, 1),
]
TIMES = (-0.4, 0.0, 0.43, 0.999, 1.0, 1.7)
HALF = 1e-3  # of a color, where harmonics are in half precision


def scene_of(scenes, case, backend: str, still: int = 30):
    model, plateaus, _, _, bands = case
    leaves, camera = scenes.moving(
        160, plateaus=plateaus, model=model, bands=bands, background=True
    ).on(backend)
    rest, _ = scenes.random(still, model=model, bands=min(bands, 2), seed=3).on(backend)
    values = [leaves[n].detach() for n in NAMES]
    rest = tuple(rest[n].detach() for n in STILL)
    camera = camera.with_pose(camera.world_to_camera.detach())
    return (
        values,
        None if not plateaus else leaves["log_plateaus"].detach(),
        rest,
        leaves["background"].detach(),
        camera,
    )


@pytest.mark.parametrize("backend", ["torch", *KERNELS])
@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0].name}-{c[2]}-{c[4]}")
def test_pictures_are_those_of_the_plain_way(scenes, case, backend: str) -> None:
    values, plateaus, still, background, camera = scene_of(scenes, case, backend)
    _, _, degree, antialiased, _ = case
    prepared = prepare_gaussians4d(
        *values, log_plateaus=plateaus, still=still, degree=degree, shortest=0.01
    )
    options = SplatOptions(antialiased=antialiased, degree=degree, depth=True)
    half = prepared.harmonics.dtype == torch.float16
    assert half == (backend in ("emu", "cuda"))
    bound, counts = HALF if half else 1e-5, []
    quick = 20 if backend == "cuda" else 1  # exp, log and division of a GPU
    for time in TIMES if backend != "emu" else TIMES[1:3]:
        plain = render_gaussians4d(
            *values, time, camera, options, log_plateaus=plateaus, still=still,
            background=background, shortest=0.01,
        )  # fmt: skip
        ours = render_prepared4d(prepared, time, camera, options, background=background)
        assert bool(((ours.color - plain.color).abs() < bound).all()), time
        assert float((ours.opacity - plain.opacity).abs().amax()) < 1e-5 * quick, time
        assert float((ours.depth - plain.depth).abs().amax()) < 1e-4 * quick, time
        seen = [int((images.splats[:, 5] > 0).sum()) for images in (ours, plain)]
        assert abs(seen[0] - seen[1]) <= (1 if backend == "cuda" else 0), time
        counts.append(len(ours.splats))
    assert max(counts) < 190 and max(counts) - min(counts) > (5 if backend != "emu" else 0)


@pytest.mark.parametrize("backend", KERNELS)
def test_extras_belong_to_the_rows(scenes, near, backend: str) -> None:
    """Positions blended as extras: the plain way's rows in another order."""
    values, plateaus, still, _, camera = scene_of(scenes, CASES[0], backend)
    time = 0.43
    prepared = prepare_gaussians4d(*values, log_plateaus=plateaus, still=still)
    found = prepared.sliced(time)
    assert len(found.means) == len(prepared.rows(time))
    ours = render_prepared4d(prepared, time, camera, extras=found.means)
    plain = slice_gaussians(*values[:5], time, log_plateaus=plateaus)
    everything = torch.cat([plain.means.detach(), still[0]])
    wanted = render_gaussians4d(
        *values, time, camera, log_plateaus=plateaus, still=still, extras=everything
    )
    near(ours.extras, wanted.extras.detach().double().cpu(), 1e-4, "extras")


def test_every_frame_lists_all_that_is_there(scenes) -> None:
    """Lists against opacities of all Gaussians, over the clip and beside it."""
    values, plateaus, _, _, _ = scene_of(scenes, CASES[0], "cpu")
    values[3] = values[3] - torch.tensor([0.0, 0, 0, 1.5])  # shorter lives
    plateaus = plateaus - 1
    prepared = prepare_gaussians4d(*values, log_plateaus=plateaus)
    means = prepared.planes[1, :, :3]
    listed, there = [], []
    for time in torch.linspace(-0.3, 1.3, 161).tolist():
        opacities = slice_gaussians(*values[:5], time, log_plateaus=plateaus).opacities
        shown = values[0][opacities > 1 / 255]
        rows = prepared.rows(time)
        assert len(rows) == len(rows.unique())
        distance = torch.cdist(shown, means[rows], compute_mode="donot_use_mm_for_euclid_dist")
        assert float(distance.amin(1).amax()) == 0.0, time
        if 0 <= time <= 1:
            listed.append(len(rows))
            there.append(len(shown))
    assert 20 <= prepared.always < 160
    assert sum(listed) < 1.25 * sum(there) and sum(there) < 0.8 * 160 * len(there)
    assert len(prepared.starts) == SEGMENTS + 1 and prepared.starts[-1] == len(prepared.lists)


@pytest.mark.parametrize("backend", ["torch", *KERNELS])
def test_nothing_and_nonsense(scenes, backend: str) -> None:
    values, _, still, background, camera = scene_of(scenes, CASES[3], backend, still=4)
    none = [value[:0] for value in values]
    prepared = prepare_gaussians4d(*none)
    picture = render_prepared4d(prepared, 0.5, camera, background=background).color
    assert torch.equal(picture, background.expand_as(picture)) and len(prepared) == 0
    for place, bad in (
        (0, torch.nan),
        (1, torch.inf),
        (2, 0.0),
        (3, 1e3),
        (4, -20.0),
        (5, torch.inf),
    ):
        broken = [value.clone() for value in values]
        broken[place][:20] = bad
        prepared = prepare_gaussians4d(*broken, still=still)
        assert len(prepared) <= 144
        picture = render_prepared4d(prepared, 0.5, camera).color
        whole = render_gaussians4d(*broken, 0.5, camera, still=still).color
        assert float((picture - whole).abs().amax()) < HALF


def test_bad_input_is_named(scenes) -> None:
    values, _, still, _, camera = scene_of(scenes, CASES[1], "cpu")
    with pytest.raises(InputError, match="rotors must have shape"):
        prepare_gaussians4d(*values[:2], values[0], *values[3:])
    with pytest.raises(InputError, match="degree must be 0 to 3, the stored one; got 4"):
        prepare_gaussians4d(*values, still=still, degree=4)
    doubles: list[Tensor] = [value.double() for value in values]
    with pytest.raises(InputError, match="float"):
        prepare_gaussians4d(*doubles)
    prepared = prepare_gaussians4d(*values)
    with pytest.raises(InputError, match="time must be finite"):
        render_prepared4d(prepared, float("nan"), camera)
    with pytest.raises(InputError, match="extras must have shape"):
        render_prepared4d(prepared, 0.5, camera, extras=torch.zeros(1, 2))


def test_the_largest_degree_in_use_is_the_prepared_one(scenes) -> None:
    values, plateaus, still, _, camera = scene_of(scenes, CASES[0], "cpu")
    prepared = prepare_gaussians4d(*values, log_plateaus=plateaus, still=still, degree=1)
    assert prepared.harmonics.shape[1] == 16 and prepared.degree == 1
    for degree in (0, 1, 3):
        ours = render_prepared4d(prepared, 0.4, camera, SplatOptions(degree=degree)).color
        plain = render_gaussians4d(
            *values, 0.4, camera, SplatOptions(degree=min(degree, 1)), log_plateaus=plateaus,
            still=still,
        ).color  # fmt: skip
        assert float((ours - plain).abs().amax()) < 1e-5
    splats, _ = project_gaussians4d(*values, 0.4, camera, log_plateaus=plateaus)
    assert int((splats[:, 5] > 0).sum()) > 50
