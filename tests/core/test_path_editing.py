"""The model behind a keyframe editor: order, seconds, undo, and what it refuses."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lumigraph.core import CameraPath, DataError, InputError, Keyframe, PathEditor


def pose(x: float) -> Tensor:
    matrix = torch.eye(4)
    matrix[0, 3] = x
    return matrix


def editor_of(count: int, **options: float) -> PathEditor:
    editor = PathEditor(**options)
    for index in range(count):
        assert editor.add(pose(index)) == index
    return editor


def places(editor: PathEditor) -> list[float]:
    return [float(frame.camera_to_world[0, 3]) for frame in editor.keyframes]


def seconds(editor: PathEditor) -> list[float]:
    return [frame.seconds for frame in editor.keyframes]


def test_views_are_added_at_an_even_pace() -> None:
    editor = PathEditor(spacing=2.0, fps=24.0)
    editor.add(pose(0), field_of_view=40.0, time=0.25)
    editor.add(pose(1))
    editor.add(pose(2), field_of_view=60.0, time=1.0)
    assert seconds(editor) == [0, 2, 4] and editor.duration == 4
    assert [frame.field_of_view for frame in editor.keyframes] == [40, 40, 60]
    assert [frame.time for frame in editor.keyframes] == [0.25, 0.25, 1.0]
    path = editor.to_path()
    assert (path.duration, path.fps, path.loop) == (4, 24, False)


def test_insert_takes_the_middle() -> None:
    editor = editor_of(3)
    assert editor.insert_after(0, pose(0.5)) == 1
    assert places(editor) == [0, 0.5, 1, 2] and seconds(editor) == [0, 0.5, 1, 2]
    assert editor.insert_after(3, pose(3)) == 4
    assert seconds(editor)[-1] == 3
    assert editor.insert_after(-1, pose(-1)) == 0
    assert places(editor) == [-1, 0, 0.5, 1, 2, 3] and seconds(editor) == [0, 1, 1.5, 2, 3, 4]


def test_move_keeps_the_seconds_in_place() -> None:
    editor = editor_of(4)
    editor.retime(3, 7.0)
    editor.move(3, 1)
    assert places(editor) == [0, 3, 1, 2] and seconds(editor) == [0, 1, 2, 7]
    editor.move(0, 3)
    assert places(editor) == [3, 1, 2, 0] and seconds(editor) == [0, 1, 2, 7]


def test_set_view_keeps_seconds_and_what_is_not_given() -> None:
    editor = editor_of(2)
    editor.set_field_of_view(30.0, 1)
    editor.set_view(1, pose(9))
    frame = editor.keyframes[1]
    assert (frame.seconds, frame.field_of_view, places(editor)) == (1, 30, [0, 9])
    editor.set_view(1, pose(8), field_of_view=80.0)
    assert editor.keyframes[1].field_of_view == 80


def test_remove_keeps_the_seconds_of_the_others() -> None:
    editor = editor_of(4)
    editor.remove(1)
    assert places(editor) == [0, 2, 3] and seconds(editor) == [0, 2, 3]
    editor.remove(0)
    assert places(editor) == [2, 3] and seconds(editor) == [0, 1]
    editor.clear()
    assert len(editor) == 0 and editor.duration == 0


def test_time_runs_over_the_whole_path_until_taken_back() -> None:
    editor = PathEditor()
    editor.add(pose(0), time=0.5)
    editor.add(pose(1), time=1.0)
    editor.set_time_span((0.0, 1.0))
    assert (editor.time_span, editor.at(0.25)[2]) == ((0.0, 1.0), 0.25)
    assert PathEditor.from_path(editor.to_path()).time_span == (0.0, 1.0)
    with pytest.raises(InputError, match="time must lie in"):
        editor.set_time_span((0.0, 2.0))
    assert editor.undo() and editor.at(0.25)[2] == 0.625


def test_retime_one_or_all_that_follow() -> None:
    editor = editor_of(4)
    editor.retime(1, 1.5)
    assert seconds(editor) == [0, 1.5, 2, 3]
    editor.retime(1, 3.5, shift=True)
    assert seconds(editor) == [0, 3.5, 4, 5] and editor.duration == 5
    editor.retime(3, 10.0)
    assert editor.duration == 10
    editor.retime(0, 0.0)
    for index, value, message in (
        (2, 3.5, r"keyframe 2 must come after 3\.5 s and before 10 s; got 3\.5 s"),
        (2, 11.0, "before 10 s; got 11 s"),
        (3, 4.0, "keyframe 3 must come after 4 s; got 4 s"),
        (0, 1.0, "the first keyframe stays at 0 s"),
        (1, math.nan, "seconds must be a finite number; got nan"),
        (4, 1.0, "no keyframe 4; there are 0 to 3"),
    ):
        with pytest.raises(InputError, match=message):
            editor.retime(index, value)
    assert seconds(editor) == [0, 3.5, 4, 10]


@pytest.mark.parametrize("loop", [False, True])
def test_duration_stretches_everything(loop: bool) -> None:
    editor = editor_of(3)
    editor.set_loop(loop)
    editor.set_duration(12.0)
    assert editor.duration == 12
    assert seconds(editor) == ([0, 4, 8] if loop else [0, 6, 12])
    with pytest.raises(InputError, match="duration must be a positive number"):
        editor.set_duration(0.0)
    with pytest.raises(InputError, match="duration needs at least two keyframes"):
        editor_of(1).set_duration(3.0)


def test_a_loop_leads_back() -> None:
    editor = editor_of(3, spacing=2.0)
    editor.set_loop(True)
    assert editor.duration == 6
    editor.add(pose(3))
    assert editor.duration == 8 and editor.to_path().loop
    torch.testing.assert_close(editor.at(8.0)[0], editor.at(0.0)[0])
    editor.set_loop(False)
    assert editor.duration == 6 and not editor.to_path().loop
    assert PathEditor(loop=True).loop


def test_values_of_one_view_or_of_all() -> None:
    editor = editor_of(3)
    editor.set_field_of_view(35.0)
    editor.set_field_of_view(70.0, 2)
    assert [frame.field_of_view for frame in editor.keyframes] == [35, 35, 70]
    editor.set_time(0.5)
    editor.set_time(1.0, 2)
    assert [frame.time for frame in editor.keyframes] == [0.5, 0.5, 1.0]
    editor.set_fps(12.0)
    assert editor.fps == 12 and editor.to_path().frame_count == 25


def test_preview_is_the_path() -> None:
    editor = editor_of(4)
    editor.set_time(0.5)
    matrix, angle, time = editor.at(1.25)
    wanted = editor.to_path().view_at(1.25)
    assert matrix.shape == (4, 4) and torch.equal(matrix, wanted[0])
    assert (angle, time) == (wanted[1], wanted[2])
    still = PathEditor()
    with pytest.raises(InputError, match="no keyframes yet"):
        still.at(0.0)
    still.add(pose(5))
    assert float(still.at(3.0)[0][0, 3]) == 5


def test_undo_goes_back_change_by_change() -> None:
    editor = PathEditor()
    assert not editor.undo()
    states = []
    for change in (
        lambda: editor.add(pose(0)),
        lambda: editor.add(pose(1)),
        lambda: editor.insert_after(0, pose(0.5)),
        lambda: editor.move(0, 2),
        lambda: editor.retime(1, 0.75),
        lambda: editor.set_loop(True),
        lambda: editor.set_duration(9.0),
        lambda: editor.set_field_of_view(20.0),
        lambda: editor.set_view(0, pose(7)),
        lambda: editor.remove(2),
        lambda: editor.clear(),
    ):
        states.append((places(editor), seconds(editor), editor.duration, editor.loop))
        change()
    # what was refused is no change
    with pytest.raises(InputError):
        editor.set_fps(0.0)
    for state in reversed(states):
        assert editor.undo()
        assert (places(editor), seconds(editor), editor.duration, editor.loop) == state
    assert not editor.undo()


def test_poses_are_copied() -> None:
    editor, matrix = PathEditor(), pose(1)
    editor.add(matrix)
    matrix[0, 3] = 5
    assert places(editor) == [1]


def test_what_is_refused_changes_nothing() -> None:
    editor = editor_of(2)
    for change, message in (
        (lambda: editor.add(torch.eye(3)), "keyframe 2: camera_to_world must be 4x4"),
        (lambda: editor.add(2 * torch.eye(4)), "keyframe 2: .*not a rotation"),
        (lambda: editor.add(pose(math.nan)), "keyframe 2: .*NaN"),
        (lambda: editor.add(pose(2), field_of_view=0.0), "keyframe 2: field_of_view"),
        (lambda: editor.add(pose(2), time=0.5), "time must be given for all keyframes or for none"),
        (lambda: editor.set_time(0.5, 0), "time must be given for all keyframes or for none"),
        (lambda: editor.set_time(1.5), r"keyframe 0: time must lie in \[0, 1\]"),
        (lambda: editor.set_field_of_view(190.0, 1), "keyframe 1: field_of_view"),
        (lambda: editor.insert_after(2, pose(0)), "no keyframe 2; there are 0 to 1"),
        (lambda: editor.move(0, 2), "no keyframe 2"),
        (lambda: editor.remove(-1), "no keyframe -1"),
        (lambda: editor.set_fps(math.inf), "fps must be a positive number"),
    ):
        with pytest.raises(InputError, match=message):
            change()
    assert places(editor) == [0, 1] and seconds(editor) == [0, 1] and editor.fps == 30
    with pytest.raises(InputError, match="no keyframe 0; there are none yet"):
        PathEditor().remove(0)
    with pytest.raises(InputError, match="spacing must be a positive number"):
        PathEditor(spacing=0.0)


def test_a_path_needs_two_views() -> None:
    for count in (0, 1):
        with pytest.raises(InputError, match=f"at least two keyframes; got {count}"):
            editor_of(count).to_path()


@pytest.mark.parametrize("loop", [False, True])
def test_from_path_and_back(loop: bool) -> None:
    frames = [Keyframe(0.0, pose(0), 40.0), Keyframe(3.0, pose(1), 50.0)]
    path = CameraPath(frames, duration=5.0, fps=10.0, loop=loop)
    editor = PathEditor.from_path(path)
    again = editor.to_path()
    assert (again.duration, again.fps, again.loop) == (5, 10, loop)
    torch.testing.assert_close(
        again.cameras(8, 6).camera_to_world, path.cameras(8, 6).camera_to_world
    )
    assert not editor.undo()
    editor.add(pose(2))
    assert seconds(editor) == [0, 3, 6] and editor.duration == 8


def test_save(tmp_path: Path) -> None:
    editor, file = editor_of(3), tmp_path / "path.json"
    editor.save(file)
    assert len(CameraPath.from_file(file).keyframes) == 3
    editor.add(pose(3))
    with pytest.raises(InputError, match=r"path\.json: exists; choose another name"):
        editor.save(file)
    assert len(json.loads(file.read_text())["keyframes"]) == 3
    editor.save(file, overwrite=True)
    assert len(CameraPath.from_file(file).keyframes) == 4
    with pytest.raises(InputError, match=r"path\.txt: a path file must end in \.json"):
        editor.save(tmp_path / "path.txt")
    with pytest.raises(InputError, match="at least two keyframes; got 1"):
        editor_of(1).save(tmp_path / "one.json")
    with pytest.raises(DataError, match="cannot be written"):
        editor.save(tmp_path / "missing" / "path.json")
    assert [entry.name for entry in tmp_path.iterdir()] == ["path.json"]
