"""Reading: files put together by hand, number by number, and files that are not what they seem."""

import gzip
import math
import struct

import numpy as np
import pytest
import torch
from plyfile import PlyData, PlyElement

from lumigraph.core import DataError
from lumigraph.core.transforms import rotation_from_quaternion
from lumigraph.export import read_splats, write_splats

Y_0 = 0.5 / math.sqrt(math.pi)


@pytest.mark.parametrize("version", [1, 2, 3, 4])
@pytest.mark.parametrize("degree", [0, 1, 3, 4])
def test_spz_made_by_hand(tmp_path, spz_maker, version, degree):
    path = tmp_path / "a.spz"
    made = spz_maker.version_4(5, degree) if version == 4 else None
    path.write_bytes(made or spz_maker.gzipped(version, 5, degree))
    found = read_splats(path)
    cloud = found.cloud
    assert found.report.format == f"SPZ {version}" and len(cloud) == 5
    assert cloud.degree == min(degree, 3)
    assert found.report.notes == (("harmonics of degree 4 left out",) if degree == 4 else ())
    # The capture has y down and z forward: y and z of the file change their signs.
    assert cloud.means.tolist() == [[float(i), 2.0, -0.5] for i in range(5)]
    scales = [[100 / 16 - 10, 120 / 16 - 10, 140 / 16 - 10]] * 5
    torch.testing.assert_close(cloud.log_scales, torch.tensor(scales))
    torch.testing.assert_close(cloud.opacity_logits.sigmoid(), torch.full((5,), 200 / 255))
    base = (torch.tensor([10.0, 128, 250]) / 255 - 0.5) / 0.15
    torch.testing.assert_close(cloud.harmonics[:, 0], base.expand(5, 3))
    # A half turn about y is one about y in the turned axes as well, within bytes of 1/127.5.
    matrix = rotation_from_quaternion(cloud.rotations)
    expected = torch.diag(torch.tensor([-1.0, 1, -1])).expand(5, 3, 3)
    torch.testing.assert_close(matrix, expected, atol=0.02 if version < 3 else 1e-6, rtol=0)
    if degree:
        signs = [-1, -1, 1, -1, 1, 1, -1, 1, -1, 1, -1, -1, 1, -1, 1]  # of y, z, x, xy, yz, ...
        sizes = (torch.arange(5) % 7 - 3.0) / 128
        rest = sizes[:, None, None] * torch.tensor(signs)[None, : (cloud.degree + 1) ** 2 - 1, None]
        torch.testing.assert_close(cloud.harmonics[:, 1:], rest.expand(-1, -1, 3))


def test_spz_extensions(tmp_path, spz_maker):
    path = tmp_path / "a.spz"

    def axes(code: int) -> bytes:
        return struct.pack("<III", 0xADBE0003, 4, code)

    orbit = struct.pack("<II3f", 0xADBE0002, 12, 0, 1, 2)
    path.write_bytes(spz_maker.version_4(3, 1, extensions=orbit))
    found = read_splats(path)
    assert found.report.notes == ("extension 0xADBE0002 left out",)
    assert found.cloud.means[1].tolist() == [1, 2, -0.5]
    for code, expected in ((6, [1, -2, 0.5]), (4, [1, 2, -0.5]), (7, [-1, 2, 0.5])):
        path.write_bytes(spz_maker.version_4(3, 1, extensions=orbit + axes(code)))
        assert read_splats(path).cloud.means[1].tolist() == expected
    path.write_bytes(spz_maker.version_4(3, 1, extensions=axes(8)))
    with pytest.raises(DataError, match="axes of code 8, which are left-handed or have z up"):
        read_splats(path)


