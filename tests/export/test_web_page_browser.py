"""Pages in a real browser: headless Chromium that draws WebGL on the CPU."""

import io
import math
import re
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from lumigraph import export, training
from lumigraph.core import Cameras, GaussianCloud, Scene, Similarity
from lumigraph.core.path_shapes import fields_of_view, spread_tour
from lumigraph.core.scene import MemoryImages, cube
from lumigraph.core.transforms import rotation_exp
from lumigraph.fields import Gaussians
from lumigraph.renderers.splat import SplatRenderer

pytestmark = pytest.mark.browser
SIZE = (240, 180)
MOVE = Similarity(0.25, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))


@pytest.fixture
def opened(browser):
    """Opens a page file, waits for its picture, and checks that it complained of nothing."""

    @contextmanager
    def open_page(path, words="bare", *, size=SIZE, script=None):
        tab = browser.new_page(viewport={"width": size[0], "height": size[1]})
        seen = SimpleNamespace(requests=[], complaints=[])
        tab.on("request", lambda request: seen.requests.append(request.url))
        tab.on("console", lambda message: seen.complaints.append(message.text))
        tab.on("pageerror", lambda error: seen.complaints.append(str(error)))
        tab.on("dialog", lambda dialog: seen.complaints.append(f"dialog {dialog.message}"))
        if script:
            tab.add_init_script(script)
        tab.goto(f"{path.as_uri()}#{words}")
        tab.wait_for_selector("body[data-state=still], body[data-state=failed]", timeout=60_000)
        yield tab, seen
        tab.close()
        assert seen.complaints == []

    return open_page


def still(tab) -> None:
    tab.wait_for_selector("body[data-state=still]", timeout=60_000)


def picture(tab) -> np.ndarray:
    """(H, W, 3) in [0, 1]."""
    return np.asarray(Image.open(io.BytesIO(tab.screenshot())).convert("RGB")) / 255


def psnr(first, second) -> float:
    return -10 * math.log10(max(float(((first - second) ** 2).mean()), 1e-12))


def position(tab) -> np.ndarray:
    numbers = re.search(r"at (\S+) (\S+) (\S+)", tab.inner_text("#status"))
    return np.array([float(number) for number in numbers.groups()])


def expected_picture(model, cameras: Cameras, index: int) -> np.ndarray:
    """The frame of our own renderer, of the shape of the window."""
    angle = math.radians(float(fields_of_view(cameras)[index]))
    focal = min(SIZE) / 2 / math.tan(angle / 2)
    camera = Cameras.from_intrinsics(cameras.camera_to_world[index], *SIZE, focal)
    return model.renderer.render(model.field, camera).color.numpy()


@pytest.fixture(scope="module")
def demo_run(tmp_path_factory):
    """Gaussians of the demo's scene, little trained."""
    config = training.train_config(
        "gaussians", "tiny", steps=80, max_gaussians=8000, initial_gaussians=6000, device="cpu"
    )
    return training.train("builtin:object", config, out=tmp_path_factory.mktemp("demo") / "run")


def test_the_demo_looks_as_our_renderer_shows_it(tmp_path, demo_run, opened):
    model, cameras = demo_run.model("cpu"), demo_run.scene().cameras
    options = export.PageOptions(degree=model.field.degree, cameras=5)
    export.page(demo_run, out=tmp_path / "a.html", options=options)
    chosen = sorted(spread_tour(cameras, 5))
    for view in (0, 3):
        with opened(tmp_path / "a.html", f"bare&camera={view}") as (tab, _):
            expected = expected_picture(model, cameras, chosen[view])
            assert expected.std() > 0.05
            assert psnr(picture(tab), expected) > 45


def rich_run(cameras: Cameras):
    """Gaussians of all kinds, antialiased, before a sky, in another frame than the capture's."""
    generator = torch.Generator().manual_seed(3)

    def normal(*size):
        return torch.randn(*size, generator=generator)

    count = 600
    cloud = GaussianCloud(
        normal(count, 3) * 0.5,
        normal(count, 4),
        normal(count, 3) - 3.5,
        normal(count) * 2,
        torch.cat([normal(count, 1, 3), normal(count, 15, 3) * 0.2], dim=1),
    )
    field = Gaussians(cloud)
    renderer = SplatRenderer(background=lambda d: 0.5 + d / 2, antialiased=True, near=0.3)
    scene = Scene(
        "rich",
        "memory",
        cameras,
        {"train": torch.arange(len(cameras))},
        cube(torch.zeros(3), 2.0),
        images=MemoryImages([torch.zeros(4, 4, 3, dtype=torch.uint8)] * len(cameras)),
        normalization=MOVE,
    )
    return SimpleNamespace(
        path="runs/rich",
        config=SimpleNamespace(method="gaussians"),
        scene=lambda: scene,
        model=lambda device: SimpleNamespace(field=field, renderer=renderer),
    )


