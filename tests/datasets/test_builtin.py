"""The built-in object scene: geometry against closed forms, cache, cameras, messages."""

import math

import numpy as np
import pytest
import torch

from lumigraph.core.cameras import Cameras
from lumigraph.core.errors import DataError
from lumigraph.core.transforms import look_at
from lumigraph.datasets import builtin, distances, object_model, object_pictures
from lumigraph.datasets.sphere_tracing import Part, PinholeView, soft_shadow, trace

IDENTITY = np.eye(3, dtype=np.float32)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache folder that the tests of this file share."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def small_scene(cache, monkeypatch):
    """Few and small pictures, so that making them takes a moment."""
    monkeypatch.setenv("LUMIGRAPH_CACHE", str(cache))
    monkeypatch.setattr(builtin, "SIDE", 40)
    monkeypatch.setattr(builtin, "FOCAL", 60.0)
    monkeypatch.setattr(builtin, "TRAIN_VIEWS", 6)
    monkeypatch.setattr(builtin, "TEST_VIEWS", 2)
    return builtin.load("builtin:object")


def view_from(position, *, side=60, focal=90.0, target=(0.0, 0.0, 0.0)):
    """A camera that looks at a target, z up."""
    pose = look_at(
        torch.tensor(position, dtype=torch.float64),
        torch.tensor(target, dtype=torch.float64),
        up=[0.0, 0.0, 1.0],
    )
    return PinholeView(pose.numpy(), side, side, focal)


def test_depth_and_normal_of_a_ball_match_the_closed_form():
    center, radius = np.array([0.2, -0.1, 0.15]), 0.7
    ball = Part(
        "ball",
        lambda points: distances.sphere(points, radius),
        lambda points: np.ones_like(points),
        ((-radius,) * 3, (radius,) * 3),
        tuple(center),
        IDENTITY,
        0.0,
        convex=True,
    )
    view = view_from((2.0, 1.5, 1.0), side=61)
    geometry = object_pictures.trace_geometry([ball], view)
    directions = view.directions().astype(np.float64)
    origin = view.camera_to_world[:3, 3]
    along = np.einsum("k,khw->hw", center - origin, directions)
    discriminant = along**2 - np.sum((center - origin) ** 2) + radius**2
    # Rays within a thousandth of the silhouette may fall on either side.
    clear = np.abs(discriminant) > 2e-3
    met = discriminant > 0
    assert ((geometry.depth > 0) == met)[clear].all()
    inside = met & clear
    distance = along - np.sqrt(np.where(inside, discriminant, 0))
    forward = np.einsum("k,khw->hw", view.camera_to_world[:3, 2], directions)
    assert np.abs(geometry.depth - distance * forward)[inside].max() < 2e-4
    points = origin[:, None, None] + directions * distance
    normal = np.moveaxis(points - center[:, None, None], 0, -1) / radius
    assert np.abs(geometry.normal - normal)[inside].max() < 2e-3
    assert (geometry.normal[geometry.depth == 0] == 0).all()


@pytest.mark.parametrize("position", [(3.0, -2.4, 1.0), (-2.0, 2.0, 2.8), (-0.4, -3.9, 0.4)])
def test_shortcuts_find_what_plain_sphere_tracing_finds(position):
    """Cones, secant steps and early ends against short plain steps on the whole model."""
    parts = object_model.model()
    view = view_from(position, side=48, focal=72.0)
    hits = trace(parts, [view])
    travelled = np.full(hits.part.size, 2.0, np.float32)
    for _ in range(400):
        points = hits.origins + hits.directions * travelled
        clearance = np.min([part.distance(part.to_local(points)) for part in parts], axis=0)
        travelled += 0.6 * np.clip(clearance, -0.02, 0.05)
    expected = clearance < 5e-4
    found = hits.part >= 0
    # Rays that brush a silhouette are undecided: at most a few in two thousand.
    assert (found != expected).sum() <= 4
    both = found & expected
    off = np.abs(hits.distance - travelled)[both] > 2e-3
    assert off.sum() <= 4


