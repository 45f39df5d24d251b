"""Pictures hold what they should, where it should be: colors are looked up at projected points."""

import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from scipy.spatial import Delaunay

from lumigraph import viewer
from lumigraph.core import CameraModel, Cameras, GaussianCloud, PointCloud, Scene, cube
from lumigraph.core.errors import ConfigError, DataError, InputError, MissingExtraError
from lumigraph.core.frusta import frusta
from lumigraph.core.transforms import look_at
from lumigraph.datasets.scene_picture import OTHER_COLOR, TRAIN_COLOR
from lumigraph.export import MeshEvaluation, MeshScoreOptions, seen_mesh_error
from lumigraph.export.mesh_reading import MeshPart, TriangleMesh
from lumigraph.viewer.pictures import drawing as pictures

BARE = viewer.PictureOptions(size=(320, 240), background="white", legend=False, axes=False)


def is_red(image):
    rgb = image.astype(int)
    return (rgb[..., 0] > 2 * rgb[..., 1] + 20) & (rgb[..., 0] > 2 * rgb[..., 2] + 20)


def is_white(image):
    return (image > 250).all(axis=-1)


def hull_masks(corners, size, *, slack=2.0):
    """Pixels surely inside and surely outside of the convex hull of projected corners (N, 2)."""
    x, y = np.meshgrid(np.arange(size[0]) + 0.5, np.arange(size[1]) + 0.5)
    pixels = np.stack([x, y], axis=-1).reshape(-1, 2)
    middle = corners.mean(axis=0)
    length = np.linalg.norm(corners - middle, axis=1, keepdims=True)
    grown = [middle + (corners - middle) * (1 + sign * slack / length) for sign in (-1, 1)]
    inside = Delaunay(grown[0]).find_simplex(pixels) >= 0
    outside = Delaunay(grown[1]).find_simplex(pixels) < 0
    return inside.reshape(size[::-1]), outside.reshape(size[::-1])


def near(image, pixels, color, *, within=40, radius=2):
    """Share of pixels (N, 2) that have a pixel of about a color "#rrggbb" beside them."""
    wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
    close = np.abs(image.astype(int) - wanted).max(axis=-1) <= within
    found = []
    for x, y in np.floor(pixels).astype(int):
        rows = slice(max(0, y - radius), y + radius + 1)
        found.append(close[rows, max(0, x - radius) : x + radius + 1].any())
    return np.mean(found)


def check_red_box(image, corners):
    size = image.shape[1::-1]
    inside, outside = hull_masks(corners, size)
    assert inside.sum() > 500 and outside.sum() > 500
    assert is_red(image)[inside].mean() > 0.99
    assert is_white(image)[outside].mean() > 0.99


@pytest.mark.parametrize("up", [(0.0, 0.0, 1.0), (0.0, -1.0, 0.0), (1.0, 0.2, 0.0)])
def test_a_red_box_is_where_the_view_says(up, box_mesh):
    mesh = box_mesh(at=(1000.0, -2000.0, 30.0))  # far from the origin, as map coordinates are
    report = viewer.picture([viewer.MeshItem(mesh)], options=replaced(up=up))
    corners = report.view.project(mesh.vertices)
    check_red_box(report.image, corners)
    # All of it is in view, large, and what is up is up.
    low, high = corners.min(axis=0), corners.max(axis=0)
    assert (low > 0).all() and (high < (320, 240)).all() and (high - low).max() > 0.6 * 240
    ends = report.view.project(np.array([[1000.0, -2000, 30]]) + np.outer([0, 0.3], up))
    assert ends[1, 1] < ends[0, 1]


def replaced(**changes):
    values = {name: getattr(BARE, name) for name in BARE.__dataclass_fields__}
    return viewer.PictureOptions(**{**values, **changes})


