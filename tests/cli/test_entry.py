"""The front door: overview, help without torch, one-line errors, exit codes."""

import errno
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import lumigraph
from lumigraph.cli import main
from lumigraph.cli.commands import COMMANDS
from lumigraph.core.errors import InputError

ROOT = Path(__file__).parents[2]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)


def test_version_is_that_of_the_project(capsys):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert lumigraph.__version__ == project["version"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"lumigraph {project['version']}\n"


def test_import_is_light_and_rooms_load_on_use():
    code = """
import sys, time
start = time.perf_counter()
import lumigraph
assert time.perf_counter() - start < 0.3
assert not {"torch", "numpy", "tyro", "rich"} & set(sys.modules)
assert lumigraph.datasets.load and "lumigraph.datasets" in sys.modules
try:
    lumigraph.nothing
except AttributeError as error:
    assert "nothing" in str(error)
else:
    raise SystemExit("no error")
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr


def test_every_public_name_exists():
    for name in lumigraph.__all__:
        assert getattr(lumigraph, name) is not None
    for name in lumigraph.export.__all__:
        assert getattr(lumigraph.export, name) is not None
    assert set(lumigraph.__all__) <= set(dir(lumigraph))


@pytest.mark.parametrize("name", [None, *COMMANDS])
def test_help_needs_no_torch(name):
    words = ["--help"] if name is None else [name, "--help"]
    code = f"""
import sys
from lumigraph.cli import main
code = main({words!r})
heavy = {{"torch", "matplotlib", "imageio"}} & set(sys.modules)
assert not heavy, heavy
sys.exit(code)
"""
    done = run_python(code)
    assert done.returncode == 0, done.stderr
    assert "usage: lumigraph" in done.stdout and done.stderr == ""
    if name is not None:
        assert "--json" in done.stdout


def test_overview_lists_every_command(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name} " in text for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["trian"], ["unknown command 'trian'", "did you mean train?"]),
        (["--verbose"], ["unknown option '--verbose'", "lumigraph --help"]),
        (["train", "x", "--step", "3"], ["--step ", "did you mean --steps?"]),
        (["train", "x", "--wrong=3"], ["unknown option --wrong;", "lumigraph train --help"]),
        (["train", "x", "y"], ["y", "lumigraph train --help"]),
        (["train", "x", "--preset", "huge"], ["--preset", "'huge'", "tiny, small, full"]),
        (["train", "x", "--steps", "many"], ["--steps", "'many'", "INT"]),
        (["train", "x", "--steps"], ["option --steps: its value is missing"]),
        (["train"], ["DATA is missing"]),
        (["evaluate"], ["RUN is missing"]),
        (["convert", "photos"], ["--out is missing"]),
        (["bench", "speed"], ["'speed'", "kernels, train"]),
    ],
)
def test_mistakes_are_one_line_and_code_2(capsys, words, parts):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("lumigraph: error: ") and captured.err.count("\n") == 1
    for part in parts:
        assert part in captured.err


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (InputError("scene.json: no key 'frames';\n add it"), 2, "no key 'frames'; add it\n"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/x/y"), 2, "/x/y: No space left"),
        (OSError(errno.EIO, "broken"), 1, "LUMIGRAPH_DEBUG=1"),
        (RuntimeError("shapes\ndiffer"), 1, "RuntimeError: shapes differ; set LUMIGRAPH_DEBUG=1"),
    ],
)
def test_codes_of_errors(fake, capsys, error, code, text):
    fake.raises = error
    assert main(["train", "data"]) == code
    captured = capsys.readouterr().err
    assert text in captured and "Traceback" not in captured
    assert captured.splitlines()[-1].startswith("lumigraph: error: ")


def test_traceback_on_request(fake, capsys, monkeypatch):
    monkeypatch.setenv("LUMIGRAPH_DEBUG", "1")
    fake.raises = RuntimeError("inside")
    assert main(["train", "data"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_error_is_the_json_object_too(fake, capsys, json_of):
    fake.raises = InputError("data: no such folder")
    assert main(["train", "data", "--json"]) == 2
    captured = capsys.readouterr()
    assert json_of(captured.out) == {"error": "data: no such folder"}
    assert captured.err.splitlines()[-1] == "lumigraph: error: data: no such folder"


def test_ctrl_c_before_anything_was_saved(fake, capsys, json_of):
    fake.raises = KeyboardInterrupt()
    assert main(["train", "data", "--json"]) == 130
    captured = capsys.readouterr()
    assert json_of(captured.out) == {"interrupted": True}
    assert "stopped before anything was saved" in captured.err


def test_module_runs_as_a_command():
    done = subprocess.run(
        [sys.executable, "-m", "lumigraph", "frobnicate"],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == "lumigraph: error: unknown command 'frobnicate'; see lumigraph --help\n"
