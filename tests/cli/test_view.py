"""`lumigraph view`: what it says, and how it refuses."""

import json
import socket
import sys

import pytest
import torch

from lumigraph import cli
from lumigraph.core import GaussianCloud
from lumigraph.export import write_splats

pytest.importorskip("viser")


@pytest.fixture
def splats(tmp_path):
    count = 40
    generator = torch.Generator().manual_seed(0)
    cloud = GaussianCloud(
        means=torch.rand(count, 3, generator=generator),
        rotations=torch.tensor([[1.0, 0.0, 0.0, 0.0]] * count),
        log_scales=torch.full((count, 3), -3.0),
        opacity_logits=torch.zeros(count),
        harmonics=torch.zeros(count, 1, 3),
    )
    write_splats(cloud, tmp_path / "cloud.ply")
    return tmp_path / "cloud.ply"


def test_serves_for_a_while_and_says_where(splats, capsys):
    assert cli.main(["view", str(splats), "--port", "0", "--seconds", "0.1", "--json"]) == 0
    output = capsys.readouterr()
    result = json.loads(output.out)
    assert result["kind"] == "PLY" and result["target"] == str(splats)
    assert f"cloud.ply: open http://localhost:{result['port']}/" in output.err
    assert "warning" not in output.err and "token" not in output.err


def test_an_open_host_is_announced_with_a_warning_and_a_token(splats, capsys):
    words = ["view", str(splats), "--port", "0", "--seconds", "0.1", "--host", "0.0.0.0"]
    assert cli.main(words) == 0
    output = capsys.readouterr().out
    assert "warning: 0.0.0.0 can be reached by other machines" in output
    assert "/?token=" in output


def test_a_taken_port_is_one_line(splats, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        assert cli.main(["view", str(splats), "--port", port]) == 2
    error = capsys.readouterr().err
    assert error == (
        f"lumigraph: error: port {port} is taken; choose another with --port, "
        "or --port 0 for any free one\n"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "no such run folder or file"), ("notes.txt", "cannot be viewed")],
)
def test_other_targets_are_one_line(tmp_path, capsys, name, message):
    (tmp_path / "notes.txt").write_text("hello")
    assert cli.main(["view", str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_missing_extra_is_named(splats, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "viser", None)
    assert cli.main(["view", str(splats)]) == 2
    assert "pip install 'lumigraph[viewer]'" in capsys.readouterr().err
