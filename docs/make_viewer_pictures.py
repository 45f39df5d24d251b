"""The pictures of viewer.md: the viewer in Chromium without a window.

    python docs/make_viewer_pictures.py RUN [--out docs/images]

RUN comes from `lumigraph train builtin:object`.
Needs the extras `viewer` and `test`, and Chromium.
"""

from __future__ import annotations

import argparse
import io
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import imageio.v3 as iio

import lumigraph as lg
from lumigraph.training import TrainingControl
from lumigraph.viewer import Viewer

SIZE = {"width": 1120, "height": 700}
OPTIONS = [
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--disable-background-networking",
]
SETTLE = 2500  # milliseconds, for a software renderer


class Page:
    """A viewer in a page of a browser."""

    def __init__(self, browser: Any, viewer: Viewer) -> None:
        self.page, self.viewer = browser.new_page(viewport=SIZE), viewer
        self.page.goto(viewer.url)
        until(lambda: viewer.sessions and viewer.sessions[0].last is not None)
        self.page.wait_for_timeout(SETTLE)
        close = self.page.locator(".mantine-Notification-closeButton")
        if close.count():  # "software rendering detected"
            close.first.click()

    def tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name).click()

    def press(self, name: str) -> None:
        self.page.get_by_role("button", name=name, exact=True).click()
        self.page.wait_for_timeout(800)

    def drag(self, x: int, y: int) -> None:
        self.page.mouse.move(200, 500)
        self.page.mouse.down()
        self.page.mouse.move(200 + x, 500 + y, steps=10)
        self.page.mouse.up()
        self.page.wait_for_timeout(800)

    def save(self, file: Path) -> None:
        self.page.mouse.move(20, SIZE["height"] - 20)
        self.page.wait_for_timeout(SETTLE)
        picture = iio.imread(io.BytesIO(self.page.screenshot()))[..., :3]
        iio.imwrite(file, picture, quality=88)
        sys.stdout.write(f"{file}: {file.stat().st_size // 1024} KiB\n")


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError("the viewer shows nothing")
        time.sleep(0.05)


def view_and_path(browser: Any, run: Path, out: Path) -> None:
    """The first page, the error against a photograph, and the path editor."""
    with lg.viewer.serve(run, port=0) as viewer:
        page = Page(browser, viewer)
        page.save(out / "viewer.jpg")
        page.page.get_by_label("Channel", exact=True).first.click()
        page.page.get_by_role("option", name="error", exact=True).click()
        page.tab("Scene")
        page.press("Go to this camera")
        page.save(out / "viewer-error.jpg")
        page.page.close()
    with lg.viewer.serve(run, port=0) as viewer:
        page = Page(browser, viewer)
        page.tab("Path")
        for move in ((0, 0), (120, -25), (120, -25), (110, 40)):
            page.drag(*move)
            page.press("add")
        page.drag(-250, 90)
        page.page.mouse.move(300, 400)
        for _ in range(6):
            page.page.mouse.wheel(0, 300)
            page.page.wait_for_timeout(100)
        page.save(out / "viewer-path.jpg")
        page.page.close()


def training(browser: Any, out: Path) -> None:
    """The training panel, some seconds into a run."""
    scene = lg.datasets.load("builtin:object")
    config = lg.training.train_config("gaussians", "tiny", seconds=600)
    control = TrainingControl()
    with (
        tempfile.TemporaryDirectory() as folder,
        lg.viewer.serve_training(control, scene, config=config, port=0) as viewer,
    ):
        options = {"out": Path(folder) / "run", "control": control, "on_event": viewer.on_event}
        thread = threading.Thread(target=lg.training.train, args=(scene, config), kwargs=options)
        thread.start()
        try:
            page = Page(browser, viewer)
            page.tab("Training")
            until(lambda: control.step > 600, seconds=180)
            control.pause()
            page.save(out / "viewer-training.jpg")
            page.page.close()
        finally:
            control.stop()
            thread.join()


def main() -> None:
    from playwright.sync_api import sync_playwright

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        sys.exit("error: no chromium on the path; apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=OPTIONS)
        view_and_path(browser, arguments.run, arguments.out)
        training(browser, arguments.out)
        browser.close()


if __name__ == "__main__":
    main()
