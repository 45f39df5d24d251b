"""What each command passes on, prints and leaves behind, with a trainer that takes no time."""

import dataclasses
import json
import sys
import types
import typing

import imageio.v3 as imageio
import numpy as np
import pytest

from lumigraph.cli import main
from lumigraph.cli import train as train_command
from lumigraph.cli.progress import clock, short_number
from lumigraph.training.config import CONFIGS, PRESETS

TRAIN_KEYS = ["run", "method", "preset", "steps", "seconds", "train_psnr", "backend", "device"]
SCORE_KEYS = ["run", "protocol", "views", "psnr", "psnr_masked", "ssim", "lpips", "seconds"]


def test_choices_are_those_of_the_presets():
    hints = typing.get_type_hints(train_command.Arguments)
    methods, sizes = typing.get_args(hints["method"]), typing.get_args(hints["preset"])
    assert {(m, s) for m in methods for s in sizes} == set(PRESETS)
    settings = {field.name for kind in CONFIGS.values() for field in dataclasses.fields(kind)}
    own = {"data", "out", "set", "resume", "overwrite", "json"}
    own |= {"viewer", "viewer_port", "viewer_close"}
    assert set(hints) - own <= settings


def test_train_json(fake, capsys, json_of, tmp_path):
    words = "train photos --out runs/x --steps 2 --seed 7 --image-scale 0.5 --exposure --json"
    assert main(words.split()) == 0
    captured = capsys.readouterr()
    summary = json_of(captured.out)
    assert list(summary) == TRAIN_KEYS and summary["run"] == "runs/x"
    assert "a stray line" in captured.err
    assert (tmp_path / "runs/x/report.html").is_file()
    _, data, config, out = fake.calls[0]
    assert (data, str(out)) == ("photos", "runs/x")
    assert (config.steps, config.seed, config.image_scale, config.exposure) == (2, 7, 0.5, True)


def test_train_for_people(fake, capsys):
    assert main(["train", "photos/garden.v2", "--steps", "2"]) == 0
    captured = capsys.readouterr()
    assert "step 2/2  loss 0.0100  PSNR 20.00 dB  185k rays/s  in 0:02" in captured.out
    assert "odd [images] were skipped" in captured.out
    assert "lumigraph evaluate runs/garden.v2" in captured.out
    assert captured.err == ""


@pytest.mark.parametrize(
    ("data", "out"),
    [("builtin:object", "runs/object"), ("a/b/", "runs/b"), ("a/transforms.json", "runs/a")],
)
def test_default_run_folder(fake, data, out):
    assert main(["train", data]) == 0
    assert str(fake.calls[0][3]) == out


def test_train_gaussians(fake, capsys, json_of):
    words = "train photos --method gaussians --strategy default --max-gaussians 5000 --steps 2"
    assert main(words.split()) == 0
    captured = capsys.readouterr()
    assert "185k rays/s  48k Gaussians  in 0:02" in captured.out and "48,000" in captured.out
    config = fake.calls[0][2]
    assert (config.method, config.strategy, config.max_gaussians) == ("gaussians", "default", 5000)
    assert main([*words.split(), "--overwrite", "--json"]) == 0
    assert list(json_of(capsys.readouterr().out)) == [*TRAIN_KEYS, "gaussians"]


def test_options_of_a_method_are_left_to_the_preset(fake):
    assert main(["train", "x", "--method", "gaussians", "--preset", "small"]) == 0
    config = fake.calls[0][2]
    assert (config.strategy, config.max_gaussians) == ("mcmc", 300_000)
    assert main(["train", "y"]) == 0
    assert (fake.calls[1][2].encoder, fake.calls[1][2].sampler) == ("lumigraph", "lumigraph")


