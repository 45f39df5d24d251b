"""Settings, checkpoints and run files: round trips, damage, full disks."""

import errno
import json

import pytest
import torch
from safetensors.torch import save_file

from lumigraph.core.errors import CheckpointError, ConfigError, DataError
from lumigraph.training import NerfConfig, config_from_dict, train_config
from lumigraph.training.checkpoint import copy_state, load_checkpoint, save_checkpoint
from lumigraph.training.files import (
    append_line,
    read_json,
    read_lines,
    read_yaml,
    write_json,
    write_yaml,
)

TENSORS = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, 2], dtype=torch.int32)}


@pytest.mark.parametrize("preset", ["tiny", "small", "full"])
def test_settings_survive_a_file(preset, tmp_path):
    config = train_config("nerf", preset, seconds=3.5, exposure=True)
    write_yaml(tmp_path / "config.yaml", config.to_dict())
    assert config_from_dict(read_yaml(tmp_path / "config.yaml")) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levelz": 3}, "unknown setting 'levelz'"),
        ({"levels": "three"}, "levels = 'three' has the wrong type"),
        ({"levels": True}, "levels = True has the wrong type"),
        ({"levels": 0}, r"levels = 0: must lie in \[1, 32\]"),
        ({"features": 3}, "features = 3: must be 1, 2, 4 or 8"),
        ({"hidden_width": 40}, "hidden_width = 40: must be a multiple of 16"),
        ({"loss": "l3"}, "loss = 'l3': unknown, use one of l2, huber"),
        ({"seconds": float("nan")}, "seconds = nan: must lie in"),
        ({"image_scale": 0.0}, "image_scale = 0.0: must lie in"),
    ],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ConfigError, match=message):
        config_from_dict({**NerfConfig().to_dict(), **change}, "config.yaml")


def test_unknown_preset_lists_the_known():
    with pytest.raises(ConfigError, match="no preset 'huge'.*nerf/tiny, nerf/small, nerf/full"):
        train_config("nerf", "huge")


def test_settings_execute_nothing(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text("steps: !!python/object/apply:os.system ['touch pwned']\n")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        read_yaml(file)
    file.write_text("- a list\n")
    with pytest.raises(ConfigError, match="expected a mapping"):
        read_yaml(file)
    with pytest.raises(ConfigError, match="not found; is .* a run folder"):
        read_yaml(tmp_path / "missing.yaml")


def test_checkpoint_round_trip(tmp_path):
    file = tmp_path / "checkpoints" / "step-1.safetensors"
    save_checkpoint(file, TENSORS, {"step": 1, "note": "x"})
    tensors, header = load_checkpoint(file)
    assert header == {"step": 1, "note": "x", "contents": ["a", "b"]}
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    assert list(file.parent.iterdir()) == [file]


def test_damaged_checkpoints_are_refused(tmp_path):
    file = tmp_path / "step-1.safetensors"
    save_checkpoint(file, TENSORS, {"step": 1})
    whole = file.read_bytes()
    for length in (0, 5, 40, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match="damaged or cut short"):
            load_checkpoint(file)
    with pytest.raises(CheckpointError, match="not found"):
        load_checkpoint(tmp_path / "none.safetensors")


def test_foreign_and_newer_checkpoints_are_refused(tmp_path):
    file = tmp_path / "x.safetensors"
    save_file(TENSORS, str(file))
    with pytest.raises(CheckpointError, match="not a lumigraph checkpoint"):
        load_checkpoint(file)
    metadata = {"format": "lumigraph-checkpoint", "version": "99", "header": "{}"}
    save_file(TENSORS, str(file), metadata=metadata)
    with pytest.raises(CheckpointError, match="written in format 99, this version reads 1"):
        load_checkpoint(file)
    metadata = {"format": "lumigraph-checkpoint", "version": "1"}
    metadata["header"] = json.dumps({"contents": ["a", "b", "c"]})
    save_file(TENSORS, str(file), metadata=metadata)
    with pytest.raises(CheckpointError, match="'c' is missing"):
        load_checkpoint(file)


def test_state_that_does_not_fit_changes_nothing(tmp_path):
    live = {"a": torch.zeros(2, 3), "b": torch.zeros(3, dtype=torch.int32)}
    with pytest.raises(CheckpointError, match=r"'b' has shape \(2,\), this model needs \(3,\)"):
        copy_state(live, TENSORS, tmp_path)
    assert float(live["a"].abs().sum()) == 0
    with pytest.raises(CheckpointError, match="holds no 'c'"):
        copy_state({"c": torch.zeros(1)}, TENSORS, tmp_path)


def test_a_full_disk_leaves_earlier_results(tmp_path, monkeypatch):
    """Against a stand-in for the failing write, and a folder that refuses writing."""
    file = tmp_path / "value.json"
    write_json(file, {"old": 1})
    save_checkpoint(tmp_path / "c.safetensors", TENSORS, {"step": 1})

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pathlib.Path.write_text", full)
    with pytest.raises(DataError, match=r"value.json: cannot be written \(No space left"):
        write_json(file, {"new": 2})
    monkeypatch.undo()
    monkeypatch.setattr("lumigraph.training.checkpoint.save_file", full)
    with pytest.raises(DataError, match="c.safetensors: cannot be written"):
        save_checkpoint(tmp_path / "c.safetensors", TENSORS, {"step": 2})
    monkeypatch.undo()
    assert read_json(file) == {"old": 1}
    assert load_checkpoint(tmp_path / "c.safetensors")[1]["step"] == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["c.safetensors", "value.json"]


def test_damaged_json_is_named(tmp_path):
    (tmp_path / "train.json").write_text("{")
    with pytest.raises(DataError, match=r"train.json: damaged"):
        read_json(tmp_path / "train.json")
    with pytest.raises(DataError, match="not found; is .* a finished run"):
        read_json(tmp_path / "missing.json")


def test_a_last_line_cut_short_is_left_out(tmp_path):
    file = tmp_path / "metrics.jsonl"
    append_line(file, {"step": 1})
    with file.open("a") as stream:
        stream.write('{"step": 2, "lo')
    assert read_lines(file) == [{"step": 1}]
