"""The viewer in a real browser: Chromium without a window, driven by Playwright.

Screenshots are compared by means over regions: JPEG, scaling and the browser's own drawing move
single pixels by a few percent, and never a mean by more.
"""

import io
import threading

import imageio.v3 as iio
import numpy as np
import pytest
import torch

from lumigraph import training
from lumigraph.core import Cameras, MemoryImages, PointCloud, Scene
from lumigraph.core.transforms import look_at
from lumigraph.training import TrainingControl
from lumigraph.viewer import ModelSource, RunSource, Viewer, serve_training

pytest.importorskip("viser")
pytest.importorskip("playwright")
pytestmark = pytest.mark.browser

WIDTH, HEIGHT = 760, 480
PICTURE = (slice(150, 460), slice(15, 325))
"""A part of the window that neither panel nor notes cover: rows, columns."""
CLOSE = 6.0
"""Levels of 255 by which means over a region may differ."""


class Window:
    """A page that shows a viewer."""

    def __init__(self, browser, viewer, until) -> None:
        self.viewer, self.until, self.settled = viewer, until, False
        known = set(viewer.sessions)
        self.requests: list[str] = []
        self.troubles: list[str] = []
        self.page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("websocket", lambda socket: self.requests.append(socket.url))
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.goto(viewer.url)
        self.session = self.wait(lambda: [s for s in viewer.sessions if s not in known])[0]

    def _heard(self, message) -> None:
        if message.type == "error":
            self.troubles.append(message.text)

    def wait(self, condition, seconds: float = 30.0):
        """Like `until`, while the browser's events go on."""

        def asked():
            self.page.wait_for_timeout(10)
            return condition()

        return self.until(asked, seconds)

    def settle(self) -> None:
        """Until the whole picture of the present wish is on the screen."""
        view = self.session.view
        self.wait(lambda: view.full_serial == view.newest()[1])
        before = self.screen().astype(float)
        for _ in range(30):  # a page fades in, pictures are decoded beside its drawing
            self.page.wait_for_timeout(150)
            after = self.screen().astype(float)
            if np.abs(after - before).mean() < 0.1 and (after.std() > 1 or self.settled):
                self.settled = True
                return
            before = after

    def screen(self) -> np.ndarray:
        """(H, W, 3) uint8 of the uncovered part of the window."""
        return iio.imread(io.BytesIO(self.page.screenshot()))[..., :3][PICTURE]

    def expected(self) -> np.ndarray:
        """The streamed picture as the same part of the window."""
        picture = self.session.last.picture
        rows = (np.arange(HEIGHT) + 0.5) * picture.shape[0] / HEIGHT
        columns = (np.arange(WIDTH) + 0.5) * picture.shape[1] / WIDTH
        return picture[rows.astype(int)][:, columns.astype(int)][PICTURE]

    def drag(self, x: int, y: int, steps: int = 12) -> None:
        self.page.mouse.move(150, 300)
        self.page.mouse.down()
        self.page.mouse.move(150 + x, 300 + y, steps=steps)
        self.page.mouse.up()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()

    def type_in(self, label: str, value: str) -> None:
        """Into the box of a slider, a number or a text."""
        text = self.page.get_by_text(label, exact=True).locator("visible=true").first
        kinds = "self::textarea or self::input[not(@type) or @type='text' or @inputmode]"
        box = text.locator(f"xpath=following::*[{kinds}][1]")
        box.fill(value)
        box.press("Enter")
        # the page sends at most one message in 50 ms, and of two the later
        self.page.wait_for_timeout(100)

    def choose(self, label: str, option: str) -> None:
        self.page.get_by_label(label, exact=True).first.click()
        self.page.get_by_role("option", name=option, exact=True).click()


@pytest.fixture
def window(browser, until):
    windows = []

    def make(viewer) -> Window:
        windows.append(Window(browser, viewer, until))
        return windows[-1]

    yield make
    for each in windows:
        each.page.close()


def regions(picture: np.ndarray) -> np.ndarray:
    """(6, 8, 3) means over a raster."""
    rows = np.array_split(picture.astype(float), 6, axis=0)
    return np.array(
        [[part.mean((0, 1)) for part in np.array_split(row, 8, axis=1)] for row in rows]
    )


