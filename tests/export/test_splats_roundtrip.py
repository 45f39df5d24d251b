"""Every format that is written: what comes back, within what the format can hold."""

import math
import stat

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from lumigraph.core import DataError, GaussianCloud, InputError, spherical_harmonics
from lumigraph.core.errors import ConfigError
from lumigraph.export import WriteOptions, read_splats, write_splats

Y_0 = 0.5 / math.sqrt(math.pi)


def angles(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Degrees between rotations."""
    one, other = (torch.nn.functional.normalize(q.double(), dim=-1) for q in (first, second))
    sign = torch.where((one * other).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    return torch.rad2deg(4 * torch.asin(((one - sign * other).norm(dim=-1) / 2).clamp(max=1)))


def largest(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first.double() - second.double()).abs().max())


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_ply_keeps_every_bit(tmp_path, random_cloud, degree):
    cloud = random_cloud(degree=degree)
    report = write_splats(cloud, tmp_path / "a.ply")
    found = read_splats(tmp_path / "a.ply")
    for before, after in zip(cloud.tensors(), found.cloud.tensors(), strict=True):
        assert torch.equal(before, after)
    assert not any(report.loss.to_dict().values()) and report.dropped == ()
    assert report.line().endswith("lost: nothing") and report.bytes > 0
    assert found.report.degree == degree and found.report.culled == 0


def test_ply_has_the_original_layout(tmp_path, random_cloud):
    cloud = random_cloud(3, 1)
    write_splats(cloud, tmp_path / "a.ply")
    vertex = PlyData.read(str(tmp_path / "a.ply"))["vertex"]
    rest = [f"f_rest_{i}" for i in range(9)]
    expected = ["x", "y", "z", "nx", "ny", "nz", "f_dc_0", "f_dc_1", "f_dc_2", *rest, "opacity"]
    expected += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]
    assert [item.name for item in vertex.properties] == expected
    # Channel-major: red's three coefficients come first.
    np.testing.assert_array_equal(vertex["f_rest_1"], cloud.harmonics[:, 2, 0])
    np.testing.assert_array_equal(vertex["f_rest_3"], cloud.harmonics[:, 1, 1])


@pytest.mark.parametrize("byte_order", ["<", ">", "text"])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_ply_of_other_orders_and_types(tmp_path, random_cloud, byte_order, kind):
    cloud = random_cloud(20, 2)
    write_splats(cloud, tmp_path / "a.ply")
    rows = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data
    names = sorted(set(rows.dtype.names) - {"nx", "ny", "nz"}, reverse=True)
    other = np.empty(len(rows), dtype=[*((name, kind) for name in names), ("label", "i4")])
    for name in names:
        other[name] = rows[name]
    other["label"] = 7
    order = {} if byte_order == "text" else {"byte_order": byte_order}
    data = PlyData([PlyElement.describe(other, "vertex")], text=byte_order == "text", **order)
    data.write(str(tmp_path / "b.ply"))
    found = read_splats(tmp_path / "b.ply")
    for before, after in zip(cloud.tensors(), found.cloud.tensors(), strict=True):
        torch.testing.assert_close(after, before, atol=1e-6, rtol=1e-6)
    assert found.report.notes == ("properties left out: label",)


def test_splat_within_its_bytes(tmp_path, random_cloud):
    cloud = random_cloud(degree=1)
    report = write_splats(cloud, tmp_path / "a.splat")
    found = read_splats(tmp_path / "a.splat").cloud
    assert report.bytes == 32 * len(cloud) and found.degree == 0
    assert torch.equal(found.means, cloud.means)
    torch.testing.assert_close(found.log_scales, cloud.log_scales, atol=1e-6, rtol=1e-6)
    # Half a step of 1/255, and the ends of the range moved in by a quarter of one.
    assert largest(found.opacity_logits.sigmoid(), cloud.opacity_logits.sigmoid()) < 0.51 / 255
    shown = (0.5 + Y_0 * cloud.harmonics[:, 0]).clamp(0, 1)
    assert largest(0.5 + Y_0 * found.harmonics[:, 0], shown) < 0.51 / 255
    # Each of four parts is off by at most 1/256, or 1/128 where it is 1: an angle of twice that.
    assert float(angles(found.rotations, cloud.rotations).max()) < math.degrees(4 / 128)
    assert report.dropped == ("harmonics of degree 1",)
    assert 0.1 < report.loss.color < 1


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
@pytest.mark.parametrize(("version", "degrees_off"), [(3, 0.25), (2, 14.0)])
def test_spz_within_its_bytes(tmp_path, random_cloud, degree, version, degrees_off):
    cloud = random_cloud(degree=degree)
    options = WriteOptions(spz_version=version, harmonics_bits=8)
    report = write_splats(cloud, tmp_path / "a.spz", options=options)
    found = read_splats(tmp_path / "a.spz")
    back = found.cloud
    assert found.report.format == f"SPZ {version}" and back.degree == degree
    # 2^18 steps over the extent of about 14 units.
    assert largest(back.means, cloud.means) < 14 / 2**18
    assert largest(back.log_scales, cloud.log_scales) < 0.51 / 16
    assert largest(back.opacity_logits.sigmoid(), cloud.opacity_logits.sigmoid()) < 0.51 / 255
    assert largest(back.harmonics[:, 0] * 0.15, cloud.harmonics[:, 0] * 0.15) < 0.51 / 255
    if degree:
        assert largest(back.harmonics[:, 1:], cloud.harmonics[:, 1:]) < 0.51 / 128
    # Version 3: steps of 1/723 in three parts. Version 2: w from x y z in steps of 1/127, worst
    # where it is near 0: sqrt(2 * sqrt(3) / 255) is 0.12 of half an angle.
    assert float(angles(back.rotations, cloud.rotations).max()) < degrees_off
    assert report.loss.rotation < degrees_off / 2 and report.dropped == ()


def test_fewer_bits_of_harmonics_make_smaller_files(tmp_path, random_cloud):
    cloud = random_cloud(2000)
    sizes, losses = [], []
    for bits in (8, None, 2):
        options = WriteOptions(harmonics_bits=bits, overwrite=True)
        report = write_splats(cloud, tmp_path / "a.spz", options=options)
        sizes.append(report.bytes)
        losses.append(report.loss.color_rms)
    assert sizes[0] > sizes[1] > sizes[2] and losses[0] < losses[1] < losses[2]
    # Zero stays zero at any number of bits.
    plain = GaussianCloud(*cloud.tensors()[:4], torch.zeros_like(cloud.harmonics))
    write_splats(plain, tmp_path / "b.spz", options=WriteOptions(harmonics_bits=1))
    assert not read_splats(tmp_path / "b.spz").cloud.harmonics[:, 1:].any()


def test_spz_stores_the_axes_right_up_back(tmp_path, random_cloud, monkeypatch):
    """The numbers in the file, read as they are, look the same along turned directions."""
    from lumigraph.export.splat_files import spz

    cloud = random_cloud()
    write_splats(cloud, tmp_path / "a.spz", options=WriteOptions(harmonics_bits=8))
    turned_back = read_splats(tmp_path / "a.spz").cloud
    monkeypatch.setattr(spz, "_turned", lambda arrays, axes: arrays)
    stored = read_splats(tmp_path / "a.spz").cloud
    flip = torch.tensor([1.0, -1, -1])
    assert torch.equal(stored.means * flip, turned_back.means)
    directions = torch.nn.functional.normalize(torch.randn(40, 3), dim=-1)
    seen = [
        torch.einsum("dk,gkc->gdc", spherical_harmonics(way, 4), part.harmonics)
        for way, part in ((directions, turned_back), (directions * flip, stored))
    ]
    torch.testing.assert_close(seen[0], seen[1], atol=1e-5, rtol=0)


def test_a_few_gaussians_far_off_do_not_spoil_the_others(tmp_path, random_cloud):
    means = random_cloud(5000).means.clone()
    means[7] = torch.tensor([3e5, 0, 0])
    far = GaussianCloud(means, *random_cloud(5000).tensors()[1:])
    report = write_splats(far, tmp_path / "a.spz")
    assert report.count == 4999 and report.loss.position < 1e-4
    assert report.dropped == ("1 Gaussians too far off for 24 bits",)
    whole = write_splats(far, tmp_path / "a.ply")
    assert whole.count == 5000 and whole.dropped == ()


def test_map_coordinates_lose_what_24_bits_lose(tmp_path, random_cloud):
    cloud = random_cloud(degree=0)
    moved = GaussianCloud(cloud.means + 500_000, *cloud.tensors()[1:])
    report = write_splats(moved, tmp_path / "a.spz")
    assert report.count == 500 and 1e-3 < report.loss.position < 1e-2


def test_one_gaussian_and_clouds_of_one_place(tmp_path, random_cloud):
    for count in (1, 3):
        cloud = random_cloud(count)
        same = GaussianCloud(cloud.means[:1].repeat(count, 1), *cloud.tensors()[1:])
        for suffix in ("ply", "splat", "spz"):
            path = tmp_path / f"{count}.{suffix}"
            assert write_splats(same, path).count == count
            torch.testing.assert_close(read_splats(path).cloud.means, same.means)


def test_what_is_not_finite_is_left_out(tmp_path, random_cloud):
    tensors = [tensor.clone() for tensor in random_cloud(10).tensors()]
    tensors[0][1, 2] = math.nan
    tensors[2][2, 0] = 1000.0
    tensors[4][3, 4, 1] = math.inf
    tensors[3][4] = math.inf
    tensors[2][5, 1] = -math.inf
    tensors[1][6] = 0.0
    report = write_splats(GaussianCloud(*tensors), tmp_path / "a.ply")
    assert report.count == 7 and report.dropped == ("3 Gaussians that are not finite",)
    found = read_splats(tmp_path / "a.ply").cloud
    assert all(bool(torch.isfinite(tensor).all()) for tensor in found.tensors())
    assert found.opacity_logits[1] == 20 and found.log_scales[2, 1] == -30
    assert found.rotations[3].tolist() == [1, 0, 0, 0]
    rows = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data.copy()
    rows["x"][:2] = math.nan
    rows["rot_0"][4:], rows["rot_1"][4:], rows["rot_2"][4:], rows["rot_3"][4:] = 0, 0, 0, 0
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "b.ply"))
    tolerant = read_splats(tmp_path / "b.ply")
    assert (tolerant.report.stored, tolerant.report.culled, len(tolerant.cloud)) == (7, 2, 5)
    assert "2 left out as not finite" in tolerant.report.line()
    assert "3 rotations of length 0 taken as none" in tolerant.report.line()


def test_fewer_harmonics_on_request(tmp_path, random_cloud):
    report = write_splats(random_cloud(), tmp_path / "a.ply", options=WriteOptions(degree=1))
    assert report.degree == 1 and report.dropped == ("harmonics of degree 2 to 3",)
    assert read_splats(tmp_path / "a.ply").cloud.degree == 1 and report.loss.color > 0


def test_the_note_of_antialiasing(tmp_path, random_cloud):
    options = WriteOptions(antialiased=True)
    write_splats(random_cloud(), tmp_path / "a.spz", options=options)
    assert read_splats(tmp_path / "a.spz").report.antialiased
    report = write_splats(random_cloud(), tmp_path / "a.ply", options=options)
    assert report.dropped == ("the note that they are antialiased",)


def test_targets_that_are_refused(tmp_path, random_cloud):
    cloud = random_cloud(5)
    (tmp_path / "a.ply").write_text("precious")
    with pytest.raises(InputError, match=r"a\.ply: exists already; replace it with --overwrite"):
        write_splats(cloud, tmp_path / "a.ply")
    assert (tmp_path / "a.ply").read_text() == "precious"
    with pytest.raises(InputError, match=r"unknown suffix '\.obj'; the target must end in \.ply"):
        write_splats(cloud, tmp_path / "a.obj")
    (tmp_path / "folder.ply").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_splats(cloud, tmp_path / "folder.ply")
    with pytest.raises(DataError, match="not written: there are no Gaussians"):
        write_splats(GaussianCloud.empty(), tmp_path / "b.ply")
    bad = GaussianCloud(cloud.means * math.nan, *cloud.tensors()[1:])
    with pytest.raises(DataError, match="none of the Gaussians is finite"):
        write_splats(bad, tmp_path / "b.spz")
    for options, text in (
        ({"degree": 4}, "degree 4: expected 0 to 3"),
        ({"spz_version": 4}, "spz_version 4: expected 2 or 3"),
        ({"harmonics_bits": 9}, "harmonics_bits 9: expected 1 to 8"),
    ):
        with pytest.raises(ConfigError, match=text):
            WriteOptions(**options)


def test_a_failure_leaves_nothing_behind(tmp_path, random_cloud, monkeypatch):
    from lumigraph.export.splat_files import spz

    (tmp_path / "a.spz").write_text("earlier")

    def full_disk(*_args, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(spz, "save", full_disk)
    with pytest.raises(DataError, match=r"a\.spz: cannot be written \(No space left"):
        write_splats(random_cloud(5), tmp_path / "a.spz", options=WriteOptions(overwrite=True))
    assert [path.name for path in tmp_path.iterdir()] == ["a.spz"]
    assert (tmp_path / "a.spz").read_text() == "earlier"


def test_files_can_be_read_by_others_and_are_the_same_each_time(tmp_path, random_cloud):
    for suffix in ("ply", "splat", "spz"):
        paths = [tmp_path / f"{name}.{suffix}" for name in "ab"]
        for path in paths:
            write_splats(random_cloud(), path)
        assert paths[0].read_bytes() == paths[1].read_bytes()
        assert stat.S_IMODE(paths[0].stat().st_mode) == 0o644
