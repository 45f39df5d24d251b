"""Gaussians that move in a .lg4d file: what comes back, what is lost, what is refused."""

import json
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from lumigraph import export
from lumigraph.cli import main
from lumigraph.core import (
    Cameras,
    DataError,
    GaussianCloud,
    GaussianCloud4D,
    InputError,
    Similarity,
)
from lumigraph.core.transforms import look_at, rotation_exp
from lumigraph.export import MovingSplats, WriteOptions, read_moving, write_moving
from lumigraph.export.splat_files.moving_arrays import arrays_of, clouds_of
from lumigraph.export.splat_files.moving_packing import pack_moving, reachable, unpack_moving
from lumigraph.fields import Gaussians4D
from lumigraph.renderers import SplatRenderer

TIMES = (0.0, 0.3, 0.77, 1.0)


def slices(splats: MovingSplats, time: float):
    with torch.no_grad():
        return splats.field("cpu").sliced_at(time)


@pytest.mark.parametrize("plateaus", [False, True])
def test_arrays_say_the_same_as_rotors(random_moving, plateaus):
    given = random_moving(plateaus=plateaus)
    cloud, still = clouds_of(given.arrays())
    again = replace(given, cloud=cloud, still=still)
    for time in TIMES:
        one, other = slices(given, time), slices(again, time)
        torch.testing.assert_close(other.means, one.means, atol=2e-5, rtol=1e-5)
        torch.testing.assert_close(other.velocities, one.velocities, atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(other.covariances, one.covariances, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(other.opacities, one.opacities, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(still.means, given.still.means)
    assert (cloud.log_plateaus is None) != plateaus


def test_arrays_are_what_is_seen_at_a_time(random_moving):
    given = random_moving(plateaus=True)
    arrays = given.arrays()
    for time in TIMES:
        means, opacities = arrays.at(time)
        seen = slices(given, time)
        np.testing.assert_allclose(means[:300], seen.means, atol=1e-5)
        np.testing.assert_allclose(opacities[:300], seen.opacities, atol=1e-5)
        np.testing.assert_array_equal(means[300:], given.still.means)


def test_a_cloud_that_does_not_move_comes_back_as_it_was(random_cloud):
    cloud = random_cloud(50, degree=0)
    moving = GaussianCloud4D.from_static(cloud, times=0.25, duration=0.5)
    again, _ = clouds_of(arrays_of(moving, GaussianCloud.empty()))
    torch.testing.assert_close(again.log_scales[:, 3], moving.log_scales[:, 3])
    assert float(again.rotors[:, 4:].abs().max()) == 0.0
    with torch.no_grad():
        seen = Gaussians4D(again).sliced_at(0.25)
    torch.testing.assert_close(seen.means, cloud.means)
    assert float(seen.velocities.abs().max()) < 1e-6


def test_the_shortest_duration_of_the_field_is_kept(random_moving):
    given = replace(random_moving(), shortest=0.3)
    arrays = given.arrays()
    assert float(np.exp(arrays.log_durations).min()) >= 0.3 * (1 - 1e-6)
    np.testing.assert_allclose(arrays.at(0.4)[1][:300], slices(given, 0.4).opacities, atol=1e-5)


@pytest.mark.parametrize(("count", "still"), [(300, 100), (300, 0), (0, 100), (1, 0), (0, 1)])
@pytest.mark.parametrize("degree", [0, 3])
def test_a_file_is_read_as_it_was_written(random_moving, tmp_path, count, still, degree):
    given = random_moving(count, still, degree=degree, plateaus=bool(still))
    report = write_moving(given, tmp_path / "a.lg4d")
    assert report.count == count + still and report.format == "lg4d 1"
    file = read_moving(tmp_path / "a.lg4d")
    assert file.report.stored == count + still and file.report.degree == degree
    assert (len(file.splats.cloud), len(file.splats.still)) == (count, still)
    torch.testing.assert_close(file.splats.moments, given.moments)
    assert report.loss.position < 1e-5 and report.loss.opacity < 3e-3
    assert report.loss.scale < 0.02 and report.loss.rotation < 0.2
    assert report.bytes == (tmp_path / "a.lg4d").stat().st_size


def test_pictures_of_a_file_are_those_of_the_field(random_moving, tmp_path):
    given = random_moving(2000, 500, degree=2)
    options = WriteOptions(harmonics_bits=8)
    write_moving(given, tmp_path / "a.lg4d", options=options)
    read = read_moving(tmp_path / "a.lg4d").splats
    pose = look_at(torch.tensor([1.0, -9.0, 1.0]), torch.ones(3), up=[0.0, 0.0, 1.0])
    camera = Cameras.from_intrinsics(pose, 80, 60, 60.0)
    renderer = SplatRenderer(background=torch.zeros(3))
    for time in TIMES:
        here = camera.at_time(time)
        expected = renderer.render(given.field("cpu"), here).color
        found = renderer.render(read.field("cpu"), here).color
        assert expected.std() > 0.1
        assert float((expected - found).square().mean()) < 10**-4.5  # 45 dB


def test_measured_loss_is_the_loss(random_moving, tmp_path):
    """Only what a file keeps in bits is lost, so a second writing loses nothing more of time."""
    given = random_moving(plateaus=True)
    first = write_moving(given, tmp_path / "a.lg4d")
    again = write_moving(read_moving(tmp_path / "a.lg4d").splats, tmp_path / "b.lg4d")
    assert first.loss.scale > 1e-3
    assert again.loss.opacity < first.loss.opacity and again.loss.rotation < 0.2
    one, other = (read_moving(tmp_path / name).splats for name in ("a.lg4d", "b.lg4d"))
    moved = np.abs(one.arrays().at(0.5)[0] - other.arrays().at(0.5)[0]).max()
    assert moved < 1e-4


def test_time_has_fine_steps(random_moving):
    given = random_moving(plateaus=True).arrays()
    mask, bits = reachable(given)
    assert mask.all()
    data, layout = pack_moving(given, bits)
    assert len(data) == layout.size
    read = unpack_moving(data, layout)
    np.testing.assert_allclose(read.times, given.times, rtol=2e-5)
    np.testing.assert_allclose(read.velocities, given.velocities, rtol=2e-5)
    np.testing.assert_allclose(read.log_durations, given.log_durations, atol=2e-4)
    np.testing.assert_allclose(read.log_plateaus, given.log_plateaus, atol=2e-4)
    for time in TIMES:
        np.testing.assert_allclose(read.at(time)[0], given.at(time)[0], atol=5e-5)


def test_own_times_far_outside_do_no_harm(random_moving, tmp_path):
    given = random_moving(50, 0)
    times = given.cloud.times.clone()
    times[0] = -40.0
    log_scales = given.cloud.log_scales.clone()
    log_scales[0] = torch.tensor([-3.0, -3.0, -3.0, 4.0])
    cloud = replace(given.cloud, times=times, log_scales=log_scales)
    given = replace(given, cloud=cloud)
    report = write_moving(given, tmp_path / "a.lg4d")
    assert report.count == 50 and report.loss.position < 1e-5
    before, after = given.arrays().at(0.5), None
    read = read_moving(tmp_path / "a.lg4d").splats.arrays()
    after = read.at(0.5)
    order = np.abs(before[0][:, None] - after[0][None]).sum(2).argmin(1)
    assert sorted(order) == list(range(50))
    np.testing.assert_allclose(before[0], after[0][order], atol=1e-3)


def test_fewer_harmonics_and_bits(random_moving, tmp_path):
    given = random_moving(degree=3)
    sizes = []
    for name, options in (
        ("a", WriteOptions(harmonics_bits=8)),
        ("b", WriteOptions()),
        ("c", WriteOptions(degree=0)),
    ):
        report = write_moving(given, tmp_path / f"{name}.lg4d", options=options)
        sizes.append(report.bytes)
    assert sizes[0] > sizes[1] > sizes[2]
    assert report.dropped == ("harmonics of degree 1 to 3",) and report.degree == 0


def test_rows_that_are_not_finite_are_left_out(random_moving, tmp_path):
    given = random_moving(20, 10)
    cloud = replace(given.cloud, times=given.cloud.times.clone(), means=given.cloud.means.clone())
    cloud.times[3], cloud.means[4, 0] = torch.nan, torch.inf
    given.still.means[2] = torch.nan
    report = write_moving(replace(given, cloud=cloud), tmp_path / "a.lg4d")
    assert report.count == 27 and "3 Gaussians that are not finite" in report.line()


def test_nothing_to_write(random_moving, tmp_path):
    given = random_moving(0, 0)
    with pytest.raises(DataError, match="not written: there are no Gaussians"):
        write_moving(given, tmp_path / "a.lg4d")
    given = random_moving(1, 0)
    cloud = replace(given.cloud, times=torch.tensor([torch.nan]))
    with pytest.raises(DataError, match="none of the Gaussians is finite"):
        write_moving(replace(given, cloud=cloud), tmp_path / "a.lg4d")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def file(random_moving, tmp_path) -> Path:
    write_moving(random_moving(40, 10), tmp_path / "a.lg4d")
    return tmp_path / "a.lg4d"


def changed(file: Path, **changes) -> Path:
    """The file with another header."""
    data = file.read_bytes()
    length = struct.unpack("<I", data[8:12])[0]
    header = json.loads(data[12 : 12 + length])
    for key, value in changes.items():
        header.pop(key) if value is None else header.update({key: value})
    text = json.dumps(header).encode()
    file.write_bytes(data[:8] + struct.pack("<I", len(text)) + text + data[12 + length :])
    return file


@pytest.mark.parametrize(
    "changes",
    [
        {"count": None},
        {"count": "many"},
        {"moving": 51},
        {"moving": -1},
        {"degree": 4},
        {"fractional_bits": 1000},
        {"scale_step": float("nan")},
        {"duration_low": [1]},
        {"plateau_low": 1.0},
        {"moments": []},
        {"moments": [0.5, 0.2]},
        {"moments": [0.5, 1.2]},
        {"origin": [0, 0]},
        {"origin": [0, 0, float("inf")]},
    ],
)
def test_damaged_headers(file, changes):
    with pytest.raises(DataError, match=r"a.lg4d: its header is damaged; write it again"):
        read_moving(changed(file, **changes))


def test_counts_that_do_not_fit(file):
    with pytest.raises(DataError, match=r"holds .* bytes of Gaussians, expected"):
        read_moving(changed(file, count=49))
    with pytest.raises(DataError, match="more than max_gaussians"):
        read_moving(changed(file, count=10**9))
    with pytest.raises(DataError, match="holds no Gaussians"):
        read_moving(changed(file, count=0, moving=0))


def test_every_cut_is_told(file):
    data = file.read_bytes()
    for length in range(0, len(data) - 1, 37):
        file.write_bytes(data[:length])
        with pytest.raises(DataError, match=r"a\.lg4d: "):
            read_moving(file)


def test_other_content(file, tmp_path):
    data = file.read_bytes()
    file.write_bytes(data[:4] + struct.pack("<I", 9) + data[8:])
    with pytest.raises(DataError, match="is of version 9, this program reads 1"):
        read_moving(file)
    length = struct.unpack("<I", data[8:12])[0]
    bomb = zlib.compress(bytes(50_000_000), 9)
    file.write_bytes(data[: 12 + length] + bomb)
    with pytest.raises(DataError, match="expected"):
        read_moving(file)
    file.write_bytes(data[: 12 + length] + b"no zlib at all")
    with pytest.raises(DataError, match="its content is damaged"):
        read_moving(file)
    file.write_bytes(b"ply\n")
    with pytest.raises(DataError, match="so it is no .lg4d file"):
        read_moving(file)
    with pytest.raises(DataError, match="no such file"):
        read_moving(tmp_path / "b.lg4d")


def test_random_bytes_never_crash(file):
    generator = np.random.default_rng(0)
    data = np.frombuffer(file.read_bytes(), dtype=np.uint8)
    for _ in range(60):
        broken = data.copy()
        broken[generator.integers(0, len(data), 3)] = generator.integers(0, 256, 3)
        file.write_bytes(broken.tobytes())
        try:
            found = read_moving(file).splats.at(0.5)
        except DataError as error:
            assert str(error).startswith(str(file))
        else:
            assert all(bool(tensor.isfinite().all()) for tensor in found.tensors())


MOVE = Similarity(0.5, rotation_exp(torch.tensor([0.3, -0.8, 0.5])), torch.tensor([1.0, 2, 3]))


@pytest.fixture
def run(random_moving):
    """Trained in a frame of its own, shown with fewer harmonics than are stored."""
    given = random_moving(degree=2)
    moved = given.transformed(MOVE)
    field = Gaussians4D(moved.cloud, still=moved.still, moments=moved.moments, active_degree=1)
    model = SimpleNamespace(field=field, moments=field.moments)
    return given, SimpleNamespace(
        path=Path("runs/dance"),
        config=SimpleNamespace(method="gaussians4d", antialiased=True),
        model=lambda device: model,
        scene=lambda: SimpleNamespace(normalization=MOVE),
    )


def test_a_run_in_the_frame_of_its_capture(run, tmp_path):
    given, run = run
    report = export.splats(run, out=tmp_path / "a.lg4d")
    assert report.degree == 1
    read = read_moving(tmp_path / "a.lg4d").splats
    assert read.antialiased
    for time in (0.2, 0.9):
        middles = []
        for splats in (given, read):
            means, opacities = splats.arrays().at(time)
            middles.append(opacities @ means / opacities.sum())
        np.testing.assert_allclose(middles[1], middles[0], atol=2e-3)
    export.splats(run, out=tmp_path / "b.ply", time=0.5)
    export.splats(tmp_path / "a.lg4d", out=tmp_path / "c.ply", time=0.5)
    one, other = (len(export.read_splats(tmp_path / name).cloud) for name in ("b.ply", "c.ply"))
    assert abs(one - other) <= 3
    with pytest.raises(InputError, match="holds all times; leave --time away"):
        export.splats(run, out=tmp_path / "d.lg4d", time=0.5)


def test_what_stands_still_has_no_such_file(random_cloud, tmp_path):
    with pytest.raises(InputError, match="nothing moves in it"):
        export.splats(random_cloud(5), out=tmp_path / "a.lg4d")
    assert list(tmp_path.iterdir()) == []


def test_what_tells_one_time_after_the_other_has_no_such_file(drifting_model, tmp_path):
    run = SimpleNamespace(
        path="runs/drift",
        config=SimpleNamespace(method="gaussians4d"),
        model=lambda device: drifting_model,
        scene=lambda: SimpleNamespace(normalization=Similarity.identity()),
    )
    with pytest.raises(InputError, match=r"give one with --time, or several with --times"):
        export.splats(run, out=tmp_path / "a.lg4d")


def test_files_are_taken_by_commands(file, tmp_path, capsys):
    words = ["render", str(file), "--out", str(tmp_path / "f"), "--width", "40", "--height", "30"]
    assert main([*words, "--frames", "3", "--json"]) == 0
    assert len(list((tmp_path / "f").iterdir())) == 3
    assert main([*words, "--frames", "2", "--time", "0.3", "--overwrite"]) == 0
    first, second = (p.read_bytes() for p in sorted((tmp_path / "f").iterdir()))
    assert first != second
    assert main(["export", "splats", str(file), "--out", str(tmp_path / "b.lg4d")]) == 0
    out = ["--out", str(tmp_path / "c.spz"), "--time", "0.5"]
    assert main(["export", "splats", str(file), *out]) == 0
    assert main(["export", "splats", str(file), "--times", "4", "--out", str(tmp_path / "g")]) == 0
    assert main(["export", "points", str(file), *["--out", str(tmp_path / "p.ply")], *out[2:]]) == 0
    capsys.readouterr()
    assert main(["convert", str(file), str(tmp_path / "d.ply")]) == 2
    assert "its Gaussians move; take those of one time with" in capsys.readouterr().err


def test_a_file_is_viewed(file):
    from lumigraph.viewer import open_source

    source = open_source(file, device="cpu")
    assert source.moments is not None and len(source.moments) == 7 and source.splats
    assert source.kind == "lg4d 1"
    assert len(source.cloud(0.0)) != len(source.cloud(0.5))