def test_other_settings(fake):
    words = "train x --set learning_rate=5e-3 --set loss=huber --set levels=12 --set steps=null"
    assert main(words.split()) == 0
    config = fake.calls[0][2]
    assert (config.learning_rate, config.loss, config.levels) == (5e-3, "huber", 12)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--set learning_rate", "NAME=VALUE"),
        ("--set speed=3", "'speed'"),
        ("--set levels=many", "levels"),
        ("--set levels=[1", "levels"),
        ("--steps 0", "steps"),
        ("--seconds -3", "seconds"),
        ("--image-scale 0", "image_scale"),
        ("--seconds nan", "seconds"),
        ("--strategy mcmc", "--strategy is an option of method gaussians, not of nerf"),
        ("--method gaussians --encoder tinycudann", "--encoder is an option of method nerf"),
        ("--method gaussians --max-gaussians 0", "max_gaussians"),
        ("--method gaussians --set levels=3", "'levels' is a setting of method nerf and neus"),
        ("--set noise_rate=1", "'noise_rate' is a setting of method gaussians"),
        ("--set method=gaussians", "--method gaussians"),
    ],
)
def test_bad_settings(fake, capsys, words, text):
    assert main(["train", "x", *words.split()]) == 2
    captured = capsys.readouterr()
    assert text in captured.err and captured.err.count("\n") == 1
    assert fake.calls == []


def test_existing_run_is_kept_unless_told(fake, capsys, tmp_path):
    assert main(["train", "x"]) == 0
    (tmp_path / "runs/x/mine.txt").write_text("notes")
    capsys.readouterr()
    assert main(["train", "x"]) == 2
    message = capsys.readouterr().err
    assert "--resume" in message and "--overwrite" in message and "runs/x" in message
    assert (tmp_path / "runs/x/mine.txt").is_file()
    assert main(["train", "x", "--overwrite"]) == 0
    assert not (tmp_path / "runs/x/mine.txt").exists()
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x"]


def test_earlier_run_comes_back_when_the_new_one_fails(fake, tmp_path):
    assert main(["train", "x"]) == 0
    (tmp_path / "runs/x/mine.txt").write_text("notes")
    fake.raises = ValueError("bad")
    assert main(["train", "x", "--overwrite"]) == 1
    assert (tmp_path / "runs/x/mine.txt").read_text() == "notes"
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["x"]


def test_other_folders_are_never_replaced(fake, capsys, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.txt").write_text("work")
    assert main(["train", "x", "--out", "thesis", "--overwrite"]) == 2
    assert "not a run folder" in capsys.readouterr().err
    assert (tmp_path / "thesis/chapter.txt").is_file()


def test_ctrl_c_saves_and_says_how_to_go_on(fake, capsys, json_of):
    fake.raises_after_saving = KeyboardInterrupt()
    assert main(["train", "x", "--json"]) == 130
    captured = capsys.readouterr()
    summary = json_of(captured.out)
    assert list(summary) == [*TRAIN_KEYS, "interrupted"] and summary["steps"] == 2
    assert "lumigraph train --resume --out runs/x" in captured.err


def test_resume(fake, capsys):
    assert main(["train", "x"]) == 0
    assert main(["train", "--resume", "--out", "runs/x", "--steps", "50"]) == 0
    assert fake.calls[1][0] == "resume" and fake.calls[1][2:] == (50, None)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--resume --out r --max-gaussians 9", "--max-gaussians"),
        ("--resume", "--out"),
        ("--resume --out r --overwrite", "exclude"),
        ("--resume --out r --seed 3", "--seed"),
        ("data --resume --out r", "DATA"),
        ("--resume --out r --set levels=3", "--set"),
    ],
)
def test_resume_keeps_the_run_as_it_is(fake, capsys, words, text):
    assert main(["train", *words.split()]) == 2
    assert text in capsys.readouterr().err and fake.calls == []


def test_evaluate(fake, capsys, json_of, tmp_path):
    main(["train", "x"])
    capsys.readouterr()
    assert main(["evaluate", "runs/x", "--json"]) == 0
    scores = json_of(capsys.readouterr().out)
    assert list(scores) == SCORE_KEYS and scores["lpips"] is None
    assert "31.00" in (tmp_path / "runs/x/report.html").read_text()