def test_a_view_from_a_camera_is_that_of_the_camera(box_mesh):
    pose = look_at(torch.tensor([2.5, -1.0, 1.2]), torch.tensor([0.2, 0, 0]), up=(0.0, 0.0, 1.0))
    cameras = Cameras.from_intrinsics(pose, 200, 100, 150.0, 120.0, 80.0, 62.0)
    view = viewer.PictureView.of_camera(cameras, 0, (320, 320))
    assert view.size == (256, 160) or view.size[0] <= 320
    mesh = box_mesh(0.6)
    report = viewer.picture([viewer.MeshItem(mesh)], view=view, options=BARE)
    pixels, _ = cameras.project(torch.from_numpy(mesh.vertices).float(), 0)
    scale = np.array(view.size) / (200, 100)
    np.testing.assert_allclose(view.project(mesh.vertices), pixels.numpy() * scale, atol=0.6)
    check_red_box(report.image, pixels.numpy() * scale)


def test_cameras_stand_where_they_are_in_the_color_of_their_split(ring_scene):
    scene = ring_scene()
    items = [viewer.CamerasItem(scene.cameras, scene.splits, length=0.8)]
    report = viewer.picture(items, options=replaced(size=(640, 480)))
    shapes = frusta(scene.cameras, 0.8)
    for index in range(len(scene.cameras)):
        color = TRAIN_COLOR if index % 2 == 0 else OTHER_COLOR
        rim = shapes.rims[index].numpy()
        steps = np.linspace(0.02, 0.98, 25)[:, None]
        edges = [a + (b - a) * steps for a, b in zip(rim, np.roll(rim, 1, axis=0), strict=True)]
        edges += [shapes.apexes[index].numpy() * (1 - steps) + corner * steps for corner in rim]
        share = near(report.image, report.view.project(np.concatenate(edges)), color, within=100)
        assert share > 0.9, index
    assert [entry.text for entry in items[0].legend()] == ["4 train cameras", "4 test cameras"]
    assert is_white(report.image).mean() > 0.5


@pytest.mark.parametrize("count", [0, 1])
def test_few_cameras_are_drawn_too(ring_scene, box_mesh, count):
    cameras = ring_scene().cameras[:count]
    items = [viewer.MeshItem(box_mesh()), viewer.CamerasItem(cameras)]
    report = viewer.picture(items, options=BARE)
    assert is_red(report.image).sum() > 200
    assert [entry.text for entry in items[1].legend()] == ["1 camera"] * count


def test_points_and_bounds_are_drawn_in_place():
    places = np.array([[-1.0, -1, -1], [1, 1, 1], [1, -1, 0.5]])
    cloud = PointCloud(
        torch.from_numpy(places), torch.tensor([[220, 20, 20]] * 3, dtype=torch.uint8)
    )
    items = [viewer.PointsItem(cloud, size=20), viewer.BoundsItem(cube(torch.zeros(3), 2.4))]
    report = viewer.picture(items, options=BARE)
    assert near(report.image, report.view.project(places), "#dc1414", radius=1) == 1
    assert 100 < is_red(report.image).sum() < 800  # three dots 14 pixels wide
    corners = items[1].extent()
    edge = corners[0] + (corners[4] - corners[0]) * np.linspace(0, 1, 30)[:, None]
    assert near(report.image, report.view.project(edge), "#616e7c", within=70) > 0.9
    assert items[1].legend()[0].text == "bounds, side 2.4"


def test_points_without_colors_tell_their_height():
    places = torch.rand(4000, 3, generator=torch.Generator().manual_seed(0)).double()
    item = viewer.PointsItem(PointCloud(places), size=5)
    report = viewer.picture([item], options=BARE)
    low, high = (report.view.project(np.array([[0.5, 0.5, z]]))[0, 1] for z in (0.05, 0.95))
    rows = report.image.astype(float)
    drawn = ~is_white(report.image)
    blueness = rows[..., 2] - rows[..., 0]
    lower, upper = blueness[int(low) - 8 :][drawn[int(low) - 8 :]], blueness[: int(high)]
    assert lower.mean() > 10 > upper[drawn[: int(high)]].mean()
    assert "colored by height" in item.legend()[0].text


