"""`lumigraph train`: a scene into a run folder."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from .terminal import Interrupted, Terminal

if TYPE_CHECKING:
    from .watching import Watching

SUMMARY_KEYS = (
    "run",
    "method",
    "preset",
    "steps",
    "seconds",
    "train_psnr",
    "backend",
    "device",
)
"""What `--json` prints, in this order; then `gaussians` where the method has them."""
COUNTS = ("gaussians",)

_SETTINGS = (
    "device",
    "seed",
    "image_scale",
    "split_every",
    "frames",
    "test_views",
    "exposure",
    "pose_refinement",
)
"""Options that are settings of the same name."""
_METHOD_SETTINGS = ("encoder", "sampler", "strategy", "max_gaussians")
"""Options that are settings of one method; None leaves them to the preset."""
_FIXED = ("data", "method", "preset", *_SETTINGS, *_METHOD_SETTINGS, "tensorboard", "set")
"""What a run keeps from its start: not to be given with --resume."""


@dataclass(frozen=True)
class Arguments:
    """Train a scene from posed images into a run folder, or fit a network to a picture,
    a mesh or a medium.

    The run can be stopped with Ctrl-C at any time: it is saved, and --resume continues it.
    """

    data: tyro.conf.Positional[str | None] = None
    """Folder or file of posed images, or builtin:object; for method image a picture,
    for sdf a mesh, for volume a grid, builtin:cloud or builtin:fog. Not needed with --resume."""
    out: Path | None = None
    """Run folder to write; by default runs/ and the name of the data."""
    method: Literal["nerf", "gaussians", "gaussians4d", "neus", "image", "sdf", "volume"] = "nerf"
    """What is trained: a radiance field on a grid, a cloud of 3D Gaussians, Gaussians that move, a
    surface with normals and a mesh; or, from something else than photographs, a picture of any
    size, the signed distance of a mesh, a cloud or fog."""
    preset: Literal["tiny", "small", "full"] = "tiny"
    """Size: tiny for a CPU, small and full for a GPU."""
    steps: int | None = None
    """Stop after this many steps."""
    seconds: float | None = None
    """Stop after this much training time; schedules follow it."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to train; auto takes a GPU when there is one."""
    seed: int = 0
    """Seed of everything random."""
    image_scale: float = 1.0
    """Reduce the images by this factor, e.g. 0.25."""
    split_every: int | None = None
    """Every n-th image is kept for testing where the data has no split of its own."""
    test_views: str | None = None
    """Numbers of the images kept for testing, from 0 in the order of their names: 8,13,16."""
    frames: str | None = None
    """Data that moves: which moments, START:STOP:STEP, e.g. 0:60 or ::5."""
    exposure: bool = False
    """Learn a gain for each image: for photographs with automatic exposure."""
    pose_refinement: bool = False
    """Learn corrections to the camera poses."""
    encoder: Literal["lumigraph", "tinycudann"] | None = None
    """Method nerf: whose hash grid and networks; tiny-cuda-nn's need that package and a GPU."""
    sampler: Literal["lumigraph", "nerfacc"] | None = None
    """Method nerf: whose ray marching and compositing; nerfacc's need that package and a GPU."""
    strategy: Literal["default", "mcmc"] | None = None
    """Methods gaussians and gaussians4d: how their number follows the scene; by default mcmc."""
    max_gaussians: int | None = None
    """Methods gaussians and gaussians4d: never more than this many; by default as in the preset."""
    tensorboard: bool = False
    """Also write a TensorBoard log into the run folder."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Any other setting of config.yaml as NAME=VALUE, e.g. --set learning_rate=0.005."""
    resume: bool = False
    """Continue the run in --out; --steps or --seconds then raise its limits."""
    overwrite: bool = False
    """Replace the run in --out."""
    viewer: bool = False
    """Look at the run in the browser while it trains; open the address that is printed."""
    viewer_port: int | None = None
    """Port of the viewer; by default 8080, or any free one. 0 for any free one."""
    viewer_close: bool = False
    """Close the viewer after the end; by default, and without --json, it stays until Ctrl-C."""
    json: bool = False
    """Print one final JSON object on stdout, everything else on stderr."""


def run(arguments: Arguments, terminal: Terminal) -> dict[str, Any]:
    """Train, write the report, and return the summary."""
    from lumigraph.training.report import write_report

    from .watching import Watching

    with Watching(arguments, terminal) as watching:
        train = _resumed if arguments.resume else _trained
        trained = train(arguments, terminal, watching)
        write_report(trained.path)
        summary = train_summary(trained)
        terminal.facts(summary_rows(summary))
        if trained.train_summary()["interrupted"]:
            terminal.say(f"stopped; continue with: lumigraph train --resume --out {trained.path}")
        terminal.say(f"next: lumigraph evaluate {trained.path}")
        watching.stay()
    return summary


def train_with_progress(
    data: Any, config: Any, out: Path, terminal: Terminal, watching: Watching | None = None
) -> Any:
    """A trained run; raises Interrupted with its summary after Ctrl-C."""
    from lumigraph import training
    from lumigraph.training.run import load_scene

    if watching is not None and watching.wanted:
        data = load_scene(data, config)
        watching.open(data, config, title=out.name)
    with saved_on_interrupt(out), terminal.events("training") as listener:
        options = {"on_event": listener} if watching is None else watching.options(listener)
        return training.train(data, config, out=out, **options)