def test_distances_are_lower_bounds_for_tracing():
    generator = np.random.default_rng(0)
    for part in object_model.model():
        low, high = (np.asarray(corner)[:, None] for corner in part.box)
        first = generator.uniform(low - 0.2, high + 0.2, (3, 4000)).astype(np.float32)
        outside = first[:, part.distance(first) > 0]
        surface = generator.uniform(low, high, (3, 20000)).astype(np.float32)
        surface = surface[:, np.abs(part.distance(surface)) < 2e-3]
        assert surface.shape[1] > 20
        gap = np.linalg.norm(outside[:, :, None] - surface[:, None, ::7], axis=0).min(axis=1)
        assert (part.distance(outside) < gap + 0.012).all(), part.name


def test_every_part_lies_inside_its_box_and_the_bounds():
    generator = np.random.default_rng(1)
    for part in object_model.model():
        points = generator.uniform(-1.6, 1.6, (3, 40000)).astype(np.float32)
        inside = points[:, part.distance(points) < 0]
        low, high = (np.asarray(corner)[:, None] for corner in part.box)
        assert ((inside >= low) & (inside <= high)).all(), part.name
        assert np.abs(part.corners()).max() < builtin.HALF_BOUNDS, part.name


def test_scene_has_splits_alpha_depths_and_normals(small_scene):
    scene = small_scene
    assert scene.has_alpha and scene.background == "white" and scene.aabb_scale == 1
    assert scene.split("train").tolist() == list(range(6))
    assert scene.split("test").tolist() == [6, 7]
    assert scene.images.name(6) == "test_000"
    image, depth = scene.images.load(7), scene.depths.load(7)
    assert image.shape == (40, 40, 4) and image.dtype == torch.uint8
    assert depth.shape == (40, 40)
    alpha = image[..., 3]
    assert 0.2 < (alpha == 255).float().mean() < 0.6
    # The centre ray and the four rays of a pixel agree away from silhouettes.
    assert ((depth > 0) & (alpha == 0)).sum() + ((depth == 0) & (alpha == 255)).sum() <= 3
    normal = builtin.normals(scene.select(scene.split("test")), 1)
    lengths = normal.norm(dim=-1)
    assert torch.allclose(lengths[depth > 0], torch.ones(int((depth > 0).sum())), atol=1e-4)
    assert (lengths[depth == 0] == 0).all()


def test_depths_reproject_between_cameras(small_scene):
    """A surface point seen by two cameras has the depth that both say."""
    # Larger than the pictures of the scene, so that fewer pixels lie on silhouettes.
    cameras = small_scene.cameras.resized(4.0)
    depths = builtin.ExactDepths(cameras)
    rays = cameras.image_rays(6)
    depth = depths.load(6).reshape(-1)
    factors = cameras.depth_factors(rays)
    seen = depth > 0
    points = (rays.origins + rays.directions * (depth / factors)[:, None])[seen]
    pixels, other_depth = cameras.project(points, 7)
    column, row = pixels.long().clamp(0, 159).unbind(-1)
    picture = depths.load(7)
    other = picture[row, column]
    # Beside a silhouette of the other view the nearest pixel may be of another surface.
    around = torch.stack([picture, -picture])[None]
    high, low = torch.nn.functional.max_pool2d(around, 3, stride=1, padding=1)[0]
    smooth = (high + low)[row, column] < 0.25
    # A pixel is 0.017 wide at the stand and covers four times that in depth.
    agrees = (other - other_depth).abs() < 0.08
    hidden = (other > 0) & (other < other_depth - 0.08)
    assert smooth.float().mean() > 0.6
    assert (agrees | hidden)[smooth].float().mean() > 0.995
    # The cameras face each other, so each sees little of what the other does.
    assert agrees[smooth].sum() > 500


