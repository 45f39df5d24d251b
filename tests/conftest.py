"""Markers and fixtures shared by all tests: GPU tests run only where a GPU is present."""

import os

# Read when torch loads its OpenMP: spinning threads would slow tests that run side by side.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import pytest
import torch


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available():
        return
    skip = pytest.mark.skip(reason="needs an NVIDIA GPU")
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(skip)
