"""`lumigraph simulate`: what a neural-graphics cluster beside a GPU would do with a scene."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

from lumigraph.core.errors import ConfigError, InputError

from .parsing import UsageError
from .terminal import Terminal, escaped

SYNTHETIC = "synthetic:"


@dataclass(frozen=True)
class Arguments:
    """Simulate a neural-graphics cluster on traces of scenes. The cycle-level model needs one more
    package (pip install 'lumigraph[hardware]').
    """

    subject: tyro.conf.Positional[
        Literal["trace", "run", "sweep", "reproduce", "validate", "report"]
    ]
    """trace: record what a render asks of a field; run: simulate a trace and report; sweep: many
    clusters and their Pareto front; reproduce: the tables of the publication; validate: the model
    against laws and closed forms; report: print a report that is there."""
    source: tyro.conf.Positional[str | None] = None
    """trace: a run folder; run and sweep: a trace (.ngt) or synthetic:nerf, :nsdf, :nvr, :gia;
    report: the folder of a report."""
    out: Path | None = None
    """trace: file to write (.ngt); run, sweep and reproduce: folder of the report."""
    cluster: str = "ngpc-64"
    """A preset or a YAML file."""
    set: tuple[str, ...] = ()
    """Settings of the cluster, e.g. nfp.count=16."""
    encoding: Literal["hash", "dense", "lowres"] = "hash"
    """Of synthetic scenes."""
    fidelity: Literal["cycle", "analytic"] = "cycle"
    """Cycle by cycle, or in closed form."""
    baseline: Literal["published", "measured"] = "published"
    """Times of the GPU: of the publication, or measured in the trace."""
    axis: tuple[str, ...] = ()
    """sweep: an axis with its values, e.g. nfp.count=8,16,32."""
    most_area: float | None = None
    """sweep: mm2 beyond which clusters are no candidates."""
    most_watts: float | None = None
    """sweep: the same for power."""
    view: int = 0
    """trace: the test view that is rendered."""
    width: int | None = None
    """trace: pixels across; by default those of the view."""
    tiles: int = 64
    """trace: tiles of 16 x 16 pixels, spread over the picture; 0 for all."""
    overwrite: bool = False
    """Replace a file or a report that is there."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Do what the subject asks for."""
    return SUBJECTS[arguments.subject](arguments, terminal)


