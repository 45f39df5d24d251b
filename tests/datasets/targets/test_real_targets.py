"""Files of the shared data, where they are at hand."""

import os
from pathlib import Path

import pytest

from lumigraph.core.errors import DataError
from lumigraph.datasets.targets import load_picture, load_solid

DATA = Path(os.environ.get("LUMIGRAPH_TEST_DATA", "data"))


def file(name):
    if not (DATA / name).is_file():
        pytest.skip(f"needs {name} below LUMIGRAPH_TEST_DATA")
    return DATA / name


def test_the_photograph_in_linear_light():
    pytest.importorskip("OpenEXR")
    scene = load_picture(file("image_fitting/albert.exr"))
    assert scene.target.size == (1024, 1024) and scene.target.is_linear and not scene.notes


def test_the_large_photograph_stays_in_bytes():
    picture = load_picture(file("image_fitting/fern_4032x3024.jpg")).target
    assert picture.size == (4032, 3024) and not picture.is_linear


def test_the_closed_scan_and_the_open_one():
    pytest.importorskip("warp")
    scene = load_solid(file("meshes/armadillo.obj"))
    assert len(scene.target.mesh.triangles) == 99_976 and not scene.notes
    with pytest.raises(DataError, match="42 of its 7,473 edges are open"):
        load_solid(file("meshes/bunny.obj"))