@pytest.mark.parametrize("degree", [0, 1, 3])
def test_frame_harmonics_sky_and_filter_are_right(tmp_path, opened, cameras_around, degree):
    cameras = cameras_around(5, radius=2.0)
    run = rich_run(cameras)
    export.page(run, out=tmp_path / "a.html", options=export.PageOptions(degree=degree))
    model = run.model("cpu")
    shown = Gaussians(model.field.cloud().with_degree(degree))
    model = SimpleNamespace(field=shown, renderer=model.renderer)
    with opened(tmp_path / "a.html", "bare&camera=2") as (tab, _):
        assert psnr(picture(tab), expected_picture(model, cameras, 2)) > 45


@pytest.fixture
def page_of_files(tmp_path, random_cloud):
    export.page(random_cloud(300), out=tmp_path / "a.html")
    return tmp_path / "a.html"


def test_nothing_is_asked_for_outside_and_all_controls_work(tmp_path, opened, cameras_around):
    export.page(rich_run(cameras_around(5, radius=2.0)), out=tmp_path / "a.html")
    with opened(tmp_path / "a.html", "", size=(500, 400)) as (tab, seen):
        start, first = position(tab), picture(tab)
        pivot = MOVE.inverse().apply(torch.zeros(3)).numpy()
        distance = np.linalg.norm(start - pivot)
        tab.mouse.move(250, 200)
        tab.mouse.down()
        tab.mouse.move(320, 230, steps=4)
        tab.mouse.up()
        still(tab)
        turned = position(tab)
        assert np.linalg.norm(turned - start) > 0.2 * distance
        assert np.linalg.norm(turned - pivot) == pytest.approx(distance, rel=0.01)
        tab.mouse.wheel(0, -400)
        still(tab)
        assert np.linalg.norm(position(tab) - pivot) < 0.8 * distance
        tab.keyboard.press("n")
        still(tab)
        assert tab.input_value("#views") == "1"
        tab.select_option("#views", "3")
        still(tab)
        tab.click("[data-action=reset]")
        still(tab)
        assert tab.input_value("#views") == "0"
        np.testing.assert_allclose(position(tab), start, rtol=1e-3)
        assert np.abs(picture(tab) - first).mean() < 0.02
        for _ in range(6):  # every axis up once; it stays where it is, but for those near the view
            tab.keyboard.press("u")
            still(tab)
            assert np.isfinite(position(tab)).all() and picture(tab).std() > 0.05
        tab.keyboard.press("r")
        still(tab)
        assert np.abs(picture(tab) - first).mean() < 0.02
        tab.keyboard.press("t")
        tab.wait_for_selector("[data-action=turn][aria-pressed=true]")
        tab.wait_for_timeout(400)
        assert np.linalg.norm(position(tab) - start) > 0.01 * distance
        assert "fps" in tab.inner_text("#status")
        tab.keyboard.press("t")
        tab.keyboard.down("ArrowLeft")
        tab.wait_for_timeout(200)
        tab.keyboard.up("ArrowLeft")
        tab.keyboard.press("h")
        assert tab.is_visible("#help")
        tab.set_viewport_size({"width": 300, "height": 500})
        still(tab)
        assert tab.evaluate("[picture.width, picture.height]") == [300, 500]
        tab.keyboard.press("i")
        assert not tab.is_visible("#panel")
    outside = [url for url in seen.requests if not url.startswith(("blob:", "data:"))]
    assert [url.partition("#")[0] for url in outside] == [(tmp_path / "a.html").as_uri()]


