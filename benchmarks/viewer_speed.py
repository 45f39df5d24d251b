"""How the viewer feels: times from a real browser (Chromium, without a window) on this machine.

    python benchmarks/viewer_speed.py RUN [RUN ...] --out viewer.json

For each run folder, in a window of 640x480 pixels: seconds from opening the page to the first
picture on the screen; pictures a second while the camera is dragged about; seconds from the end of
the drag to the whole picture; and, without a browser, whole pictures a second from camera to bytes
at the sizes of `--rates`. Medians over `--rounds`. Server and browser share the machine.

Exits with 77 where there is no Chromium; `--rates-only` needs none.
"""

from __future__ import annotations

import argparse
import io
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

SKIPPED = 77
WIDTH, HEIGHT = 640, 480
DRAG_SECONDS = 4.0
PATIENCE = 60.0
CLOSE = 8.0  # levels of 255 by which JPEG and scaling may move a picture
UNCOVERED = (slice(40, 440), slice(10, 250))  # rows and columns beside the panel
CHROMIUM = [
    "--no-sandbox",
    "--disable-quic",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default=None)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rates", nargs="+", default=["640x480", "1280x720"])
    parser.add_argument("--rates-only", action="store_true")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium")
    if chromium is None and not arguments.rates_only:
        print("viewer_speed: needs Chromium (apt-get install chromium), skipped")
        return SKIPPED
    import torch

    from lumigraph.bench import results
    from lumigraph.core.devices import choose_device
    from lumigraph.cuda.dispatch import backend_for
    from lumigraph.training.files import write_json

    device: torch.device = choose_device(arguments.device or "auto")
    content = results.document("viewer", device, backend_for(device), quick=False)
    for name in ("timing", "protocol", "quick"):
        del content[name]
    content["rows"] = []
    for run in arguments.runs:
        row = rates(run, arguments)
        if not arguments.rates_only:
            row |= in_browser(run, arguments, str(chromium))
        content["rows"].append(row)
        print(row)
        write_json(arguments.out, content)
    return 0


def rates(run: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Whole pictures a second without a browser."""
    from lumigraph.viewer import measure_rate, open_source

    source = open_source(run, device=arguments.device)
    row: dict[str, Any] = {"run": run.name, "kind": source.kind}
    for size in arguments.rates:
        width, height = map(int, size.split("x"))
        rate = measure_rate(source, width, height)
        row[f"rate_{size}"] = round(rate.frames_per_second, 2)
    return row


def in_browser(run: Path, arguments: argparse.Namespace, chromium: str) -> dict[str, Any]:
    """What a user sees, medians over the rounds."""
    from playwright.sync_api import sync_playwright

    from lumigraph.viewer import Viewer, open_source

    rounds = []
    with (
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=chromium, args=CHROMIUM) as browser,
        Viewer(open_source(run, device=arguments.device), port=0) as viewer,
    ):
        for _ in range(arguments.rounds):
            rounds.append(visit(browser, viewer))
    return {name: round(statistics.median(r[name] for r in rounds), 3) for name in rounds[0]}


def visit(browser: Any, viewer: Any) -> dict[str, float]:
    """One browser comes, moves about, stops and goes."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    known = len(viewer.sessions)
    began = time.monotonic()
    page.goto(viewer.url, wait_until="commit")
    while len(viewer.sessions) == known or not shows_picture(page, viewer.sessions[-1]):
        page.wait_for_timeout(20)
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"no picture within {PATIENCE:g} s")
    first = time.monotonic() - began
    session = viewer.sessions[-1]
    shown: list[float] = []
    show = session.view.show

    def noted(drawn: Any) -> None:
        shown.append(time.monotonic())
        show(drawn)

    session.view.show = noted
    wait_whole(page, session)
    shown.clear()
    began = time.monotonic()
    ended = drag(page)
    moving = [moment for moment in shown if moment <= ended]
    rate = len(moving) / (ended - began)
    wait_whole(page, session)
    whole = time.monotonic() - ended
    page.close()
    return {"first_seconds": first, "moving_rate": rate, "whole_seconds": whole}


def drag(page: Any) -> float:
    """Turn the camera for a while; the moment of the last move."""
    began = time.monotonic()
    page.mouse.move(120, 200)
    page.mouse.down()
    step = 0
    while time.monotonic() - began < DRAG_SECONDS:
        step += 1
        page.mouse.move(120 + step % 100, 200 + step % 40)
        page.wait_for_timeout(15)
    ended = time.monotonic()
    page.mouse.up()
    return ended


def wait_whole(page: Any, session: Any) -> None:
    """Until the whole picture of the newest wish has been sent."""
    began = time.monotonic()
    while session.view.full_serial != session.view.newest()[1]:
        page.wait_for_timeout(5)
        if time.monotonic() - began > PATIENCE:
            raise TimeoutError(f"no whole picture within {PATIENCE:g} s")


def shows_picture(page: Any, session: Any) -> bool:
    """Whether the part of the window beside the panel shows what was sent last."""
    import imageio.v3 as iio
    import numpy as np
    from playwright.sync_api import Error

    if session.last is None:
        return False
    try:
        screen = iio.imread(io.BytesIO(page.screenshot()))[..., :3]
    except Error:  # nothing has been drawn yet
        return False
    picture = session.last.picture
    rows = np.arange(HEIGHT) * picture.shape[0] // HEIGHT
    columns = np.arange(WIDTH) * picture.shape[1] // WIDTH
    wanted = picture[rows][:, columns][UNCOVERED].astype(float)
    return bool(np.abs(screen[UNCOVERED] - wanted).mean() < CLOSE)


if __name__ == "__main__":
    sys.exit(main())
