"""The built-in scenes that move: what is where at a time, pictures made as they are asked for."""

import numpy as np
import pytest
import torch

from lumigraph.core.errors import DataError, InputError
from lumigraph.datasets import builtin, load
from lumigraph.datasets.moving import bodies, models, scenes

SCALE = 0.25


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    """A cache folder that the tests of this file share."""
    folder = tmp_path_factory.getbasetemp() / "moving-cache"
    monkeypatch.setenv("LUMIGRAPH_CACHE", str(folder))
    return folder / "scenes"


@pytest.fixture(params=list(models.MODELS))
def name(request):
    return request.param


def test_every_camera_sees_every_moment(name):
    scene = load(f"builtin:{name}", image_scale=SCALE)
    count = models.MODELS[name].moments
    assert scene.moments.tolist() == pytest.approx(np.linspace(0, 1, count).tolist())
    assert len(scene.split("train")) == 12 * count and len(scene.split("test")) == 2 * count
    poses = scene.cameras.camera_to_world
    for moment in (0, count - 1):
        there = scene.at_moment(moment)
        assert [len(there.split(part)) for part in ("train", "test")] == [12, 2]
        assert torch.equal(there.cameras.camera_to_world[:12], poses[:12])
        assert there.images.name(13) == f"c13_t{moment:02d}"
    gaps = torch.cdist(scene.cameras.positions[-2:], scene.cameras.positions[:12])
    assert 0.8 < float(gaps.min()) < 2.0  # between the training cameras, on none of them
    names = {scene.images.name(index) for index in range(len(scene.images))}
    assert len(names) == len(scene.cameras)


def test_pictures_show_the_exact_shape_of_their_moment(name):
    scene = load(f"builtin:{name}", image_scale=SCALE)
    for moment in (0, 7):
        there = scene.at_moment(moment)
        image, depth = there.images.load(13), there.depths.load(13)
        alpha = image[..., 3]
        assert image.shape == (32, 32, 4) and 0.02 < float((alpha == 255).float().mean()) < 0.6
        # The centre ray and the four rays of a pixel agree away from silhouettes.
        assert ((depth > 0) & (alpha == 0)).sum() + ((depth == 0) & (alpha == 255)).sum() <= 3
        rays = there.cameras.image_rays(13)
        points = rays.points(depth.reshape(-1) / there.cameras.depth_factors(rays))
        points = points[depth.reshape(-1) > 0]
        time = float(scene.moments[moment])
        assert builtin.signed_distance(name, points, time).abs().max() < 2e-3
        other = builtin.signed_distance(name, points, 0.5).abs()
        assert float((other > 0.01).float().mean()) > 0.05  # something moved
        normal = builtin.normals(there, 13)[depth > 0]
        inside = points - 0.02 * normal.reshape(-1, 3)
        assert float((builtin.signed_distance(name, inside, time) < 0).float().mean()) > 0.97


def test_everything_stays_within_boxes_and_bounds(name):
    generator = np.random.default_rng(1)
    model = models.MODELS[name]
    points = generator.uniform(-1.4, 1.4, (3, 60000)).astype(np.float32)
    for time in np.linspace(0, 1, 2 * model.moments - 1):
        for part in model.parts(float(time)):
            assert np.abs(part.corners()).max() < 1.45, part.name
            local = part.to_local(points)
            inside = part.distance(local) < 0
            low, high = (np.asarray(corner)[:, None] for corner in part.box)
            assert ((local >= low) & (local <= high)).all(axis=0)[inside].all(), part.name
            assert np.abs(points[:, inside]).max(initial=0) < model.half_bounds, part.name


def test_the_distance_to_a_bent_figure_is_a_lower_bound():
    generator = np.random.default_rng(2)
    part = bodies.figure(bodies.Pose(lean=(0.2, -0.1), stretch=1.12, lift=30.0))
    points = generator.uniform(-0.8, 0.8, (3, 60000)).astype(np.float32)
    value = part.distance(points)
    surface = points[:, np.abs(value) < 2e-3]
    outside = points[:, value > 0][:, :3000]
    gap = np.linalg.norm(outside[:, :, None] - surface[:, None], axis=0).min(axis=1)
    assert surface.shape[1] > 100
    assert (part.distance(outside) < gap + 0.012).all()