def test_touch_and_pinch(page_of_files, browser):
    context = browser.new_context(viewport={"width": 300, "height": 300}, has_touch=True)
    tab = context.new_page()
    tab.goto(page_of_files.as_uri())
    still(tab)
    start = position(tab)
    client = context.new_cdp_session(tab)

    def touch(kind, *points):
        places = [{"x": x, "y": y, "id": i} for i, (x, y) in enumerate(points)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (150, 150))
    touch("touchMove", (190, 150))
    touch("touchEnd")
    still(tab)
    turned = position(tab)
    assert np.linalg.norm(turned - start) > 0.1
    touch("touchStart", (120, 150), (180, 150))
    touch("touchMove", (100, 150), (200, 150))
    touch("touchEnd")
    still(tab)
    assert np.linalg.norm(position(tab)) < 0.9 * np.linalg.norm(turned)
    context.close()


NASTY = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def test_a_nasty_name_is_only_a_name(tmp_path, opened, random_cloud):
    options = export.PageOptions(title=NASTY)
    export.page(random_cloud(50), out=tmp_path / "a.html", options=options)
    with opened(tmp_path / "a.html", "") as (tab, _):
        assert tab.title() == NASTY and tab.inner_text("h1") == NASTY
        assert tab.locator("img").count() == 0


def test_without_webgl_the_page_says_so(page_of_files, opened):
    script = """
      const before = HTMLCanvasElement.prototype.getContext;
      HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
        return kind === "webgl2" ? null : before.call(this, kind, ...rest);
      };"""
    with opened(page_of_files, "", script=script) as (tab, _):
        assert "needs WebGL 2" in tab.inner_text("#message")
        assert tab.get_attribute("body", "data-state") == "failed"


def test_an_orbit_of_pictures_turns(tmp_path, opened, sphere_pictures, cameras_around):
    cameras = cameras_around(side=60)
    model = sphere_pictures((0, 0, 0, 0.7), (0.6, 0.1, 0.2, 0.3))
    run = SimpleNamespace(
        config=SimpleNamespace(method="nerf"),
        scene=lambda: Scene(
            "spheres",
            "memory",
            cameras,
            {"train": torch.arange(len(cameras))},
            cube(torch.zeros(3), 2.0),
            normalization=MOVE,
        ),
        model=lambda device: model,
    )
    options = export.PageOptions(azimuths=12, elevations=3, picture_size=120, picture_quality=95)
    export.page(run, out=tmp_path / "a.html", options=options)
    with opened(tmp_path / "a.html", "", size=(240, 240)) as (tab, seen):
        assert "picture 1 of 12" in tab.inner_text("#status")
        tab.keyboard.press("i")
        first = picture(tab)
        tab.keyboard.press("ArrowLeft")
        still(tab)
        assert "picture 2 of 12" in tab.inner_text("#status")
        second = picture(tab)
        assert np.abs(second - first).mean() > 0.01
        # half way the page shows the mean of both
        tab.mouse.move(120, 120)
        tab.mouse.down()
        tab.mouse.move(100, 120)
        still(tab)
        between = picture(tab)
        tab.mouse.up()
        assert psnr(between, (first + second) / 2) > 45
        assert psnr(between, first) < 35 and psnr(between, second) < 35
        tab.keyboard.press("r")
        still(tab)
        assert np.abs(picture(tab) - first).mean() < 0.005
        tab.mouse.wheel(0, -300)
        still(tab)
        larger = picture(tab)
        # the sphere, which is not white, grew
        assert (larger.min(axis=2) < 0.9).mean() > 1.5 * (first.min(axis=2) < 0.9).mean()
        tab.keyboard.press("t")
        tab.wait_for_timeout(1500)
        assert "picture 1 of 12" not in tab.inner_text("#status")
    assert [url for url in seen.requests if not url.startswith(("data:", "file:"))] == []


def test_a_slow_machine_gives_up_pixels_until_it_rests(page_of_files, opened):
    slow = "window.requestAnimationFrame = (f) => setTimeout(() => f(performance.now()), 80);"
    with opened(page_of_files, script=slow) as (tab, _):
        size = "[picture.width, picture.height]"
        assert tab.evaluate(size) == list(SIZE)
        tab.keyboard.press("t")
        tab.wait_for_timeout(1500)
        assert tab.evaluate(size)[0] < 0.8 * SIZE[0]
        tab.keyboard.press("t")
        still(tab)
        assert tab.evaluate(size) == list(SIZE)
