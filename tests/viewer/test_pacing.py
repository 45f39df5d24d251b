"""Sizes follow the measured cost of pixels."""

import pytest

from lumigraph.viewer.pacing import LEAST_PIXELS, MOVING_SECONDS, TILE_SECONDS, Pace


def test_a_cheap_picture_is_whole_while_moving():
    pace = Pace()
    pace.note(640 * 480, 0.02)
    assert pace.moving_size(640, 480) == (640, 480)


def test_an_expensive_picture_shrinks_to_what_is_affordable_and_keeps_its_shape():
    pace = Pace()
    pace.note(640 * 480, 1.0)
    width, height = pace.moving_size(640, 480)
    assert width * height * (1.0 / (640 * 480)) == pytest.approx(MOVING_SECONDS, rel=0.05)
    assert width / height == pytest.approx(4 / 3, rel=0.02)


def test_viewers_that_move_together_share_the_time():
    pace = Pace()
    pace.note(1000, 0.001)
    alone, four = (pace.moving_size(2000, 2000, sharers=n) for n in (1, 4))
    assert four[0] ** 2 == pytest.approx(alone[0] ** 2 / 4, rel=0.05)


def test_no_picture_is_smaller_than_can_be_recognised():
    pace = Pace()
    pace.note(10, 10.0)
    width, height = pace.moving_size(640, 480)
    assert width * height == pytest.approx(LEAST_PIXELS, rel=0.05)


def test_a_machine_that_slows_down_is_noticed_within_a_few_pictures():
    pace = Pace()
    pace.note(10_000, 0.01)
    for _ in range(6):
        pace.note(10_000, 0.1)
    assert pace.seconds_per_pixel == pytest.approx(1e-5, rel=0.1)


def test_tiles_take_about_their_time_and_never_more_than_the_picture():
    pace = Pace()
    pace.note(640 * 480, 1.0)
    assert pace.tile_rows(640, 480) / 480 == pytest.approx(TILE_SECONDS, rel=0.05)
    assert Pace().tile_rows(4000, 3) >= 1
    pace.note(1, 1e-12)
    assert pace.tile_rows(640, 480) <= 480
