"""Pages of what moves: the slider shows what our renderer shows at that time."""

import io
import json
import math
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph import export
from lumigraph.cli import main
from lumigraph.core import Cameras, ConfigError, InputError, Scene, Similarity, cube
from lumigraph.core.path_shapes import fields_of_view, spread_tour
from lumigraph.core.scene import MemoryImages
from lumigraph.core.transforms import rotation_exp
from lumigraph.export import PageOptions
from lumigraph.export.web_page.packing import pack_moving_gaussians
from lumigraph.fields import Gaussians4D
from lumigraph.renderers import SplatRenderer
from lumigraph.training import Model

SIZE = (240, 180)
MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))


def scene_of(page: Path) -> dict:
    """What the scripts of a page read."""
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="scene">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found.group(1))


@pytest.fixture
def run(random_moving, cameras_around):
    """Gaussians that move with plateaus, and some that stand still, in a frame of their own."""
    given = random_moving(500, 150, degree=2, plateaus=True, seed=5)
    shrink = Similarity(0.25, torch.eye(3), torch.full((3,), -0.25))
    given = given.transformed(shrink)
    field = Gaussians4D(given.cloud, still=given.still, moments=given.moments)
    renderer = SplatRenderer(background=torch.tensor([0.1, 0.2, 0.3]), antialiased=True, near=0.2)
    model = Model(field, renderer, torch.device("cpu"))
    cameras = cameras_around(5, radius=2.5)
    images = MemoryImages([torch.zeros(4, 4, 3, dtype=torch.uint8)] * len(cameras))
    splits = {"train": torch.arange(len(cameras))}
    bounds = cube(torch.zeros(3), 2.0)
    scene = Scene("dance", "memory", cameras, splits, bounds, images=images, normalization=MOVE)
    return SimpleNamespace(
        path=Path("runs/dance"),
        config=SimpleNamespace(method="gaussians4d"),
        scene=lambda: scene,
        model=lambda device: model,
    )


def test_the_page_holds_all_times(run, tmp_path):
    report = export.page(run, out=tmp_path / "a.html", options=PageOptions(degree=2))
    assert report.moves and ", all times" in report.line()
    assert report.to_dict()["moves"]
    scene = scene_of(tmp_path / "a.html")
    assert scene["times"] == pytest.approx(torch.linspace(0, 1, 7).tolist())
    assert scene["layout"]["moving"] > 300 and scene["layout"]["plateau_step"] > 0
    assert 'id="time"' in (tmp_path / "a.html").read_text()


def test_one_time_of_it_is_a_page_without_a_slider(run, tmp_path):
    report = export.page(run, out=tmp_path / "a.html", options=PageOptions(time=0.4))
    assert not report.moves and report.count < 650
    text = (tmp_path / "a.html").read_text()
    assert 'id="time"' not in text and "times" not in scene_of(tmp_path / "a.html")


def test_what_matters_least_is_left_out(random_moving):
    given = random_moving(300, 100)
    packed = pack_moving_gaussians(given, degree=0, most=50)
    assert packed.layout.count == 50
    assert any("that matter least" in text for text in packed.left_out)
    assert pack_moving_gaussians(random_moving(0, 50), degree=0, most=99).layout.moving == 0
    never = given.cloud.times.clone()
    never[:] = 30.0  # long before anything is seen of them
    cloud = given.cloud
    object.__setattr__(cloud, "times", never)
    packed = pack_moving_gaussians(given, degree=0, most=10**6)
    assert packed.layout.count <= 130
    assert any("too transparent to be seen" in text for text in packed.left_out)


def test_still_files_and_clouds_have_no_time(random_cloud, tmp_path):
    export.write_splats(random_cloud(20), tmp_path / "a.ply")
    for source in (tmp_path / "a.ply", random_cloud(20)):
        with pytest.raises(InputError, match="nothing moves in it; leave the time away"):
            export.page(source, out=tmp_path / "a.html", options=PageOptions(time=0.5))
    with pytest.raises(InputError, match=r"time must lie in \[0, 1\]; got 2"):
        PageOptions(time=2.0)


class Blinker:
    """A volume that is as red as its time."""

    moments = torch.tensor([0.0, 0.5, 1.0])

    def render(self, cameras: Cameras, *, channels=("color",)):
        width, height = cameras.size(0)
        color = torch.zeros(height, width, 3)
        color[..., 0] = cameras.times[0]
        return SimpleNamespace(color=color)


@pytest.fixture
def blinking_run(cameras_around):
    cameras = cameras_around(side=60)
    splits = {"train": torch.arange(len(cameras))}
    scene = Scene("blink", "memory", cameras, splits, cube(torch.zeros(3), 2.0))
    return SimpleNamespace(
        path=Path("runs/blink"),
        config=SimpleNamespace(method="neus"),
        scene=lambda: scene,
        model=lambda device: Blinker(),
    )


FEW = {"azimuths": 4, "elevations": 1, "picture_size": 32, "picture_quality": 95}