@pytest.mark.parametrize(("rest", "chunk_colors"), [(0, True), (9, False), (24, True), (45, True)])
def test_compressed_ply_made_by_hand(tmp_path, compressed_ply_bytes, rest, chunk_colors):
    path = tmp_path / "a.ply"
    path.write_bytes(compressed_ply_bytes(300, rest=rest, chunk_colors=chunk_colors))
    found = read_splats(path)
    cloud = found.cloud
    assert found.report.format == "compressed PLY"
    assert cloud.harmonics.shape == (300, 1 + rest // 3, 3)
    rows = {element.name: element.data for element in PlyData.read(str(path)).elements}
    for index in (0, 1, 255, 256, 299):
        position, rotation, scale, color = (int(word) for word in rows["vertex"][index])
        parts = (position >> 21) / 2047, (position >> 11 & 1023) / 1023, (position & 2047) / 2047
        np.testing.assert_allclose(cloud.means[index], np.array(parts) + index // 256, atol=1e-6)
        parts = (scale >> 21) / 2047, (scale >> 11 & 1023) / 1023, (scale & 2047) / 2047
        np.testing.assert_allclose(cloud.log_scales[index], 4 * np.array(parts) - 6, atol=1e-6)
        rgb = np.array([color >> 24, color >> 16 & 255, color >> 8 & 255]) / 255
        rgb = 2 * rgb - 0.5 if chunk_colors else rgb
        np.testing.assert_allclose(0.5 + Y_0 * cloud.harmonics[index, 0], rgb, atol=1e-6)
        small = [((rotation >> shift & 1023) / 1023 - 0.5) * math.sqrt(2) for shift in (20, 10, 0)]
        small.insert(rotation >> 30, math.sqrt(max(0.0, 1 - sum(x * x for x in small))))
        np.testing.assert_allclose(cloud.rotations[index], small, atol=1e-6)
        for channel in range(3 if rest else 0):
            byte = rows["sh"][index][channel * (rest // 3) + 1]
            value = -4 if byte == 0 else 4 if byte == 255 else (byte + 0.5) / 32 - 4
            assert float(cloud.harmonics[index, 2, channel]) == pytest.approx(value)


def test_splat_made_by_hand(tmp_path):
    path = tmp_path / "A.SPLAT"
    row = struct.pack("<6f8B", 1, 2, 3, 0.1, 0.2, 0.0, 255, 0, 51, 255, 128, 0, 128, 128)
    bad = struct.pack("<6f8B", math.nan, 2, 3, 0.1, 0.2, 0.3, *[128] * 8)
    path.write_bytes(row * 3 + bad)
    found = read_splats(path)
    assert (found.report.stored, found.report.culled) == (4, 1)
    cloud = found.cloud
    assert cloud.means[0].tolist() == [1, 2, 3] and cloud.rotations[0].tolist() == [0, -1, 0, 0]
    np.testing.assert_allclose(cloud.log_scales[0], [math.log(0.1), math.log(0.2), -30], atol=1e-6)
    np.testing.assert_allclose(0.5 + Y_0 * cloud.harmonics[0, 0], [1, 0, 0.2], atol=1e-6)
    assert 0.998 < float(cloud.opacity_logits[0].sigmoid()) < 1
    assert "3 flat Gaussians with a scale of 0" in found.report.line()


def ply_of(path, names, count=4, dtype="f4"):
    rows = np.ones(count, dtype=[(name, dtype) for name in names])
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(path))


NEEDED = ["x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"]
NEEDED += ["scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"]


def test_harmonics_of_degree_4_are_left_out(tmp_path):
    ply_of(tmp_path / "a.ply", [*NEEDED, *(f"f_rest_{i}" for i in range(72))])
    found = read_splats(tmp_path / "a.ply")
    assert found.cloud.degree == 3 and found.report.notes == ("harmonics of degree 4 left out",)


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["x", "y", "z", "red"], "a point cloud or mesh, not a file of Gaussians: its vertices la"),
        ([n for n in NEEDED if n != "opacity"], "unknown set of properties: its vertices lack opa"),
        ([n for n in NEEDED if n != "scale_2"], r"flat \(2D\) Gaussians, which are not supported"),
        ([*NEEDED, "f_rest_0", "f_rest_1"], r"has 2 properties f_rest_\*"),
        ([*NEEDED, *(f"f_rest_{i}" for i in range(1, 10))], r"has 9 properties f_rest_\*"),
    ],
)
def test_properties_that_make_no_gaussians(tmp_path, names, text):
    ply_of(tmp_path / "a.ply", names)
    with pytest.raises(DataError, match=text) as caught:
        read_splats(tmp_path / "a.ply")
    assert str(caught.value).startswith(str(tmp_path / "a.ply"))


