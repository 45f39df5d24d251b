"""Pages as files: what is packed, in which frame, and that no text can break out of its place."""

import base64
import hashlib
import html.parser
import io
import json
import math
import re
import zlib
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph import export
from lumigraph.core import DataError, GaussianCloud, InputError, Scene, Similarity
from lumigraph.core.errors import ConfigError
from lumigraph.core.scene import MemoryImages, cube
from lumigraph.core.transforms import axis_of, rotation_exp
from lumigraph.export.splat_files import spz_packing
from lumigraph.export.web_page.document import asset
from lumigraph.export.web_page.packing import pack_gaussians
from lumigraph.export.web_page.views import views_of_cloud, views_of_scene
from lumigraph.fields import Gaussians
from lumigraph.renderers.splat import SplatRenderer

MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))
NASTY = '</script><script>alert(1)</script><img src=x onerror=alert(2)> & "quotes" \u00fc'


class Elements(html.parser.HTMLParser):
    """Scripts by id (or "" for the one that runs), texts and all addresses of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.scripts: dict[str, str] = {}
        self.texts: dict[str, list[str]] = {}
        self.attributes: list[tuple[str, str, str | None]] = []
        self._open: list[tuple[str, str]] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in ("meta", "link", "img"):
            self._open.append((tag, dict(attributes).get("id", "")))

    def handle_endtag(self, tag):
        self._open.pop()

    def handle_data(self, data):
        tag, name = self._open[-1] if self._open else ("", "")
        if tag == "script":
            self.scripts[name] = self.scripts.get(name, "") + data
        else:
            self.texts.setdefault(tag, []).append(data)


def elements_of(path: Path) -> Elements:
    return Elements(path.read_text(encoding="utf-8"))


def content_of(path: Path) -> tuple[dict, bytes]:
    found = elements_of(path).scripts
    return json.loads(found["scene"]), base64.b64decode(found.get("data", ""))


@dataclass
class FakeRun:
    """As much of a run as a page asks for, in a scene frame that is not the capture's."""

    field: object
    renderer: object
    cameras: object
    method: str = "gaussians"
    name: str = "courtyard"
    names: list[str] | None = None
    path: Path = Path("runs/x")
    config: SimpleNamespace = field(init=False)

    def __post_init__(self):
        self.config = SimpleNamespace(method=self.method)

    def model(self, device=None):
        if self.method != "gaussians":
            return self.renderer
        return SimpleNamespace(field=self.field, renderer=self.renderer)

    def scene(self):
        count = len(self.cameras)
        images = [torch.zeros(4, 4, 3, dtype=torch.uint8)] * count
        return Scene(
            self.name,
            "memory",
            self.cameras,
            {"train": torch.arange(count)},
            cube(torch.zeros(3), 2.0),
            images=MemoryImages(images, names=self.names),
            normalization=MOVE,
        )


@pytest.fixture
def gaussians_run(random_cloud, cameras_around):
    def make(**changes) -> FakeRun:
        renderer = SplatRenderer(background=torch.tensor([0.2, 0.4, 0.6]), near=0.02)
        return FakeRun(Gaussians(random_cloud()), renderer, cameras_around(6), **changes)

    return make


def unpacked(packed) -> dict[str, np.ndarray]:
    """The planes read back, as gaussians.js does."""
    layout = packed.layout
    planes = np.frombuffer(zlib.decompress(packed.data), np.uint8).reshape(-1, layout.count)
    wide = np.zeros((layout.count, 3, 4), np.uint8)
    wide[:, :, :3] = planes[:9].T.reshape(-1, 3, 3)
    sums = np.cumsum(wide.view("<u4")[:, :, 0], axis=0, dtype=np.uint32)
    nine = np.ascontiguousarray(sums).view(np.uint8).reshape(-1, 3, 4)[:, :, :3].reshape(-1, 9)
    return {
        "means": spz_packing.unpack_positions(nine, layout.fractional_bits),
        "log_scales": planes[9:12].T * layout.scale_step + layout.scale_low,
        "rotations": spz_packing.unpack_rotations(np.ascontiguousarray(planes[12:16].T)),
        "opacities": planes[16] / 255,
        "colors": planes[17:20].T * layout.color_step + layout.color_low,
        "rest": spz_packing.unpack_harmonics(planes[20:].T.reshape(layout.count, -1, 3)),
    }