def _trained(arguments: Arguments, terminal: Terminal, watching: Watching) -> Any:
    from .output_folder import claimed, run_name

    data = _data(arguments)
    out = arguments.out or Path("runs") / run_name(data)
    config = _config(arguments)
    with claimed(out, overwrite=arguments.overwrite):
        return train_with_progress(data, config, out, terminal, watching)


class saved_on_interrupt:
    """Turn Ctrl-C into `Interrupted`, which says where the run was saved."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if not isinstance(error, KeyboardInterrupt):
            return
        from lumigraph.training.files import read_json

        if (self.out / "train.json").is_file():
            summary = read_json(self.out / "train.json")
            raise Interrupted(
                f"stopped at step {summary.get('steps')}; the run is saved, continue with: "
                f"lumigraph train --resume --out {self.out}",
                printed(summary),
            ) from error
        raise Interrupted("stopped before anything was saved", {}) from error


def train_summary(trained: Any) -> dict[str, Any]:
    """The part of train.json that is printed."""
    return printed(trained.train_summary())


def printed(summary: dict[str, Any]) -> dict[str, Any]:
    """What of train.json is printed, in order."""
    counts = [key for key in COUNTS if key in summary]
    return {key: summary.get(key) for key in (*SUMMARY_KEYS, *counts)}


def summary_rows(summary: dict[str, Any]) -> list[tuple[str, object]]:
    """The summary for people."""
    psnr = summary["train_psnr"]
    return [
        ("run", summary["run"]),
        ("steps", summary["steps"]),
        ("training time", f"{summary['seconds']:.1f} s"),
        ("training PSNR", "unknown" if psnr is None else f"{psnr:.2f} dB"),
        *((key.capitalize(), f"{summary[key]:,}") for key in COUNTS if key in summary),
        ("ran on", f"{summary['device']} ({summary['backend']} kernels)"),
    ]


def _data(arguments: Arguments) -> str:
    from lumigraph.core.errors import InputError

    if arguments.data is None:
        raise InputError("DATA is missing: name a folder of posed images, or builtin:object")
    for name in ("steps", "seconds"):
        value = getattr(arguments, name)
        if value is not None and not value > 0:
            raise InputError(f"--{name} {value}: must be above 0")
    return arguments.data


def _config(arguments: Arguments) -> Any:
    from lumigraph import training

    chosen = ("steps", "seconds", "tensorboard", *_SETTINGS)
    overrides = {name: getattr(arguments, name) for name in chosen}
    overrides |= _method_settings(arguments)
    overrides |= _settings(arguments.set)
    return training.train_config(arguments.method, arguments.preset, **overrides)


def _method_settings(arguments: Arguments) -> dict[str, Any]:
    """The given options that only one method has."""
    from lumigraph.core.errors import InputError
    from lumigraph.training.config import methods_with

    values = {name: getattr(arguments, name) for name in _METHOD_SETTINGS}
    given = {name: value for name, value in values.items() if value is not None}
    for name in given:
        if arguments.method not in methods_with(name):
            option, owner = "--" + name.replace("_", "-"), methods_with(name)[0]
            raise InputError(
                f"{option} is an option of method {owner}, not of {arguments.method}; leave it "
                f"out, or add --method {owner}"
            )
    return given


def _settings(words: tuple[str, ...]) -> dict[str, Any]:
    """NAME=VALUE words by name."""
    from lumigraph.core.errors import ConfigError

    settings = {}
    for word in words:
        name, equals, text = word.partition("=")
        if not (name and equals):
            raise ConfigError(f"--set {word}: expected NAME=VALUE, e.g. learning_rate=0.005")
        name = name.replace("-", "_")
        if name in ("method", "preset"):
            raise ConfigError(f"--set {word}: decides about other settings; use --{name} {text}")
        settings[name] = _value(word, text)
    return settings


def _value(word: str, text: str) -> Any:
    """Numbers by Python's rules (YAML takes 1e-3 for text), all else by YAML's."""
    import yaml

    from lumigraph.core.errors import ConfigError

    for number in (int, float):
        with contextlib.suppress(ValueError):
            return number(text)
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {word}: the value cannot be read") from error


def _resumed(arguments: Arguments, terminal: Terminal, watching: Watching) -> Any:
    from lumigraph import training
    from lumigraph.core.errors import InputError

    if arguments.overwrite:
        raise InputError("--resume and --overwrite exclude each other; give one of them")
    out = arguments.out
    if out is None:
        raise InputError("--resume needs --out RUN, the run folder to continue")
    fixed = Arguments()
    for name in _FIXED:
        if getattr(arguments, name) != getattr(fixed, name):
            option = "DATA" if name == "data" else "--" + name.replace("_", "-")
            raise InputError(f"{option} cannot be given with --resume: a run keeps its own")
    if watching.wanted:
        run = training.Run.open(out)
        watching.open(run.scene(), run.config, title=out.name)
    with saved_on_interrupt(out), terminal.events("training") as listener:
        options = watching.options(listener)
        return training.resume(out, steps=arguments.steps, seconds=arguments.seconds, **options)