def gaussians(means, scales, *, opacity=3.0):
    count = len(means)
    red = (torch.tensor([0.86, 0.08, 0.08]) - 0.5) / 0.28209479
    return GaussianCloud(
        torch.tensor(means),
        torch.tensor([[0.5**0.5, 0.0, 0.0, 0.5**0.5]]).expand(count, 4).clone(),
        torch.tensor(scales).log(),
        torch.full((count,), opacity),
        red.expand(count, 1, 3).clone(),
    )


def test_gaussians_are_ellipsoids_of_their_axes():
    # A quarter turn about z: the long axis x of the Gaussian lies along y.
    cloud = gaussians([[0.0, 0.0, 0.0]], [[0.5, 0.05, 0.05]])
    item = viewer.GaussiansItem(cloud, sigmas=2.0, bounds=cube(torch.zeros(3), 10.0))
    report = viewer.picture([item], options=BARE)
    ends = np.array([[0.0, 0.97, 0], [0, -0.97, 0], [0, 0.5, 0], [0, 0, 0.08], [0, 0, -0.08]])
    x, y = np.floor(report.view.project(ends)).astype(int).T
    assert is_red(report.image)[y, x].all()
    beyond = np.array([[0.0, 1.06, 0], [0, -1.06, 0], [0.3, 0, 0], [0, 0, 0.3]])
    x, y = np.floor(report.view.project(beyond)).astype(int).T
    assert is_white(report.image)[y, x].all()


def test_large_and_opaque_gaussians_come_first():
    means = [[0.0, 0, 0], [0.2, 0, 0], [0.4, 0, 0], [90.0, 0, 0]]
    cloud = gaussians(means, [[0.01] * 3, [0.03] * 3, [0.02] * 3, [0.03] * 3])
    bounds = cube(torch.zeros(3), 2.0)
    chosen = viewer.GaussiansItem(cloud, most=2, bounds=bounds)._chosen()
    torch.testing.assert_close(chosen.means[:, 0], torch.tensor([0.2, 0.4]))
    faint = gaussians(means, [[0.01] * 3] * 4, opacity=-5.0)
    with pytest.raises(DataError, match="nothing to draw"):
        viewer.picture([viewer.GaussiansItem(faint, bounds=bounds)])


def test_textures_are_drawn_upright():
    """A texture whose upper half is red, on a square that stands along z."""
    texture = np.full((8, 8, 3), 255, np.uint8)
    texture[:4] = (220, 20, 20)
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 0, 1], [0, 0, 1]])
    uv = corners[:, [0, 2]]
    part = MeshPart(corners, np.array([[0, 1, 2], [0, 2, 3]]), uv=uv, texture=texture)
    report = viewer.picture([viewer.MeshItem(TriangleMesh([part]))], options=BARE)
    places = np.array([[0.2, 0, 0.8], [0.8, 0, 0.7], [0.2, 0, 0.2], [0.8, 0, 0.3]])
    x, y = np.floor(report.view.project(places)).astype(int).T
    assert is_red(report.image)[y, x].tolist() == [True, True, False, False]


def test_errors_have_the_colors_of_the_bar():
    shape = trimesh.creation.icosphere(subdivisions=4)
    mesh = TriangleMesh.of(shape.vertices, shape.faces)
    right = mesh.vertices[:, 0] > 0  # half of it has no error, half has the largest
    item = viewer.ErrorItem(mesh, np.where(right, 0.1, 0.0))
    bar = item.bar()
    assert bar.limit == pytest.approx(0.1) and not bar.open_ended
    assert dict(bar.marks)["median"] == pytest.approx(float(np.median(item.distances)))
    report = viewer.picture([item], options=replaced(size=(640, 480)))
    image = report.image.astype(int)
    x, y = (
        np.floor(report.view.project(np.array([[0.75, -0.6, 0.3], [-0.75, -0.6, 0.3]])))
        .astype(int)
        .T
    )
    dark, pale = image[y, x]
    assert dark.max() < 110 and dark[0] > 1.5 * dark[1]  # purple
    assert pale.min() > 130 and np.ptp(pale) < 40  # grey
    # The bar: pale below, dark purple above, in the right part of the picture.
    strip = image[:, 520:, :]
    assert (strip.max(axis=-1) < 110).any() and len(np.unique(strip.reshape(-1, 3), axis=0)) > 60


