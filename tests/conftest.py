"""Markers and fixtures shared by all tests: GPU tests run only where a GPU is present, browser
tests only where Chromium is."""

import os

# Read when torch loads its OpenMP: spinning threads would slow tests that run side by side.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import shutil

import pytest
import torch

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
CHROMIUM_OPTIONS = [
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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    lacking = {}
    if not torch.cuda.is_available():
        lacking["gpu"] = "needs an NVIDIA GPU"
    if CHROMIUM is None:
        lacking["browser"] = "needs Chromium: apt-get install chromium"
    for item in items:
        for marker, reason in lacking.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium that draws WebGL on the CPU."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_OPTIONS)
        yield chromium
        chromium.close()