def test_bytes_hold_the_gaussians_to_half_a_step(random_cloud):
    cloud = random_cloud(400, degree=2)
    packed = pack_gaussians(cloud, degree=2, most=10**6)
    found = unpacked(packed)
    seen = cloud.select(cloud.opacity_logits.sigmoid() > 1 / 255)
    assert packed.layout.count == len(seen) and packed.layout.degree == 2
    gaps = torch.cdist(torch.from_numpy(found["means"]), seen.means)
    given = seen.select(gaps.argmin(dim=1))
    step = 2.0**-packed.layout.fractional_bits
    assert float((torch.from_numpy(found["means"]) - given.means).abs().max()) <= 0.51 * step
    scales = found["log_scales"] - given.log_scales.numpy()
    assert np.abs(scales).max() <= 0.51 * packed.layout.scale_step < 0.03
    opacities = found["opacities"] - given.opacity_logits.sigmoid().numpy()
    assert np.abs(opacities).max() <= 0.51 / 255
    colors = found["colors"] - (0.5 + 0.2820948 * given.harmonics[:, 0].numpy())
    assert np.abs(colors).max() <= 0.51 * packed.layout.color_step
    rest = found["rest"] - given.harmonics[:, 1:].clamp(-1, 127 / 128).numpy()
    assert np.abs(rest).max() <= 0.51 / 128
    unit = torch.nn.functional.normalize(given.rotations, dim=1).numpy()
    assert (np.abs((found["rotations"] * unit).sum(axis=1)) > 1 - 1e-5).all()


def test_those_that_matter_most_are_kept(random_cloud):
    cloud = random_cloud(300)
    packed = pack_gaussians(cloud, degree=0, most=100)
    assert packed.layout.count == 100 and "that matter least (--max-gaussians 100)" in str(packed)
    opacity, scales = cloud.opacity_logits.sigmoid(), cloud.log_scales.exp()
    area = scales.prod(dim=1) / scales.amin(dim=1)
    best = (opacity * area * (opacity > 1 / 255)).topk(100).indices
    gaps = torch.cdist(torch.from_numpy(unpacked(packed)["means"]), cloud.means)
    assert set(gaps.argmin(dim=1).tolist()) == set(best.tolist())


def test_what_is_never_seen_is_left_out_and_said(random_cloud):
    cloud = random_cloud(60)
    logits = cloud.opacity_logits.clamp_min(0.0)
    logits[:7] = -9.0
    means = cloud.means.clone()
    means[10] = math.nan
    tensors = (means, *cloud.tensors()[1:3], logits, cloud.harmonics)
    packed = pack_gaussians(GaussianCloud(*tensors), degree=1, most=10**6)
    assert packed.layout.count == 52 and packed.left_out == (
        "1 Gaussians that are not finite",
        "7 too transparent to be seen",
        "harmonics of degree 2 to 3",
    )
    with pytest.raises(DataError, match="none of 60 Gaussians would be seen"):
        faint = GaussianCloud(*cloud.tensors()[:3], logits - 99, cloud.harmonics)
        pack_gaussians(faint, degree=0, most=10)


def test_positions_and_cameras_are_in_the_capture_frame(tmp_path, gaussians_run):
    run = gaussians_run()
    report = export.page(run, out=tmp_path / "a.html")
    scene, data = content_of(tmp_path / "a.html")
    back = MOVE.inverse()
    layout = SimpleNamespace(**scene["layout"])
    means = unpacked(SimpleNamespace(data=data, layout=layout))["means"] + np.array(scene["origin"])
    cloud = run.field.cloud()
    seen = cloud.means[cloud.opacity_logits.sigmoid() > 1 / 255]
    gaps = torch.cdist(torch.from_numpy(means), back.apply(seen.double()))
    assert report.count == len(seen) and float(gaps.amin(dim=1).max()) < 1e-3
    poses = back.apply_poses(run.cameras.camera_to_world.double())
    for view, pose in zip(scene["views"], poses, strict=True):
        found = np.array(view["pose"])
        found[:, 3] += scene["origin"]
        np.testing.assert_allclose(found, pose[:3], atol=1e-5)
        # all look at the middle, where the page's origin is
        middle = np.array(view["pose"])[:, 3] + view["distance"] * np.array(view["pose"])[:, 2]
        np.testing.assert_allclose(middle, 0, atol=1e-4)
    assert scene["near"] == pytest.approx(0.02 / MOVE.scale)
    assert scene["background"]["color"] == pytest.approx([0.2, 0.4, 0.6])


