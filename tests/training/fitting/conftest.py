"""Tiny things to fit."""

import numpy as np
import pytest
from PIL import Image

from lumigraph.training import StepEvent, resume, train
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint


@pytest.fixture
def picture_file(tmp_path):
    y, x = np.mgrid[0:24, 0:32] / 32
    color = np.stack([x, y, 0.5 + 0.5 * np.sin(9 * x) * np.cos(7 * y)], axis=-1)
    path = tmp_path / "waves.png"
    Image.fromarray((color * 255).astype(np.uint8)).save(path)
    return path


@pytest.fixture
def small():
    """Settings of every tiny run."""
    return {"levels": 4, "hidden_width": 16, "log_every": 5, "device": "cpu"}


@pytest.fixture
def stopped_and_resumed(tmp_path):
    """Train data twice, once with a stop in the middle; both checkpoints as tensors."""

    def both(data, config):
        def stop(event):
            if isinstance(event, StepEvent) and event.step >= config.steps // 2:
                raise KeyboardInterrupt

        whole = train(data, config, out=tmp_path / "whole")
        with pytest.raises(KeyboardInterrupt):
            train(data, config, out=tmp_path / "parts", on_event=stop)
        parts = resume(tmp_path / "parts")
        return [load_checkpoint(newest_checkpoint(run.path))[0] for run in (whole, parts)]

    return both