def test_an_error_beyond_the_limit_is_said_to_be(box_mesh):
    item = viewer.ErrorItem(box_mesh(), np.linspace(0, 1, 8), limit=0.5)
    assert item.bar().open_ended and item.shown_limit == 0.5
    exact = viewer.ErrorItem(box_mesh(), np.zeros(8))
    assert exact.shown_limit > 0
    viewer.picture([exact], options=BARE)


def test_what_is_not_compared_is_dark_gray(box_mesh):
    distances = np.where(box_mesh().vertices[:, 0] > 0, np.nan, 0.02)
    item = viewer.ErrorItem(box_mesh(), distances)
    assert item.shown_limit == pytest.approx(0.02) and not item.bar().open_ended
    assert [entry.text for entry in item.legend()] == ["not compared"]
    assert viewer.ErrorItem(box_mesh(), np.full(8, np.nan)).shown_limit > 0
    seen = viewer.picture([viewer.ErrorItem(box_mesh(), np.zeros(8))], options=BARE).image
    unseen = viewer.picture([viewer.ErrorItem(box_mesh(), np.full(8, np.nan))], options=BARE).image
    changed = seen.astype(int).sum(axis=2) - unseen.astype(int).sum(axis=2)
    assert (changed > 100).mean() > 0.1


def test_points_of_the_truth_show_their_errors(box_mesh):
    points = np.random.default_rng(0).uniform(0, 1, (300, 3))
    item = viewer.PointErrorItem(points, np.linspace(0, 1, 300), limit=0.5)
    assert item.bar().open_ended and item.bar().text == "distance to mesh"
    assert item.legend()[0].text == "300 points"
    assert viewer.picture([item], options=BARE).image.std() > 5


@pytest.mark.parametrize("all_around", [True, False])
def test_scored_meshes_are_shown_from_where_cameras_stand(tmp_path, all_around):
    angles = torch.linspace(0, 5.5 if all_around else 0.8, 8)
    eyes = [torch.tensor([4 * a.cos(), 4 * a.sin(), 1.0]) for a in angles]
    poses = torch.stack([look_at(eye, torch.zeros(3), up=(0.0, 0.0, 1.0)) for eye in eyes])
    cameras = Cameras.from_intrinsics(poses, 64, 64, 64.0)
    splits = {"train": torch.arange(8)}
    scene = Scene("ring", "memory", cameras, splits, cube(torch.zeros(3), 3.0))
    shape = trimesh.creation.icosphere(subdivisions=3)
    mesh = TriangleMesh.of(shape.vertices, shape.faces)
    truth = TriangleMesh.of(shape.vertices * 0.9, shape.faces)
    options = MeshScoreOptions(samples=1000)
    error, words = seen_mesh_error(mesh, truth, scene, options=options)
    found = MeshEvaluation(mesh, truth, error, {"truth": "truth.ply", "protocol": words}, "ball")
    out = viewer.picture_of_errors(found, scene, out=tmp_path / "renders" / "x.png", limit=0.2)
    picture = np.asarray(Image.open(out))
    assert picture.shape == (800, 2200 if all_around else 1100, 3)
    # Half way up the colors: orange, on both sides of the ball that cameras see.
    orange = (picture[..., 0] > 200) & (picture[..., 2] < 120)
    assert orange[:, :1100].mean() > 0.1 and orange[:, -1100:].mean() > 0.1


def test_scenes_show_cameras_points_and_bounds(ring_scene):
    report = viewer.picture_of_scene(ring_scene(), options=replaced(legend=True, size=(640, 480)))
    assert report.kind == "scene" and report.picture.path is None
    for color in (TRAIN_COLOR, OTHER_COLOR):
        legend = report.picture.image[-150:, :60]
        wanted = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])
        assert (np.abs(legend.astype(int) - wanted).max(axis=-1) < 12).sum() > 40
    # The far point is left out, so that the cameras fill the picture.
    places = report.picture.view.project(ring_scene().cameras.positions.double().numpy())
    assert np.ptp(places[:, 0]) > 300
    seen = viewer.picture_of_scene(
        ring_scene(), options=BARE, subject=viewer.SubjectOptions(camera=2)
    )
    assert seen.picture.image.shape == (240, 320, 3)