def test_signed_distances_are_true_near_the_surface():
    """Against the nearest of many exact surface points, seen by cameras at the same time."""
    scene = load("builtin:moving").at_moment(3)
    time = float(scene.moments[0])
    surface = []
    for index in range(12):
        rays, depth = scene.cameras.image_rays(index), scene.depths.load(index).reshape(-1)
        points = rays.points(depth / scene.cameras.depth_factors(rays))[depth > 0]
        surface.append(points)
    surface = torch.cat(surface)
    normal = torch.cat(
        [builtin.normals(scene, index)[scene.depths.load(index) > 0] for index in range(12)]
    )
    chosen = torch.arange(0, len(surface), 40)
    for shift in (-0.02, 0.02):
        moved = surface[chosen] + shift * normal[chosen]
        nearest = torch.cdist(moved, surface).min(dim=1).values
        found = builtin.signed_distance("moving", moved, time)
        # the cloud has gaps of a hundredth, so its distance is a little long
        inside = nearest < 0.021
        assert float(inside.float().mean()) > 0.8
        assert float((found[inside].abs() - 0.02).abs().median()) < 5e-4
        assert float((torch.sign(found) == np.sign(shift)).float().mean()) > 0.99


def test_the_fast_group_is_the_slow_one_carried_by_a_tenth_of_the_side():
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(0)) - 0.5
    places = []
    for step in (4, 5):
        time = step / (models.GROUP_MOMENTS - 1)
        slow, fast = models.group(time), models.fast_group(time)
        turn = torch.from_numpy(fast[0].rotation @ slow[0].rotation.T)
        shift = torch.tensor(fast[0].offset)  # the figure stands at the group's origin
        expected = builtin.signed_distance("moving", points, time)
        carried = builtin.signed_distance("moving-fast", points @ turn.T + shift, time)
        assert torch.allclose(carried, expected, atol=1e-5)
        places.append((turn, shift))
    side = 2 * models.MODELS["moving-fast"].half_bounds
    assert float((places[1][1] - places[0][1]).norm()) == pytest.approx(0.1 * side, rel=0.01)
    between = places[1][0] @ places[0][0].T
    angle = torch.rad2deg(torch.arccos((between.trace() - 1) / 2))
    assert float(angle) == pytest.approx(15.0, abs=0.01)


def test_the_stage_has_a_blow_and_a_guest():
    def found(moment):
        parts = models.stage(moment / (models.STAGE_MOMENTS - 1))
        return {part.name: part for part in parts}

    guests = [moment for moment in range(models.STAGE_MOMENTS) if "duck" in found(moment)]
    assert guests == list(range(7, 17))
    places = np.array([found(moment)["block"].offset for moment in range(models.STAGE_MOMENTS)])
    steps = np.linalg.norm(np.diff(places, axis=0), axis=1)
    assert steps[11] > 0.8 and np.delete(steps, 11).max() == 0
    assert found(0)["ring"].offset == found(23)["ring"].offset  # some things stay
    lowest = [min(part.corners()[2].min() for part in found(m).values()) for m in (0, 9, 20)]
    assert np.ptp(lowest) < 1e-6  # nothing sinks below the stand


def test_a_moment_is_traced_when_asked_for_and_kept(cache, monkeypatch):
    scene = load("builtin:moving", image_scale=0.125)
    (folder,) = [*cache.glob("moving-*-16")] or [None]
    assert folder is None
    first = scene.images.load(12 * 3 + 5)
    (folder,) = cache.glob("moving-*-16")
    assert [path.name for path in folder.iterdir()] == ["moment_03.npz"]
    monkeypatch.setattr(scenes.MomentPictures, "_trace", None)
    again = load("builtin:moving", image_scale=0.125)
    assert torch.equal(again.images.load(12 * 3 + 5), first)
    with pytest.raises(IndexError):
        again.images.load(len(again.images))


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(DataError, match="leaves no pixels"):
        load("builtin:moving", image_scale=0.001)
    with pytest.raises(InputError, match="time must be within 0 and 1; got None"):
        builtin.parts("builtin:moving")
    with pytest.raises(InputError, match="got 1.5"):
        builtin.signed_distance("moving", torch.zeros(1, 3), 1.5)
    with pytest.raises(DataError, match="exact shape is not known"):
        builtin.parts("captures/yard", 0.0)
