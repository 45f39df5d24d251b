"""Markers and fixtures shared by all tests: GPU tests run only where a GPU is present, browser
tests only where Chromium is."""

import os

# Read when torch loads its OpenMP: spinning threads would slow tests that run side by side.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import shutil

import pytest
import torch

from lumigraph.fields import GaussianTensors
from lumigraph.renderers import SplatRenderer
from lumigraph.training import Model

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


class Drift(torch.nn.Module):
    """One red Gaussian that goes from x = -1 to 1 while time runs from 0 to 1."""

    def __init__(self, moments: torch.Tensor) -> None:
        super().__init__()
        self.moments = moments

    def gaussians_at(self, time: float | None) -> GaussianTensors:
        assert time is not None, "a moving field is asked for a time"
        return GaussianTensors(
            torch.tensor([[2 * time - 1, 0.0, 0.0]]),
            torch.tensor([[1.0, 0, 0, 0]]),
            torch.full((1, 3), -2.0),
            torch.full((1,), 5.0),
            torch.tensor([[[1.7, -1.7, -1.7]]]),
        )


@pytest.fixture
def drifting_model() -> Model:
    """A moving model with five moments, black behind it."""
    renderer = SplatRenderer(background=torch.zeros(3))
    return Model(Drift(torch.linspace(0, 1, 5)), renderer, torch.device("cpu"))