def test_title_and_legend_can_be_read_on_dark_pictures(box_mesh):
    options = replaced(background="dark", title="A title", legend=True, size=(640, 480))
    image = viewer.picture([viewer.MeshItem(box_mesh())], options=options).image
    assert image[5:45, :200].max() > 200 and image[2, 300].max() < 80


def test_pictures_are_written_whole_or_not_at_all(tmp_path, monkeypatch, box_mesh):
    out = tmp_path / "box.png"
    report = viewer.picture([viewer.MeshItem(box_mesh())], out=out, options=BARE)
    np.testing.assert_array_equal(np.asarray(Image.open(out)), report.image)
    before = out.read_bytes()

    def full(image, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "_encoded", full)
    with pytest.raises(DataError, match=r"box.png: cannot be written \(No space"):
        viewer.picture([viewer.MeshItem(box_mesh())], out=out, options=BARE)
    assert out.read_bytes() == before and list(tmp_path.iterdir()) == [out]


def test_jpeg_is_written_too(tmp_path, box_mesh):
    viewer.picture([viewer.MeshItem(box_mesh())], out=tmp_path / "box.jpg", options=BARE)
    with Image.open(tmp_path / "box.jpg") as image:
        assert image.format == "JPEG" and image.size == (320, 240)


def test_bad_requests_are_refused(tmp_path, box_mesh):
    mesh = viewer.MeshItem(box_mesh())
    for out, reason in ((tmp_path / "x.gif", "ends in one of"), (tmp_path, "ends in one of")):
        with pytest.raises(InputError, match=reason):
            viewer.picture([mesh], out=out)
    (tmp_path / "a.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        viewer.picture([mesh], out=tmp_path / "a.png")
    with pytest.raises(DataError, match="nothing to draw"):
        viewer.picture([])
    broken = PointCloud(torch.tensor([[0.0, 0.0, torch.nan]]))
    with pytest.raises(DataError, match="not finite"):
        viewer.picture([mesh, viewer.BoundsItem(torch.full((2, 3), torch.nan))])
    with pytest.raises(DataError, match="nothing to draw|not finite"):
        viewer.picture([viewer.PointsItem(broken)])
    for changes in ({"size": (10, 9000)}, {"background": "pink"}, {"up": (0.0, 0.0, 0.0)}):
        with pytest.raises(ConfigError, match=next(iter(changes))):
            viewer.PictureOptions(**changes)
    with pytest.raises(InputError, match="threshold"):
        viewer.SubjectOptions(threshold=-1.0)
    fisheye = Cameras.from_intrinsics(torch.eye(4), 8, 8, 4.0, model=CameraModel.FISHEYE)
    with pytest.raises(InputError, match="camera 0 is fisheye"):
        viewer.PictureView.of_camera(fisheye, 0, (320, 240))
    with pytest.raises(InputError, match="camera 5 does not exist"):
        viewer.PictureView.of_camera(fisheye, 5, (320, 240))


def test_the_missing_extra_is_named(monkeypatch, box_mesh):
    monkeypatch.setitem(sys.modules, "pyvista", None)
    with pytest.raises(MissingExtraError, match=r"lumigraph\[geometry\]"):
        viewer.picture([viewer.MeshItem(box_mesh())])


def test_nothing_is_printed_without_a_display(tmp_path):
    (tmp_path / "t.obj").write_text("v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 3\n")
    words = ["inspect", str(tmp_path / "t.obj"), "--out", str(tmp_path / "t.png"), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "DISPLAY"}
    command = [sys.executable, "-m", "lumigraph", *words, "--size", "128x96"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.count("\n") == 1 and (tmp_path / "t.png").stat().st_size > 500
    assert "WARN" not in done.stderr and len(done.stderr.splitlines()) == 3