def test_render(fake, capsys, json_of, tmp_path):
    main(["train", "x"])
    capsys.readouterr()
    words = "render runs/x --path orbit --out v.mp4 --width 32 --frames 3 --channels rgb,depth"
    assert main([*words.split(), "--json"]) == 0
    result = json_of(capsys.readouterr().out)
    assert result["out"] == ["v.mp4"] and result["frames"] == 3
    assert imageio.imread(tmp_path / "v.mp4", plugin="FFMPEG").shape == (3, 24, 64, 3)
    assert main(words.split()) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*words.split(), "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("--channels rgb,heat", "'heat'"),
        ("--path circle", "orbit, turntable, spiral"),
        ("--path missing.json", "missing.json"),
        ("--frames 0", "frames"),
        ("--width 0", "width"),
        ("--fps 0", "fps"),
        ("--out v.avi", "use .mp4, .webm, .gif"),
        ("--out v.gif --fps 60", "50 frames a second of .gif"),
        ("--elevation 30", "--elevation is for --path turntable"),
        ("--path turntable --elevation 90", "between -90 and 90"),
        ("--compare test --frames 3", "--frames is for camera paths"),
        ("--compare evening", "available: train, test"),
        ("--background white", "is for files of Gaussians"),
        ("--separate --layout mosaic", "contradict"),
    ],
)
def test_render_refuses(fake, capsys, words, text):
    main(["train", "x"])
    capsys.readouterr()
    assert main(["render", "runs/x", *words.split()]) == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "message"),
    [
        ([0], "own.json: a camera path needs at least two keyframes; got 1: add another view"),
        ([0, 2, 1], "own.json: keyframe 2 at 1 s does not come after keyframe 1 at 2 s"),
        ([1, 2], "own.json: keyframe 0 is at 1 s; seconds must start at 0"),
    ],
)
def test_render_refuses_a_path_that_leads_nowhere(fake, capsys, tmp_path, seconds, message):
    main(["train", "x"])
    capsys.readouterr()
    pose = np.eye(4).tolist()
    keyframe = {"camera_to_world": pose, "field_of_view": 40}
    content = {"format": "lumigraph-camera-path", "version": 1, "fps": 30, "duration": 2}
    keyframes = [{**keyframe, "seconds": moment} for moment in seconds]
    (tmp_path / "own.json").write_text(
        json.dumps({**content, "loop": False, "keyframes": keyframes})
    )
    assert main(["render", "runs/x", "--path", "own.json", "--out", "own.mp4"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.glob("own*.mp4*"))


def test_render_beside_photographs(fake, capsys, json_of, tmp_path):
    main(["train", "x"])
    capsys.readouterr()
    assert main(["render", "runs/x", "--compare", "test", "--layout", "mosaic", "--json"]) == 0
    result = json_of(capsys.readouterr().out)
    assert result["out"] == ["runs/x/renders/compare-test.mp4"] and result["compare"] == "test"
    shown = imageio.imread(result["out"][0], plugin="FFMPEG")
    assert shown.shape == (2, 12, 32, 3) and shown[:, :, :14].max() < 8 < shown[:, :, 18:].min()


def test_demo(fake, capsys, json_of, tmp_path):
    assert main(["demo", "--size", "32", "--frames", "4", "--seconds", "1", "--json"]) == 0
    captured = capsys.readouterr()
    result = json_of(captured.out)
    expected = {*TRAIN_KEYS, *SCORE_KEYS, "evaluate_seconds", "video", "report"}
    assert set(result) == expected
    assert (result["seconds"], result["evaluate_seconds"]) == (2.0, 0.5)
    assert imageio.imread(result["video"], plugin="FFMPEG").shape == (4, 32, 32, 3)
    assert "data:video/mp4" in (tmp_path / "runs/demo/report.html").read_text()
    assert "runs/demo/orbit.mp4" in captured.err
    assert fake.calls[0][1] == "builtin:object" and fake.calls[0][2].seconds == 1.0
    assert main(["demo"]) == 2
    assert "--overwrite" in capsys.readouterr().err


def test_demo_of_gaussians(fake, capsys):
    words = "demo --method gaussians --size 32 --frames 2 --seconds 1 --out runs/g"
    assert main(words.split()) == 0
    assert fake.calls[0][2].method == "gaussians" and "48,000" in capsys.readouterr().out


@pytest.mark.parametrize("words", ["--size 4", "--frames 0", "--seconds 0"])
def test_demo_refuses(fake, capsys, words):
    assert main(["demo", *words.split()]) == 2
    assert fake.calls == [] and capsys.readouterr().err.count("\n") == 1


def test_inspect(capsys, json_of, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "scene/images").mkdir(parents=True)
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 4], [0, 0, 0, 1]]
    frames = []
    for index in range(9):
        imageio.imwrite(tmp_path / f"scene/images/{index}.png", np.full((6, 8, 3), 90, np.uint8))
        frames.append({"file_path": f"images/{index}.png", "transform_matrix": pose})
    content = {"fl_x": 8.0, "fl_y": 8.0, "cx": 4, "cy": 3, "w": 8, "h": 6, "frames": frames}
    (tmp_path / "scene/transforms.json").write_text(json.dumps(content))
    assert main(["inspect", "scene", "--json"]) == 0
    captured = capsys.readouterr()
    result = json_of(captured.out)
    assert result["images"] == 9 and result["sizes"] == {"8x6": 9}
    assert result["splits"]["train"] + result["splits"]["test"] == 9
    assert imageio.imread(result["picture"]).shape[2] in (3, 4)
    assert "camera models" in captured.err
    assert main(["inspect", "nowhere"]) == 2
    assert main(["inspect", "scene", "--out", "x.txt"]) == 2