def test_pictures_at_some_times(blinking_run, tmp_path):
    options = PageOptions(**FEW, time_steps=3)
    report = export.page(blinking_run, out=tmp_path / "a.html", options=options)
    assert report.count == 12 and report.moves
    assert scene_of(tmp_path / "a.html")["times"] == [0.0, 0.5, 1.0]
    options = PageOptions(**FEW, time=0.5)
    report = export.page(blinking_run, out=tmp_path / "b.html", options=options)
    assert report.count == 4 and not report.moves
    with pytest.raises(ConfigError, match="time_steps 3: has no effect: one time was asked for"):
        options = PageOptions(**FEW, time=0.5, time_steps=3)
        export.page(blinking_run, out=tmp_path / "c.html", options=options)


def picture(tab) -> np.ndarray:
    """(H, W, 3) in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")) / 255


def still(tab) -> None:
    tab.wait_for_selector("body[data-state=still], body[data-state=failed]", timeout=60_000)


@pytest.fixture
def opened(browser):
    """Opens a page file, and checks that it complained of nothing."""
    tabs, complaints = [], []

    def open_page(path: Path, words: str, size=SIZE):
        tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.goto(f"{path.as_uri()}#{words}")
        still(tab)
        tabs.append(tab)
        return tab

    yield open_page
    for tab in tabs:
        tab.close()
    assert complaints == []


def expected(run, index: int, time: float) -> np.ndarray:
    """The frame of our own renderer, of the shape of the window."""
    cameras = run.scene().cameras
    focal = min(SIZE) / 2 / math.tan(math.radians(float(fields_of_view(cameras)[index])) / 2)
    camera = Cameras.from_intrinsics(cameras.camera_to_world[index], *SIZE, focal, times=time)
    return run.model("cpu").render(camera).color.numpy()


def psnr(first, second) -> float:
    return -10 * math.log10(max(float(((first - second) ** 2).mean()), 1e-12))


@pytest.mark.browser
def test_every_time_looks_as_our_renderer_shows_it(run, tmp_path, opened):
    export.page(run, out=tmp_path / "a.html", options=PageOptions(degree=2))
    index = sorted(spread_tour(run.scene().cameras, 24))[2]
    shown = []
    for time in (0.0, 0.35, 1.0):
        tab = opened(tmp_path / "a.html", f"bare&camera=2&time={time}")
        shown.append(picture(tab))
        wanted = expected(run, index, time)
        assert wanted.std() > 0.05
        assert psnr(shown[-1], wanted) > 45
    assert psnr(shown[0], shown[1]) < 30 and psnr(shown[1], shown[2]) < 30


@pytest.mark.browser
def test_a_file_plays_and_its_slider_is_moved(run, tmp_path, opened):
    export.splats(run, out=tmp_path / "a.lg4d")
    export.page(tmp_path / "a.lg4d", out=tmp_path / "a.html")
    tab = opened(tmp_path / "a.html", "", size=(700, 400))
    first = picture(tab)
    assert tab.inner_text("#clock") == "0.00"
    tab.fill("#time", "0.6")
    still(tab)
    assert tab.inner_text("#clock") == "0.60"
    assert psnr(picture(tab), first) < 30
    tab.focus("#picture")
    tab.keyboard.press(" ")
    tab.wait_for_selector("[data-action=play][aria-pressed=true]")
    assert tab.inner_text("[data-action=play]") == "Pause"
    seen = set()
    for _ in range(12):
        tab.wait_for_timeout(80)
        seen.add(tab.inner_text("#clock"))
    assert len(seen) > 4, "time goes on by itself"
    tab.click("[data-action=play]")
    still(tab)
    assert tab.get_attribute("[data-action=play]", "aria-pressed") == "false"
    tab.fill("#time", "0")
    still(tab)
    assert np.abs(picture(tab) - first).mean() < 0.02, "the same time looks the same"


@pytest.mark.browser
def test_pictures_change_with_the_slider(blinking_run, tmp_path, opened):
    export.page(blinking_run, out=tmp_path / "a.html", options=PageOptions(**FEW, time_steps=3))
    for wish, red in (("0", 0.0), ("0.6", 0.5), ("1", 1.0)):
        tab = opened(tmp_path / "a.html", f"bare&time={wish}")
        middle = picture(tab)[60:120, 90:150]
        assert middle[..., 0].mean() == pytest.approx(red, abs=0.02)
    tab = opened(tmp_path / "a.html", "", size=(700, 400))
    tab.fill("#time", "0.5")
    still(tab)
    assert tab.inner_text("#clock") == "0.50"
    tab.click("[data-action=play]")
    seen = set()
    for _ in range(40):
        tab.wait_for_timeout(60)
        seen.add(tab.inner_text("#clock"))
    assert seen == {"0.00", "0.50", "1.00"}


def test_the_command(run, tmp_path, capsys):
    export.splats(run, out=tmp_path / "a.lg4d")
    words = ["export", "page", str(tmp_path / "a.lg4d"), "--out"]
    assert main([*words, str(tmp_path / "a.html"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["moves"] is True
    assert main([*words, str(tmp_path / "b.html"), "--time", "0.5", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["moves"] is False
    assert main([*words, str(tmp_path / "c.html"), "--time-steps", "4"]) == 2
    assert "time_steps 4: has no effect" in capsys.readouterr().err
