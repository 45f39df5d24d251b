"""The table of commands. A command is a module of this folder with a dataclass `Arguments` and a
function `run(arguments, terminal)` that returns the object printed by `--json`.

Neither importing such a module nor building its `Arguments` loads torch: `--help` is instant.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """Where a command lives and what the overview says about it."""

    module: str
    summary: str


COMMANDS: dict[str, Command] = {
    "doctor": Command("doctor", "say what runs where on this machine, and why not faster"),
    "demo": Command("demo", "train a built-in scene, score it, make a video and a report"),
    "inspect": Command("inspect", "say and draw what a scene, a run or a file of geometry holds"),
    "train": Command("train", "train a scene into a run folder"),
    "evaluate": Command("evaluate", "score a run on its test views"),
    "render": Command("render", "render a camera path of a run to a video or to pictures"),
    "view": Command("view", "look at a run, a file of Gaussians or a mesh in the browser"),
    "export": Command("export", "write the Gaussians of a run for other programs"),
    "convert": Command("convert", "photographs or a video to a scene; files of Gaussians"),
    "simulate": Command("simulate", "simulate a neural-graphics cluster on traces of scenes"),
    "bench": Command("bench", "measure kernels and training against their peers"),
}
