"""Files of moments: differences within the stated error, sizes, what is missing or damaged."""

import dataclasses
import shutil

import pytest
import torch

from lumigraph.core.errors import CheckpointError
from lumigraph.training import train
from lumigraph.training.checkpoint import load_checkpoint
from lumigraph.training.files import newest_checkpoint
from lumigraph.training.moment_files import (
    HALF_ERROR,
    HALF_FLOOR,
    MomentRecord,
    moment_path,
    pack_bits,
    read_moment,
    unpack_bits,
    write_moment,
)
from lumigraph.training.neus_playback import build_neus
from lumigraph.training.trainer import KEPT_CHECKPOINTS


def record(index: int, table: torch.Tensor, key: int = 0) -> MomentRecord:
    others = {"weights": torch.full((5,), 0.1 * index), "bits": torch.arange(4, dtype=torch.uint8)}
    return MomentRecord(index, index / 10, key, {"table": table, **others})


def test_differences_give_tables_back_within_the_stated_error(tmp_path):
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(1000, 2, generator=generator)
    write_moment(tmp_path, record(0, first))
    assert torch.equal(read_moment(tmp_path, 0)["table"], first)
    for index, scale in ((1, 1.0), (2, 1e-3), (3, 1e-7)):
        moved = first.clone()
        rows = torch.rand(1000, generator=generator) < 0.3
        moved[rows] += scale * torch.randn(int(rows.sum()), 2, generator=generator)
        write_moment(tmp_path, record(index, moved))
        found = read_moment(tmp_path, index)
        bound = HALF_ERROR * (moved - first).abs() + HALF_FLOOR + 1e-7 * first.abs()
        assert bool(((found["table"] - moved).abs() <= bound).all())
        assert torch.equal(found["table"][~rows], first[~rows])
        assert torch.equal(found["weights"], torch.full((5,), 0.1 * index))
        assert found["bits"].dtype == torch.uint8
        sizes = [moment_path(tmp_path, k).stat().st_size for k in (0, index)]
        assert sizes[1] < 0.3 * sizes[0]
    write_moment(tmp_path, record(4, moved, key=4))
    assert torch.equal(read_moment(tmp_path, 4)["table"], moved)


@pytest.mark.parametrize("count", [0, 1, 8, 13])
def test_bits_come_back(count):
    flags = torch.rand(count) < 0.5
    assert torch.equal(unpack_bits(pack_bits(flags), count), flags)


def test_missing_and_damaged_moments_are_named(tmp_path):
    table = torch.rand(10, 2)
    for index in range(3):
        write_moment(tmp_path, record(index, table + index))
    moment_path(tmp_path, 2).write_bytes(b"{}")
    with pytest.raises(CheckpointError, match=r"moment-0002.safetensors: missing or damaged"):
        read_moment(tmp_path, 2)
    write_moment(tmp_path, record(0, torch.rand(7, 2)))
    with pytest.raises(CheckpointError, match="differences do not fit its key moment"):
        read_moment(tmp_path, 1)
    moment_path(tmp_path, 0).unlink()
    for act in (lambda: read_moment(tmp_path, 1), lambda: write_moment(tmp_path, record(1, table))):
        with pytest.raises(CheckpointError, match=r"moment-0000.safetensors: missing or damaged"):
            act()


@pytest.fixture(scope="module")
def trained(moving, tmp_path_factory):
    def run(folder, config):
        return train(moving.scene, config, out=tmp_path_factory.mktemp("runs") / folder)

    return run


def test_runs_keep_every_moment_and_name_the_one_that_is_lost(sequence, moving, trained):
    config = dataclasses.replace(sequence, checkpoint_every_seconds=1.0)
    run = trained("deltas", config)
    assert len(list((run.path / "checkpoints").iterdir())) <= KEPT_CHECKPOINTS
    assert len(list((run.path / "moments").iterdir())) == 3
    whole = trained("whole", dataclasses.replace(config, stored_moments="whole"))
    bytes_of = [
        sum(f.stat().st_size for f in (each.path / "moments").iterdir()) for each in (run, whole)
    ]
    assert bytes_of[0] < 0.8 * bytes_of[1]
    for index in range(3):
        exact = read_moment(whole.path, index)["field.table"]
        error = (read_moment(run.path, index)["field.table"] - exact).abs().max()
        key = read_moment(whole.path, 0)["field.table"]
        assert float(error) <= HALF_ERROR * float((exact - key).abs().max()) + HALF_FLOOR + 1e-7
        camera = moving.scene.cameras[4].at_time(index / 2)
        seen = [each.model("cpu").render(camera).color for each in (run, whole)]
        assert float((seen[0] - seen[1]).abs().max()) < 2e-3
    shutil.move(moment_path(run.path, 1), run.path / "elsewhere")
    with pytest.raises(CheckpointError, match=r"moment-0001.safetensors: missing, of 3 moments"):
        run.model("cpu")


def test_the_last_moment_is_the_field_that_was_trained(moving, sequence, trained):
    run = trained("run", dataclasses.replace(sequence, stored_moments="whole"))
    method = build_neus(moving.scene, run.config, torch.device("cpu"))
    checkpoint = newest_checkpoint(run.path)
    method.restore(*load_checkpoint(checkpoint), checkpoint)
    moment = run.model("cpu").field.at_moment(2)
    for name, value in moment.field.named_parameters():
        assert torch.equal(value, method.moment().tensors[f"field.{name}"]), name
    assert torch.equal(moment.occupancy.bits, method.renderer.occupancy.bits)
    unseen = method.renderer.occupancy.values < 0
    assert torch.equal(moment.occupancy.values < 0, unseen)