def test_the_page_shows_what_is_rendered_and_asks_nobody_else(nerf_run, window):
    with Viewer(RunSource(nerf_run, device="cpu"), port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        shown, expected = opened.screen(), opened.expected()
        assert expected.std() > 20, "there is something to see"
        assert np.abs(regions(shown) - regions(expected)).max() < CLOSE
        opened.drag(120, 40)
        opened.settle()
        opened.tab("Scene")
        opened.page.get_by_label("Cameras", exact=True).click(force=True)
        opened.page.wait_for_timeout(500)
        own = (f"http://localhost:{viewer.port}", f"ws://localhost:{viewer.port}", "blob:", "data:")
        assert opened.requests
        assert [url for url in opened.requests if not url.startswith(own)] == []
        assert opened.troubles == []


def test_a_drag_moves_the_camera_over_small_pictures_to_a_whole_one(painted, window):
    painted.painter.seconds_per_pixel = 1e-6
    with Viewer(painted, port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        before = opened.session.last.wish.shot.camera_to_world
        sizes = []
        show = opened.session.view.show
        opened.session.view.show = lambda drawn: (sizes.append(drawn.size), show(drawn))
        opened.drag(150, 0, steps=25)
        opened.settle()
        after = opened.session.last.wish.shot.camera_to_world
        assert float((before[:3, 3] - after[:3, 3]).norm()) > 0.5
        full = opened.session.last.wish.full_size
        assert sizes[-1] == full
        assert len([size for size in sizes if size[0] < full[0]]) >= 3
        opened.page.get_by_text(f"{full[0]} x {full[1]}").first.wait_for()


def test_the_time_slider(painted_in_time, window):
    with Viewer(painted_in_time, port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        assert opened.screen()[..., 1].mean() < 10
        thumb = opened.page.get_by_role("slider").nth(2)  # after exposure and field of view
        box = thumb.bounding_box()
        opened.page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
        opened.page.mouse.down()
        opened.page.mouse.move(box["x"] + 100, box["y"] + 3, steps=6)
        opened.page.mouse.up()
        opened.wait(lambda: opened.session.moment > 0.2)
        opened.settle()
        green = opened.screen()[..., 1].mean()
        assert green == pytest.approx(255 * opened.session.moment, abs=CLOSE)
        moments = []
        opened.press("Play")
        for _ in range(15):
            opened.page.wait_for_timeout(60)
            moments.append(opened.session.moment)
        assert len(set(moments)) > 5, "time goes on by itself"
        opened.press("Pause")
        opened.press("last")
        opened.page.get_by_text("moment 5 of 5").wait_for()
        opened.settle()
        assert opened.screen()[..., 1].mean() > 250


def test_channels_exposure_and_resolution(painted, window):
    with Viewer(painted, port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        opened.choose("Channel", "opacity")
        opened.wait(lambda: opened.session.look.channel == "opacity")
        opened.settle()
        assert opened.screen().mean() > 250
        opened.choose("Channel", "color")
        opened.type_in("Exposure", "2")
        opened.wait(lambda: opened.session.look.exposure == 2.0)
        opened.settle()
        assert np.abs(regions(opened.screen()) - regions(opened.expected())).max() < CLOSE
        opened.choose("Resolution cap", "160")
        opened.wait(lambda: opened.session.last.size[0] == 160)
        opened.page.get_by_text("enlarged to the window").first.wait_for()


def test_a_path_is_made_previewed_and_rendered(nerf_run, window):
    with Viewer(RunSource(nerf_run, device="cpu"), port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        opened.tab("Path")
        opened.press("add")
        opened.drag(140, 20)
        opened.settle()
        opened.press("add")
        table = opened.page.get_by_role("cell")
        opened.wait(lambda: table.count() == 6)
        second = opened.session.pose()
        opened.type_in("Duration", "0.2")
        opened.wait(lambda: "0.20" in table.nth(4).inner_text())
        opened.type_in("Moment", "1")
        opened.type_in("Moment", "0")
        opened.wait(lambda: float((opened.session.pose() - second).norm()) > 0.5)
        opened.type_in("Moment", "1")
        opened.wait(lambda: float((opened.session.pose() - second).norm()) < 0.05)
        opened.type_in("Name", "mine")
        opened.press("Save in the run folder")
        file = nerf_run.path / "paths" / "mine.json"
        opened.wait(file.is_file)
        opened.type_in("File name", "from-the-browser")
        opened.type_in("Width", "64")
        opened.type_in("Height", "48")
        with opened.page.expect_download(timeout=60_000) as download:
            opened.press("Render this")
        video = nerf_run.path / "renders" / "from-the-browser.mp4"
        assert video.read_bytes() == download.value.path().read_bytes()
        assert iio.imread(video).shape[1:3] == (48, 64)
        opened.press("remove")
        opened.wait(lambda: table.count() == 3)


def test_a_saved_picture_is_the_one_on_the_screen(painted, window):
    with Viewer(painted, port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        with opened.page.expect_download() as download:
            opened.press("Save this picture")
        saved = iio.imread(download.value.path(), extension=".png")
        assert np.array_equal(saved, opened.session.last.picture)


def test_the_browser_draws_gaussians_alone(splat_run, window):
    with Viewer(RunSource(splat_run, device="cpu"), port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        from_server = opened.screen()
        opened.choose("Drawn by", "Gaussians in the browser")
        opened.wait(lambda: opened.session.view.paused)
        opened.page.get_by_text("drawn by the browser").first.wait_for()
        opened.page.wait_for_timeout(2500)
        alone = opened.screen()
        assert from_server.std() > 5 and alone.std() > 5
        # base colors and another rasteriser: alike, not equal
        likeness = np.corrcoef(regions(from_server).ravel(), regions(alone).ravel())[0, 1]
        assert likeness > 0.9
        opened.choose("Drawn by", "server frames")
        opened.wait(lambda: not opened.session.view.paused)
        opened.settle()
        assert np.abs(regions(opened.screen()) - regions(from_server)).max() < CLOSE


def test_things_behind_the_picture_are_hidden(painted, window):
    """The painted picture has the depth 2 everywhere."""
    with Viewer(painted, port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        plain = opened.screen()
        camera = opened.session.pose()
        corners = np.array([[-0.7, -0.4, 0], [0, -0.4, 0], [0, 0.4, 0], [-0.7, 0.4, 0]])
        turned = corners.astype(np.float32) @ camera[:3, :3].numpy().T
        faces = np.array([[0, 1, 2], [0, 2, 3]], np.uint32)

        def wall(name: str, distance: float) -> None:
            place = (camera[:3, 3] + distance * camera[:3, 2]).numpy()
            viewer.scene.add_mesh_simple(
                name, turned * distance + place, faces, color=(0, 0, 255), side="double"
            )

        wall("/far", 3.0)
        opened.settle()
        assert np.abs(regions(opened.screen()) - regions(plain)).max() < CLOSE
        wall("/near", 1.0)
        opened.page.wait_for_timeout(800)
        assert (opened.screen()[..., 2].mean() - plain[..., 2].mean()) > 30


def captured_source(painted) -> ModelSource:
    """The painted model at two cameras, of which the second has a blue photograph."""
    eyes = torch.tensor([[0.0, -4.0, 1.0], [4.0, 0.0, 1.0]])
    poses = torch.stack([look_at(eye, torch.zeros(3), up=[0.0, 0.0, 1.0]) for eye in eyes])
    images = torch.zeros(2, 60, 80, 3, dtype=torch.uint8)
    images[1, ..., 2] = 255
    scene = Scene(
        "captured",
        "memory",
        Cameras.from_intrinsics(poses, 80, 60, 70.0),
        {"train": torch.tensor([0, 1])},
        painted.bounds,
        images=MemoryImages(list(images)),
        points=PointCloud(torch.rand(50, 3), torch.full((50, 3), 200, dtype=torch.uint8)),
    )
    return ModelSource(painted.model, scene, title="captured")


def test_captured_cameras_their_photographs_and_points(painted, window):
    with Viewer(captured_source(painted), port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        opened.tab("Scene")
        opened.type_in("Camera", "1")
        opened.press("Go to this camera")
        place = viewer.source.scene.cameras.positions[1]
        opened.wait(lambda: float((opened.session.pose()[:3, 3] - place).norm()) < 1e-3)
        opened.page.get_by_text("0001").first.wait_for()
        opened.type_in("Photograph", "1")
        opened.settle()
        middle = opened.session.last.picture[10:-10]
        assert middle[:, middle.shape[1] // 2, 2].min() > 240, "the photograph fills the middle"
        opened.drag(60, 0)
        opened.settle()
        assert opened.session.last.picture[..., 2].max() < 60, "from elsewhere there is none"
        for name in ("Cameras", "Points (50)"):
            opened.page.get_by_label(name, exact=True).click(force=True)
        opened.wait(lambda: opened.session.overlays == {"cameras", "points"})
        opened.wait(lambda: opened.session.last.wish.depth)


def test_a_click_tells_the_point(painted, window):
    picks = []
    with Viewer(painted, port=0) as viewer:
        viewer.on_pick(picks.append)
        opened = window(viewer)
        opened.settle()
        opened.page.mouse.click(200, 240)
        pick = opened.wait(lambda: picks)[0]
        cameras = opened.session.last.wish.shot.cameras(WIDTH, HEIGHT)
        rays = cameras.rays(torch.tensor([0]), torch.tensor([[200.0, 240.0]]))
        expected = rays.origins + 2.0 * rays.directions
        assert float((pick.position - expected).norm()) < 0.02
        assert pick.distance == pytest.approx(2.0)


def test_a_run_is_paused_from_the_panel(nerf_run, window, tmp_path):
    control = TrainingControl()
    scene = nerf_run.scene()
    config = training.train_config("nerf", "tiny", steps=100_000, device="cpu", log_every=10)
    with serve_training(control, scene, config=config, port=0) as viewer:
        options = {"out": tmp_path / "run", "control": control, "on_event": viewer.on_event}
        thread = threading.Thread(target=training.train, args=(scene, config), kwargs=options)
        thread.start()
        try:
            opened = window(viewer)
            opened.tab("Training")
            opened.wait(lambda: viewer.history.last)
            opened.page.wait_for_timeout(1500)
            assert opened.page.locator(".uplot canvas").count() == 2
            opened.press("Pause")
            opened.page.get_by_text("paused at step").first.wait_for()
            halted = control.step
            opened.press("Checkpoint now")
            checkpoints = tmp_path / "run" / "checkpoints"
            opened.wait(lambda: checkpoints.is_dir() and list(checkpoints.glob("*.safetensors")))
            assert control.step == halted
            opened.press("Resume")
            opened.wait(lambda: control.step > halted)
            opened.page.close()
            gone_at = control.step
            opened.until(lambda: control.step > gone_at + 10)
        finally:
            control.resume()
            control.stop()
            thread.join(timeout=60)


def test_twenty_clients_of_one_server(painted, window, raw_client):
    painted.painter.seconds_per_pixel = 1e-8
    with Viewer(painted, port=0) as viewer:
        windows = [window(viewer) for _ in range(3)]
        others = [raw_client(viewer.port) for _ in range(17)]
        for index, client in enumerate(others):
            client.look(x=float(index))
        windows[0].wait(lambda: len(viewer.sessions) == 20)
        windows[0].wait(lambda: all(client.pictures for client in others))
        for opened in windows:
            opened.settle()
        windows[1].drag(100, 30)
        windows[1].settle()
        poses = [opened.session.last.wish.shot.camera_to_world for opened in windows]
        assert float((poses[1] - poses[0]).norm()) > 0.3
        assert float((poses[2] - poses[0]).norm()) < 1e-5, "everyone has a camera of its own"


def test_an_open_server_lets_in_who_has_the_whole_address(painted, window, browser):
    with Viewer(painted, host="0.0.0.0", port=0) as viewer:
        opened = window(viewer)
        opened.settle()
        assert opened.session.last.job.full
        stranger = browser.new_context().new_page()
        answer = stranger.goto(f"http://localhost:{viewer.port}/")
        assert answer.status == 403
        assert len(viewer.sessions) == 1
