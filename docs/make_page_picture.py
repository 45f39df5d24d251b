"""The picture of docs/web-page.md: a page of Gaussians and one of pictures, as Chromium shows them.

    python docs/make_page_picture.py runs/gaussians runs/nerf --out docs/images/web-page.jpg

Both runs come from `lumigraph train builtin:object`, the first with `--method gaussians`. Needs
Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import io
import shutil
import tempfile
from pathlib import Path

import imageio.v3 as iio
import numpy as np

import lumigraph as lg

SIZE = (640, 480)
GAP = 8  # white pixels between the pages
FLAGS = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]


def screenshot(browser, page: Path, keys: str) -> np.ndarray:
    """(H, W, 3) uint8 of a page, after some keys."""
    tab = browser.new_page(viewport={"width": SIZE[0], "height": SIZE[1]})
    tab.goto(page.as_uri())
    for key in keys.split():
        tab.keyboard.press(key)
    tab.wait_for_timeout(1000)
    tab.wait_for_selector("body[data-state=still]")
    picture = iio.imread(io.BytesIO(tab.screenshot()))[..., :3]
    tab.close()
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("gaussians", type=Path)
    parser.add_argument("volume", type=Path)
    parser.add_argument("--out", type=Path, default=Path("docs/images/web-page.jpg"))
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        shown = []
        pages = [(arguments.gaussians, 2, "p p p"), (arguments.volume, 0, "ArrowLeft")]
        for run, degree, keys in pages:
            page = Path(folder) / f"{run.name}.html"
            options = lg.export.PageOptions(degree=degree)
            lg.export.page(run, out=page, options=options)
            shown += [screenshot(browser, page, keys), np.full((SIZE[1], GAP, 3), 255, np.uint8)]
        browser.close()
    iio.imwrite(arguments.out, np.concatenate(shown[:-1], axis=1), quality=85)


if __name__ == "__main__":
    main()