def test_the_second_load_reads_the_cache_and_is_equal(small_scene, monkeypatch):
    def fail(cameras):
        raise AssertionError("made again")

    monkeypatch.setattr(builtin, "_render_all", fail)
    again = builtin.load("object")
    assert torch.equal(again.images.load(3), small_scene.images.load(3))


def test_a_convex_shape_would_cast_no_shadow_on_itself():
    """Soft shadows of a ball, asked to shade itself, stay light where it faces the sun."""
    parts = [part for part in object_model.model() if part.name == "ball"]
    generator = np.random.default_rng(3)
    normals = generator.normal(size=(3, 500)).astype(np.float32)
    normals /= np.linalg.norm(normals, axis=0)
    center = np.asarray(parts[0].offset, np.float32)[:, None]
    points = center + normals * np.float32(0.215 + 0.012)
    light = soft_shadow(parts, points, object_model.SUN_DIRECTION, 0.22)
    facing = (normals * object_model.SUN_DIRECTION[:, None]).sum(axis=0)
    assert light[facing > 0.3].min() > 0.95
    assert light[facing < -0.5].max() < 0.05


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_cache_is_made_again(small_scene, cache, damage, caplog):
    (path,) = (cache / "scenes").glob("object-*.npz")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes({"cut": content[:5000], "empty": b"", "flip": content}.get(damage, b""))
    if damage == "other":
        with path.open("wb") as stream:
            np.savez(stream, pictures=np.zeros((2, 2), np.uint8))
    again = builtin.load("builtin:object")
    assert torch.equal(again.images.load(0), small_scene.images.load(0))
    assert "made again" in caplog.text
    assert not list((cache / "scenes").glob("*.tmp"))


def test_a_cache_that_cannot_be_written_is_only_a_warning(
    small_scene, tmp_path, monkeypatch, caplog
):
    blocker = tmp_path / "file"
    blocker.write_text("not a folder")
    monkeypatch.setenv("LUMIGRAPH_CACHE", str(blocker))
    scene = builtin.load("builtin:object")
    assert torch.equal(scene.images.load(0), small_scene.images.load(0))
    assert "LUMIGRAPH_CACHE" in caplog.text


def test_cameras_look_at_the_centre_from_the_sphere():
    cameras = builtin._cameras()
    assert len(cameras) == 120
    positions = cameras.positions
    assert torch.allclose(positions.norm(dim=-1), torch.full((120,), 4.0), atol=1e-4)
    assert torch.allclose(cameras.forwards, -positions / 4, atol=1e-5)
    gaps = torch.cdist(positions[100:], positions[:100]).min(dim=1).values
    assert gaps.min() > 0.2, "a test view must not repeat a training view"


def test_unknown_scene_and_foreign_cameras_are_refused(small_scene):
    with pytest.raises(DataError, match=r"builtin:teapot.*available: builtin:object"):
        builtin.load("builtin:teapot")
    foreign = Cameras.from_intrinsics(torch.eye(4), 40, 40, 50.0, cx=3.0)
    with pytest.raises(DataError, match="principal point"):
        builtin.render_view(foreign, 0)


def test_render_view_matches_the_kept_picture(small_scene):
    picture = builtin.render_view(small_scene.cameras, 2)
    difference = (picture.float() - small_scene.images.load(2).float()).abs()
    # Batches differ in rounding at most, except where a ray brushes a silhouette.
    assert difference.mean() < 0.05


def test_srgb_table_matches_the_formula():
    value = np.linspace(-0.1, 1.1, 1001, dtype=np.float32)
    clipped = np.clip(value.astype(np.float64), 0, 1)
    power = 1.055 * np.maximum(clipped, 1e-9) ** (1 / 2.4) - 0.055
    expected = np.where(clipped <= 0.0031308, 12.92 * clipped, power)
    assert np.abs(object_pictures.encode_srgb(value) - expected).max() < 0.5 / 255
    assert math.isclose(object_pictures.encode_srgb(np.ones(1, np.float32))[0], 1.0, abs_tol=1e-6)