def test_a_sky_turns_with_the_frame(tmp_path, gaussians_run):
    run = gaussians_run()
    run.renderer = SplatRenderer(background=lambda d: 0.5 + d / 2)
    export.page(run, out=tmp_path / "a.html")
    sky = content_of(tmp_path / "a.html")[0]["background"]
    picture = np.frombuffer(base64.b64decode(sky["sky"]), np.uint8)
    picture = picture.reshape(sky["rows"], sky["columns"], 3) / 255
    row, column = 20, 100
    angle, around = (row + 0.5) / 64 * math.pi, ((column + 0.5) / 128 * 2 - 1) * math.pi
    direction = [math.sin(angle) * math.cos(around), math.sin(angle) * math.sin(around)]
    direction = torch.tensor([*direction, math.cos(angle)])
    expected = 0.5 + MOVE.apply_directions(direction) / 2
    np.testing.assert_allclose(picture[row, column], expected, atol=0.51 / 255)


def test_up_and_background_can_be_chosen(tmp_path, gaussians_run):
    options = export.PageOptions(up="-z", background="#ff8000")
    export.page(gaussians_run(), out=tmp_path / "a.html", options=options)
    scene = content_of(tmp_path / "a.html")[0]
    assert scene["up"] == [0, 0, -1] and scene["background"]["color"] == [1, 128 / 255, 0]


def test_texts_stay_texts(tmp_path, gaussians_run):
    run = gaussians_run(name=NASTY, names=[NASTY] * 6)
    export.page(run, out=tmp_path / "a.html")
    found = elements_of(tmp_path / "a.html")
    assert set(found.scripts) == {"scene", "data", "sorter", ""}
    assert found.texts["title"] == found.texts["h1"] == [NASTY]
    assert json.loads(found.scripts["scene"])["views"][0]["name"] == NASTY
    assert [text for text in found.texts["option"] if text.strip()] == [NASTY] * 6
    assert not any(tag == "img" or name.startswith("on") for tag, name, _ in found.attributes)