def bad_files(random_cloud, maker, folder):
    """Name, content, part of the message."""
    write_splats(random_cloud(10, 0), folder / "good.ply")
    ply = (folder / "good.ply").read_bytes()
    spz = maker.gzipped(3, 10, 1)
    four = maker.version_4(10, 1)
    plain = gzip.decompress(spz)
    huge = b"element vertex 4000000000"
    return [
        ("a.ply", b"", "is empty"),
        ("a.spz", b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "is no PLY, SPZ or .splat file"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", "its header is cut short"),
        ("a.ply", ply.replace(b"element vertex 10", b"element vertex -1"), "bad element 'vertex'"),
        ("a.ply", ply.replace(b"element vertex 10", huge), "cut short: its header promises"),
        ("a.ply", ply.replace(b"element vertex 10", b"element vertex ten"), "broken PLY header"),
        ("a.ply", ply.replace(b"element vertex 10", b"element vertex 0"), "holds no Gaussians"),
        ("a.ply", ply.replace(b"little_endian", b"wrong_endian"), "unknown format"),
        ("a.ply", ply.replace(b"float opacity", b"uchar opacity"), "property opacity is uchar"),
        ("a.ply", ply.replace(b"element vertex", b"element points"), "has no element 'vertex'"),
        ("a.ply", ply[:-1], "cut short"),
        ("a.spz", spz[:-9], "copy or download it again"),
        ("a.spz", gzip.compress(b"something else entirely"), "a gzip file, but not SPZ"),
        ("a.spz", gzip.compress(plain[:4] + b"\x05" + plain[5:]), "SPZ version 5 in gzip"),
        ("a.spz", gzip.compress(plain[:8] + b"\xff\xff\0\0" + plain[12:]), "cut short: fewer byte"),
        ("a.spz", gzip.compress(plain[:8] + b"\xff\xff\xff\xff" + plain[12:]), "more than max_gau"),
        ("a.spz", gzip.compress(plain[:8] + b"\0\0\0\0" + plain[12:]), "holds no Gaussians"),
        ("a.spz", gzip.compress(plain[:12] + b"\x09" + plain[13:]), "damaged SPZ header: degree 9"),
        ("a.spz", spz[:-8] + b"\0\0\0\0" + spz[-4:], "damaged: cannot be unpacked"),
        ("a.spz", four[:20], "cut short within the header"),
        ("a.spz", four[:4] + b"\x07" + four[5:], "SPZ version 7 is unknown; versions 1 to 4"),
        ("a.spz", four[:15] + b"\x02" + four[16:], "damaged table of streams"),
        ("a.spz", four[:-1], "stream 5 is cut short"),
        ("a.spz", four[:8] + b"\x0b" + four[9:], "of another size than its 11 Gaussians need"),
        ("a.splat", b"\0" * 33, "33 bytes are no multiple of 32"),
        ("a.splat", b"\xff" * 64, "most of its rows make no sense"),
        ("a.splat", b"", "holds no Gaussians"),
    ]


def test_files_that_cannot_be_read_say_why(tmp_path, random_cloud, spz_maker):
    for name, content, text in bad_files(random_cloud, spz_maker, tmp_path):
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(DataError) as caught:
            read_splats(path)
        message = str(caught.value)
        assert text in message and message.startswith(f"{path}: ") and "\n" not in message, message


def test_missing_files_folders_and_the_budget(tmp_path, random_cloud):
    with pytest.raises(DataError, match=r"none\.ply: no such file; check the path"):
        read_splats(tmp_path / "none.ply")
    with pytest.raises(DataError, match="cannot be read"):
        read_splats(tmp_path)
    for suffix in ("ply", "splat", "spz"):
        path = tmp_path / f"a.{suffix}"
        write_splats(random_cloud(50), path)
        with pytest.raises(DataError, match="50 Gaussians, more than max_gaussians 49; allow"):
            read_splats(path, max_gaussians=49)
        assert len(read_splats(path, max_gaussians=50).cloud) == 50


def test_a_file_without_one_finite_gaussian(tmp_path):
    ply_of(tmp_path / "a.ply", NEEDED)
    rows = PlyData.read(str(tmp_path / "a.ply"))["vertex"].data.copy()
    rows["z"] = math.nan
    PlyData([PlyElement.describe(rows, "vertex")]).write(str(tmp_path / "a.ply"))
    with pytest.raises(DataError, match="none of its 4 Gaussians is finite"):
        read_splats(tmp_path / "a.ply")


def test_content_counts_not_the_name(tmp_path, random_cloud):
    write_splats(random_cloud(5), tmp_path / "a.spz")
    (tmp_path / "a.spz").rename(tmp_path / "b.ply")
    assert read_splats(tmp_path / "b.ply").report.format == "SPZ 3"