def _trace(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph.hardware import Trace

    source, out = _source(arguments, "a run folder"), _out(arguments)
    if out.exists() and not arguments.overwrite:
        raise InputError(f"{out}: exists already; replace it with --overwrite, or name another")
    if out.suffix != ".ngt":
        raise InputError(f"{out}: a trace ends in .ngt")
    if source.startswith(SYNTHETIC):
        trace: Trace = _read(arguments)
    else:
        trace = _recorded(arguments, Path(source))
    trace.save(out)
    estimate = trace.samples_of_frame()
    terminal.facts(
        [
            ("trace", out),
            ("samples", f"{len(trace.positions):,} in {len(trace.tiles) or 'all'} tiles"),
            ("of the frame", f"{estimate.value:,.0f} ± {100 * estimate.relative:.1f} % (95 %)"),
        ]
    )
    if estimate.relative > 0.01:
        terminal.say("the interval is wider than ±1 %: record more tiles for a surer frame time")
    terminal.say(f"next: lumigraph simulate run {escaped(out)}")
    return {
        "trace": str(out),
        "samples": len(trace.positions),
        "frame_samples": estimate.value,
        "frame_samples_half_width": estimate.half_width,
    }


def _recorded(arguments: Arguments, folder: Path) -> Any:
    from lumigraph.hardware import record
    from lumigraph.training import Run

    opened = Run.open(folder)
    scene, model = opened.scene(), opened.model("cpu")
    views = scene.splits.get("test")
    if views is None or not len(views):
        views = scene.splits["train"]
    if not 0 <= arguments.view < len(views):
        raise InputError(f"--view {arguments.view}: the run has views 0 to {len(views) - 1}")
    camera = scene.cameras[int(views[arguments.view])]
    if arguments.width is not None:
        width, height = camera.size(0)
        camera = camera.resized_to(arguments.width, round(height * arguments.width / width))
    return record(
        model.field,
        model.renderer,
        camera,
        tiles=arguments.tiles or None,
        scene=f"{folder.name}, view {arguments.view}",
    )


def _simulate(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph.hardware.reports.frame_report import frame_report

    trace, cluster = _read(arguments), _cluster(arguments)
    report = frame_report(trace, cluster, fidelity=arguments.fidelity, baseline=arguments.baseline)
    return _finish(report, arguments, terminal)


def _sweep(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph.hardware import sweep
    from lumigraph.hardware.reports.sweep_report import sweep_report

    trace, cluster = _read(arguments), _cluster(arguments)
    axes = {}
    for text in arguments.axis:
        key, equals, values = text.partition("=")
        if not equals:
            raise UsageError(f"--axis {text}: write KEY=VALUE,VALUE,...")
        axes[key] = [_value(value) for value in values.split(",")]
    result = sweep(
        trace,
        cluster,
        axes,
        most_area_mm2=arguments.most_area,
        most_watts=arguments.most_watts,
        cycle_on_front=arguments.fidelity == "cycle",
    )
    return _finish(sweep_report(result, trace, cluster), arguments, terminal)


def _reproduce(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph.hardware.reports.reproduce import reproduction

    report = reproduction(
        tiles=arguments.tiles, on_message=lambda text: terminal.say(escaped(text))
    )
    return _finish(report, arguments, terminal)


def _validate(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph.hardware.validation import validate

    checks = validate()
    for check in checks:
        mark = "ok" if check.passed else "FAILED"
        terminal.say(f"  {mark:<7} {check.id:<4} {escaped(check.text)}: {escaped(check.found)}")
    failed = [check.id for check in checks if not check.passed]
    if failed:
        raise ConfigError(f"validate: {', '.join(failed)} failed; the installation is not sound")
    return {"checks": {check.id: check.found for check in checks}}


def _report(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    from lumigraph.hardware.reports.document import read_report

    report = read_report(Path(_source(arguments, "the folder of a report")))
    terminal.say(escaped(report.to_markdown()))
    return {"title": report.title, "summary": report.summary, "result": dict(report.result)}


def _read(arguments: Arguments) -> Any:
    from lumigraph.hardware import Trace, synthetic_trace

    source = _source(arguments, "a trace or synthetic:nerf")
    if source.startswith(SYNTHETIC):
        name = source.removeprefix(SYNTHETIC)
        return synthetic_trace(name, arguments.encoding, tiles=arguments.tiles or 1 << 30)
    return Trace.load(source)


def _cluster(arguments: Arguments) -> Any:
    from lumigraph.hardware import ClusterSpec

    settings = {}
    for text in arguments.set:
        key, equals, value = text.partition("=")
        if not equals:
            raise UsageError(f"--set {text}: write KEY=VALUE")
        settings[key] = _value(value)
    return ClusterSpec.load(arguments.cluster).with_settings(settings)


def _value(text: str) -> Any:
    import yaml

    return yaml.safe_load(text)


def _finish(report: Any, arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    for text in report.warnings:
        terminal.say(f"note: {escaped(text)}")
    terminal.say(escaped(report.summary))
    files = []
    if arguments.out is not None:
        if (arguments.out / "result.json").exists() and not arguments.overwrite:
            raise InputError(
                f"--out {arguments.out}: holds a report already; replace it with --overwrite, or "
                "choose another name"
            )
        files = [str(file) for file in report.write(arguments.out)]
        terminal.say(f"report: {escaped(arguments.out / 'report.html')}")
    return {"summary": report.summary, "files": files, "result": dict(report.result)}


def _source(arguments: Arguments, what: str) -> str:
    if arguments.source is None:
        raise UsageError(f"lumigraph simulate {arguments.subject} needs {what}")
    return arguments.source


def _out(arguments: Arguments) -> Path:
    if arguments.out is None:
        raise UsageError(f"--out is missing; see lumigraph simulate {arguments.subject} --help")
    return arguments.out


SUBJECTS: dict[str, Callable[[Arguments, Terminal], dict[str, Any]]] = {
    "trace": _trace,
    "run": _simulate,
    "sweep": _sweep,
    "reproduce": _reproduce,
    "validate": _validate,
    "report": _report,
}
