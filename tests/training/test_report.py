"""The report: whole, self-contained, tolerant of what a run does not have yet."""

import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lumigraph.core.errors import ConfigError, DataError
from lumigraph.training.report import ERROR_RANGE, write_report

VOID = {"meta", "link", "img", "br", "input", "use", "path", "hr"}


def make_run(folder: Path, *, views: int = 8, evaluated: bool = True) -> Path:
    """A run folder as the trainer leaves it, with made-up numbers."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("method: nerf\npreset: tiny\nsteps: null\nseed: 3\n")
    scene = {"name": "gar<den>", "source": "/home/someone/captures/garden"}
    scene |= {"splits": {"train": [0, 1, 2], "test": [3]}, "aabb_scale": 4}
    (folder / "scene.json").write_text(json.dumps(scene))
    rows = [
        {"step": s, "elapsed": s / 50, "loss": 0.2 / (s + 1), "psnr": 10 + 3 * math.log(s + 1)}
        for s in range(0, 1000, 20)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train = {"run": str(folder), "method": "nerf", "preset": "tiny", "steps": 1000}
    train |= {"seconds": 20.5, "train_psnr": 31.4, "backend": "cpu", "device": "cpu"}
    (folder / "train.json").write_text(json.dumps(train))
    (folder / "timings.json").write_text(json.dumps({"training": 20.5, "load": 0.5}))
    if evaluated:
        add_evaluation(folder, views)
    return folder


def add_evaluation(folder: Path, views: int) -> None:
    random = np.random.default_rng(0)
    pictures = folder / "renders" / "test"
    pictures.mkdir(parents=True)
    per_view = []
    for index in range(views):
        truth = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        for kind in ("truth", "prediction", "depth"):
            Image.fromarray(truth).save(pictures / f"{index:03}_{kind}.png")
        per_view.append({"image": f"r_{index}", "psnr": 30.0 + index, "ssim": 0.9, "lpips": None})
    scores = {"run": str(folder), "protocol": "every-8th", "views": views, "psnr": 33.5}
    scores |= {"ssim": 0.95, "lpips": None, "seconds": 3.0, "per_view": per_view}
    (folder / "evaluate.json").write_text(json.dumps(scores))


class Balanced(HTMLParser):
    """Collects open elements and every address that the page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_startendtag(self, tag, attrs):
        self.addresses += [value for name, value in attrs if name in ("src", "href") and value]

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag


def parsed(page: str) -> Balanced:
    parser = Balanced()
    parser.feed(page)
    parser.close()
    return parser


def test_whole_run_gives_a_self_contained_page(tmp_path):
    page = write_report(make_run(tmp_path / "garden")).read_text()
    found = parsed(page)
    assert found.open == []
    assert all(address.startswith(("data:", "#")) for address in found.addresses)
    assert not re.search(r"(@import|url\((?!#))", page)
    for text in ("33.50", "0.9500", "31.40", "every-8th", "preset", "PyTorch", "20.50 s"):
        assert text in page
    assert "train images: 3" in page and "someone" not in page
    assert page.count("<svg") == 3
    assert page.count('alt="difference of') == 6


def test_names_from_files_are_escaped(tmp_path):
    page = write_report(make_run(tmp_path / "garden")).read_text()
    assert "gar&lt;den&gt;" in page and "gar<den>" not in page


def test_worst_and_best_view_are_shown(tmp_path):
    page = write_report(make_run(tmp_path / "run", views=20)).read_text()
    assert "30.00 dB, lowest PSNR" in page
    assert "49.00 dB, highest PSNR" in page
    assert page.count("<tr><td>r_") == 20


def test_run_without_evaluation(tmp_path):
    page = write_report(make_run(tmp_path / "run", evaluated=False)).read_text()
    assert "Test views" not in page and "Scores of each view" not in page
    assert page.count("<svg") == 2


def test_run_with_settings_alone(tmp_path):
    (tmp_path / "config.yaml").write_text("method: nerf\n")
    page = write_report(tmp_path).read_text()
    assert "Settings (1)" in page and "<svg" not in page


@pytest.mark.parametrize("loss", [math.nan, 0.0, -1.0])
def test_curves_leave_out_what_cannot_be_drawn(tmp_path, loss):
    run = make_run(tmp_path / "run", evaluated=False)
    rows = [{"step": 1, "elapsed": 1.0, "loss": loss, "psnr": math.inf}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert "<svg" in write_report(run).read_text()


def test_video_is_embedded(tmp_path):
    run = make_run(tmp_path / "run", evaluated=False)
    (run / "orbit.mp4").write_bytes(b"not really a video")
    assert 'src="data:video/mp4;base64,' in write_report(run).read_text()


def test_difference_map_shows_the_error(tmp_path):
    """A view that is off by the whole range in one half is dark and bright there."""
    import base64
    import io

    run = make_run(tmp_path / "run", views=1)
    truth = np.zeros((16, 32, 3), dtype=np.uint8)
    wrong = truth.copy()
    wrong[:, 16:] = round(255 * ERROR_RANGE)
    pictures = run / "renders" / "test"
    Image.fromarray(truth).save(pictures / "000_truth.png")
    Image.fromarray(wrong).save(pictures / "000_prediction.png")
    page = write_report(run).read_text()
    match = re.search(r'data:image/jpeg;base64,([^"]+)" alt="difference', page)
    assert match is not None
    heat = np.asarray(Image.open(io.BytesIO(base64.b64decode(match[1]))).convert("L"))
    assert heat[:, :12].mean() < 10 and heat[:, 20:].mean() > 220


def test_not_a_run_folder(tmp_path):
    with pytest.raises(ConfigError, match=r"config\.yaml"):
        write_report(tmp_path)


def test_damaged_files_are_named(tmp_path):
    run = make_run(tmp_path / "run")
    (run / "renders" / "test" / "000_truth.png").write_bytes(b"\x89PNG cut")
    with pytest.raises(DataError, match=r"000_truth\.png"):
        write_report(run)
    (run / "evaluate.json").write_text('{"psnr": ')
    with pytest.raises(DataError, match=r"evaluate\.json"):
        write_report(run)


def test_report_is_replaced_whole(tmp_path):
    run = make_run(tmp_path / "run")
    first = write_report(run)
    add = json.loads((run / "train.json").read_text()) | {"train_psnr": 12.25}
    (run / "train.json").write_text(json.dumps(add))
    assert "12.25" in write_report(run).read_text()
    assert [entry.name for entry in run.glob(".*")] == []
    assert first.stat().st_mode & 0o444 == 0o444
