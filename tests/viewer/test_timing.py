"""The rate of pictures without a browser."""

import pytest

from lumigraph.viewer import measure_rate


def test_the_rate_is_that_of_the_renderer(painted):
    painted.painter.seconds_per_pixel = 0.02 / (32 * 24)
    rate = measure_rate(painted, 32, 24, frames=5, warmup=1)
    assert painted.painter.calls == [(32, 24)] * 6
    assert 0.02 <= rate.median_seconds <= rate.slowest_seconds
    assert rate.frames_per_second == pytest.approx(1 / rate.median_seconds)
    assert (rate.width, rate.height, rate.frames) == (32, 24, 5)