def test_the_policy_allows_the_page_itself_alone(tmp_path, gaussians_run):
    export.page(gaussians_run(), out=tmp_path / "a.html")
    found = elements_of(tmp_path / "a.html")
    policy = next(v for t, n, v in found.attributes if (t, n) == ("meta", "content") and "src" in v)
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy

    def allowed(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert allowed(found.scripts[""]) in policy and allowed("".join(found.texts["style"])) in policy
    addresses = [v for _, n, v in found.attributes if n in ("src", "href", "action")]
    assert addresses == ["data:,"]
    assert not re.search(r"https?://|//[a-z]+\.", (tmp_path / "a.html").read_text())


def test_assets_fit_into_a_script_element():
    for name in ("gaussians", "pictures", "camera", "controls", "shaders", "sorter"):
        text = asset(f"{name}.js").lower()
        assert "</script" not in text and "<!--" not in text


def test_files_are_framed_whole(tmp_path, random_cloud):
    cloud = random_cloud(2000)
    export.write_splats(cloud, tmp_path / "a.ply")
    report = export.page(tmp_path / "a.ply", out=tmp_path / "a.html")
    assert report.views == 1 and elements_of(tmp_path / "a.html").texts["h1"] == ["a.ply"]
    for up in ("-y", "z", "x"):
        views = views_of_cloud(cloud, up)
        pose = views.poses[0]
        points = (cloud.means.double() - views.origin - pose[:3, 3]) @ pose[:3, :3]
        inside = (points[:, :2].abs() < points[:, 2:] * math.tan(math.radians(25))).all(dim=1)
        assert float(inside.double().mean()) > 0.9
        assert float(-pose[:3, 1] @ axis_of(up)) > 0.9


def test_broken_clouds_end_in_a_line(tmp_path, random_cloud):
    cloud, target = random_cloud(400), tmp_path / "a.html"
    with pytest.raises(DataError, match="none of 0 Gaussians has a position"):
        export.page(GaussianCloud.empty(), out=target)
    nowhere = torch.full_like(cloud.means, math.nan)
    with pytest.raises(DataError, match="none of 400 Gaussians has a position"):
        export.page(GaussianCloud(nowhere, *cloud.tensors()[1:]), out=target)
    apart = torch.tensor([[1e20, 0, 0], [-1e20, 0, 0]]).repeat(200, 1)
    with pytest.raises(DataError, match="too far from each other"):
        export.page(GaussianCloud(apart, *cloud.tensors()[1:]), out=target)
    assert not list(tmp_path.iterdir())
    means = cloud.means.clone()
    means[3], means[4] = math.nan, 1e30
    report = export.page(GaussianCloud(means, *cloud.tensors()[1:]), out=target)
    assert "1 Gaussians that are not finite" in report.left_out
    assert math.isfinite(content_of(target)[0]["views"][0]["distance"])


def test_few_cameras_of_many(cameras_around):
    run = FakeRun(None, None, cameras_around(40))
    views = views_of_scene(run.scene(), 12)
    assert len(views.names) == 12 and views.names == sorted(views.names)


def pictures_run(sphere_pictures, cameras) -> FakeRun:
    model = sphere_pictures((0, 0, 0, 0.7), (0.6, 0.1, 0.2, 0.3))
    return FakeRun(None, model, cameras, method="nerf")


def test_pictures_are_those_of_the_model(tmp_path, sphere_pictures, cameras_around):
    run = pictures_run(sphere_pictures, cameras_around(side=40))
    said, told = [], []
    options = export.PageOptions(azimuths=6, elevations=2, picture_size=40, picture_quality=95)
    report = export.page(
        run,
        out=tmp_path / "a.html",
        options=options,
        on_note=said.append,
        on_picture=lambda *done: told.append(done),
    )
    assert (report.kind, report.count, told[-1]) == ("pictures", 12, (12, 12))
    assert len(said) == 1 and said[0].startswith("12 pictures of 40 x 40 pixels")
    scene = content_of(tmp_path / "a.html")[0]
    poses = torch.tensor(scene["poses"], dtype=torch.float64)
    for index in (0, 7):
        data = base64.b64decode(scene["pictures"][index])
        shown = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")) / 255
        # back from the capture's frame to that of the model
        pose = MOVE.apply_poses(torch.cat([poses[index], torch.eye(4)[3:].double()]))
        focal = scene["focal"]
        camera = type(run.cameras).from_intrinsics(pose.float(), 40, 40, focal)
        expected = run.renderer.render(camera).color.numpy()
        assert np.abs(shown - expected).mean() < 0.02
    middle = poses[:, :, 3] + poses[:, :, 2] * (
        (torch.tensor(scene["origin"]) - poses[:, :, 3]).norm(dim=1, keepdim=True)
    )
    assert float((middle - torch.tensor(scene["origin"])).abs().max()) < 1e-4
    assert scene["surround"] == "#ffffff"


def test_pages_that_would_be_too_large_are_refused(
    tmp_path, random_cloud, sphere_pictures, cameras_around
):
    small = export.PageOptions(page_limit_mib=0.01)
    with pytest.raises(InputError, match=r"more than the 0.01 MiB.*--max-gaussians or --degree"):
        options = export.PageOptions(page_limit_mib=0.01, degree=2)
        export.page(random_cloud(), out=tmp_path / "a.html", options=options)
    run = pictures_run(sphere_pictures, cameras_around())
    with pytest.raises(InputError, match="lower --picture-size"):
        export.page(run, out=tmp_path / "a.html", options=small)
    assert run.renderer.calls == 1 and not list(tmp_path.iterdir())


def test_targets_and_options_are_checked_first(tmp_path, random_cloud):
    (tmp_path / "b.html").write_text("kept")
    cloud = random_cloud(20)
    with pytest.raises(InputError, match=r"a page is written as \.html"):
        export.page(cloud, out=tmp_path / "a.txt")
    with pytest.raises(InputError, match="exists already; replace it with --overwrite"):
        export.page(cloud, out=tmp_path / "b.html")
    with pytest.raises(DataError, match="no such file"):
        export.page(tmp_path / "none.ply", out=tmp_path / "a.html")
    assert (tmp_path / "b.html").read_text() == "kept"
    mistakes = [
        ({"degree": 4}, "degree 4: expected 0 to 3"),
        ({"azimuths": 0}, "azimuths 0"),
        ({"picture_quality": 101}, "picture_quality 101"),
        ({"background": "red"}, "expected black, white or #rrggbb"),
        ({"up": "w"}, "up 'w': expected one of x, -x"),
        ({"picture_format": "png"}, "expected webp or jpeg"),
        ({"page_limit_mib": math.nan}, "page_limit_mib nan"),
    ]
    for change, text in mistakes:
        with pytest.raises(ConfigError, match=re.escape(text)):
            export.PageOptions(**change)


def test_options_without_effect_are_refused(
    tmp_path, random_cloud, gaussians_run, sphere_pictures, cameras_around
):
    pictures, degree = export.PageOptions(azimuths=8), export.PageOptions(degree=1)
    for source in (random_cloud(20), gaussians_run()):
        with pytest.raises(ConfigError, match="azimuths 8: has no effect"):
            export.page(source, out=tmp_path / "a.html", options=pictures)
    with pytest.raises(ConfigError, match="degree 1: has no effect: method 'nerf' has no"):
        run = pictures_run(sphere_pictures, cameras_around())
        export.page(run, out=tmp_path / "a.html", options=degree)
    with pytest.raises(ConfigError, match="cameras 3: has no effect"):
        options = export.PageOptions(cameras=3)
        export.page(random_cloud(20), out=tmp_path / "a.html", options=options)