def test_convert_passes_on_and_reports(capsys, json_of, monkeypatch):
    calls = []

    def convert(source, out, *, options, on_message, on_progress):
        calls.append((str(source), str(out), options))
        on_message("matching [features]")
        on_progress("features", 50, 50)
        counts = {"images": 50, "registered": 48, "points": 1000, "seconds": 3.0}
        return {"out": str(out), **counts}

    monkeypatch.setattr("lumigraph.datasets.sfm.convert", convert)
    words = "convert photos --out data/garden --max-side 800 --mixed-cameras --json"
    assert main(words.split()) == 0
    captured = capsys.readouterr()
    source, out, options = calls[0]
    assert (source, out) == ("photos", "data/garden")
    assert (options.max_side, options.shared_camera, options.frames) == (800, False, 100)
    assert json_of(captured.out)["registered"] == 48
    for text in ("matching [features]", "features 50/50", "48 of 50"):
        assert text in captured.err


def test_convert_refuses(capsys, tmp_path):
    assert main(["convert", str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 2
    assert main(["convert", str(tmp_path), "--out", str(tmp_path / "o"), "--frames", "1"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize("subject", ["kernels", "train"])
def test_bench_passes_on(capsys, json_of, monkeypatch, subject):
    def measure(device, *, quick, out, on_message):
        on_message("grid [forward]")
        return {"device": device, "quick": quick, "out": out}

    module = types.ModuleType(f"lumigraph.bench.{subject}")
    monkeypatch.setattr(module, f"bench_{subject}", measure, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    assert main(["bench", subject, "--device", "cpu", "--quick", "--json"]) == 0
    captured = capsys.readouterr()
    assert json_of(captured.out) == {"device": "cpu", "quick": True, "out": None}
    assert "grid [forward]" in captured.err


def test_doctor(capsys, json_of, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Row:
        name: str
        status: str
        detail: str

    doctor = types.ModuleType("lumigraph.cuda.doctor")
    rows = [Row("cpu", "ok", "2 cores"), Row("gpu", "slower", "none found [driver]")]
    monkeypatch.setattr(doctor, "report", lambda: rows, raising=False)
    monkeypatch.setitem(sys.modules, doctor.__name__, doctor)
    assert main(["doctor"]) == 0
    assert "gpu  slower   none found [driver]" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    found = json_of(capsys.readouterr().out)["rows"]
    assert found[0] == {"name": "cpu", "status": "ok", "detail": "2 cores"}


@pytest.mark.parametrize(
    ("value", "text"), [(75, "1:15"), (4000, "1:06:40"), (float("inf"), "-:--"), (59.7, "1:00")]
)
def test_clock(value, text):
    assert clock(value) == text


@pytest.mark.parametrize(("value", "text"), [(950, "950"), (185_200, "185k"), (3.2e6, "3.2M")])
def test_short_numbers(value, text):
    assert short_number(value) == text
