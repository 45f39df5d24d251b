"""Files that other programs wrote: counts, one model in two formats, all formats there and back."""

import pytest
import torch

from lumigraph.export import WriteOptions, read_splats, write_splats

FILES = {
    "inria_iteration_7000.ply": ("PLY", 9_080, 3),
    "scene_22764.splat": ("splat", 22_764, 0),
    "biker.compressed.ply": ("compressed PLY", 152_746, 0),
    "biker.spz": ("SPZ 4", 152_746, 0),
    "guitar.compressed.ply": ("compressed PLY", 90_854, 0),
}


@pytest.mark.parametrize("name", FILES)
def test_counts(splat_data, name):
    found = read_splats(splat_data(name))
    kind, count, degree = FILES[name]
    assert (found.report.format, found.report.stored, found.report.degree) == (kind, count, degree)
    assert found.report.culled == 0 and len(found.cloud) == count


def test_quaternions_of_the_original_code_are_not_normalised(splat_data):
    cloud = read_splats(splat_data("inria_iteration_7000.ply")).cloud
    lengths = cloud.rotations.norm(dim=1)
    assert float(lengths.min()) < 0.7 and float(lengths.max()) > 1.1
    assert float(cloud.means.abs().max()) > 1000 and float(cloud.log_scales.max()) > 5.5


def test_one_model_in_two_formats_is_in_one_frame(splat_data):
    """SPZ has other axes than PLY; both files keep the order of the Gaussians."""
    one = read_splats(splat_data("biker.spz")).cloud
    other = read_splats(splat_data("biker.compressed.ply")).cloud
    # SPZ: steps of 2^-12; PLY: chunks of up to about 0.2 in 1024 steps.
    assert float((one.means - other.means).abs().max()) < 1.1 * 0.5 * 2**-12 + 1e-4
    color = 0.2820948 * (one.harmonics - other.harmonics)
    assert float(color.abs().max()) < 0.004  # half a byte of a range of 1.88
    # Log scales in steps of 1/16; PLY was made from scales that SPZ cuts at e^-10.
    cut = other.log_scales.clamp_min(-10.0)
    assert float((one.log_scales - cut).abs().max()) < 0.51 / 16 + 1e-3
    opacities = one.opacity_logits.sigmoid() - other.opacity_logits.sigmoid()
    assert float(opacities.abs().max()) < 0.51 / 255
    first, second = (
        torch.nn.functional.normalize(c.rotations.double(), dim=-1) for c in (one, other)
    )
    sign = torch.where((first * second).sum(-1, keepdim=True) < 0, -1.0, 1.0)
    # 10 bits a part in both, rounded twice.
    assert float((first - sign * second).norm(dim=-1).max()) < 0.0015


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("suffix", ["ply", "splat", "spz"])
def test_there_and_back(splat_data, tmp_path, name, suffix):
    cloud = read_splats(splat_data(name)).cloud
    options = WriteOptions(harmonics_bits=8)
    report = write_splats(cloud, tmp_path / f"a.{suffix}", options=options)
    loss = report.loss
    assert report.count == len(cloud)
    # Half a step: 2^-18 of the extent, 1/32 of log scale, 8 bits of opacity and of color.
    assert loss.position < 4e-6 and loss.scale < 0.032 and loss.opacity < 0.51 / 255
    if not report.dropped or "harmonics" not in report.dropped[0]:
        assert loss.color < 0.02
    # .splat: 8 bits for each of four parts.
    assert loss.rotation < (0.6 if suffix == "splat" else 0.15)
    again = read_splats(tmp_path / f"a.{suffix}").cloud
    second = write_splats(again, tmp_path / f"b.{suffix}", options=options).loss
    # What came out of a format goes into it unchanged; rotations move by their rounding.
    assert second.position < 1e-6 and second.scale < 1e-5 and second.color < 1e-5
    assert second.rotation < 0.5
