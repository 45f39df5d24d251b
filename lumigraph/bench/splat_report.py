"""How the findings of `bench splat` read: one line each for the terminal, tables in Markdown."""

from __future__ import annotations

from typing import Any

from . import results
from .kernels import OURS, TWIN

GSPLAT = "gsplat"


def title(row: dict[str, Any]) -> str:
    return f"{row['name']}, {row['passes']}, {amount(row['size'])}"


def amount(size: int) -> str:
    """A number of Gaussians or pixels as people say it.

    >>> amount(3_000_000), amount(100_000), amount(2_073_600)
    ('3 M', '100 k', '2073600')
    """
    for unit, letter in ((1_000_000, "M"), (1000, "k")):
        if size >= unit and size % unit == 0:
            return f"{size // unit} {letter}"
    return str(size)


def row_line(row: dict[str, Any]) -> str:
    """One row."""
    if "error" in row:
        return f"{title(row)}: failed, {row['error']}"
    parts = [f"{title(row)}: {row[OURS]['median_ms']:g} ms"]
    if "peak_mib" in row[OURS]:
        parts.append(f"{row[OURS]['peak_mib']:.0f} MiB")
    if "ratio" in row:
        parts.append(f"torch twin {row['ratio']:.3g}x")
    parts += [f"{name} {peer['ratio']:.3g}x" for name, peer in row["peers"].items()]
    parts += [f"{name} failed: {why}" for name, why in row.get("peers_failed", {}).items()]
    if "recorded" in row:
        known = row["recorded"]
        parts.append(f"{known['peer']} as recorded {known['ratio']:.3g}x")
    if not row.get("agrees", True):
        parts.append(f"but the results differ by {row['difference']}")
    if "meets" in row:
        parts.append(f"target {'met' if row['meets'] else 'MISSED'}")
    return ", ".join(parts)


def scene_line(scene: dict[str, Any]) -> str:
    """How much there is to do."""
    return (
        f"{scene['scene']}, {amount(scene['gaussians'])} Gaussians at {scene['image']}: "
        f"{scene['visible']} visible, {scene['tile_hits']} tile hits "
        f"({scene['tile_hits_by_box']} by box)"
    )


def stages_line(scene: dict[str, Any]) -> str:
    """Times of the stages."""
    stages = ", ".join(f"{name} {row['median_ms']:g}" for name, row in scene["stages"].items())
    return f"stages of {amount(scene['gaussians'])}, ms: {stages}"


def distance_line(found: dict[str, Any]) -> str:
    """How far gsplat's results lie from ours."""
    worst = max(found["gradients"], key=found["gradients"].__getitem__)
    return (
        f"beside gsplat: color {found['color_largest_elsewhere']:g} at most outside of "
        f"{found['pixels_at_a_threshold']} of {found['pixels']} pixels at a threshold "
        f"({found['color_largest']:g} with them), mean {found['color_mean']:g}, gradients "
        f"{found['gradients'][worst]:g} at most ({worst}): "
        f"{'equal' if found['meets'] else 'NOT equal'} within bounds"
    )


def markdown(content: dict[str, Any]) -> str:
    """The tables; ratios are the other's time over ours."""
    label = content.get("recorded", {}).get("label", "recorded")
    columns = ["operation", "passes", "size", "ours ms", "torch ms", "torch / ours"]
    columns += ["gsplat ms", "gsplat / ours", f"best peer, {label}, ms", "peer / ours"]
    columns += ["peak MiB", "gsplat peak MiB", "target", "met", "differs by"]
    text = results.heading(content)
    text += results.table(columns, [_cells(row, len(columns)) for row in content["rows"]])
    for scene in content["scenes"]:
        text += f"\n{scene_line(scene)}.\n\n"
        rows = [[name, results.milliseconds(row)] for name, row in scene["stages"].items()]
        text += results.table(["stage", "ms"], rows)
        text += _kernels(scene) + _distance(scene)
    if "recorded" in content:
        known = content["recorded"]
        text += f"\nPeers' recorded figures: {known['source']}. {known['splatting_notes']}\n"
        text += f"gsplat in this run: {content['gsplat'] or 'not installed'}.\n"
    return text


def _cells(row: dict[str, Any], width: int) -> list[str]:
    head = [row["name"], row["passes"], amount(row["size"])]
    if "error" in row:
        return [*head, row["error"].replace("|", "/"), *[""] * (width - 4)]
    theirs, known = row["peers"].get(GSPLAT), row.get("recorded")
    peaks = [f"{who['peak_mib']:.0f}" if who and "peak_mib" in who else ""
             for who in (row[OURS], theirs)]  # fmt: skip
    return [
        *head,
        results.milliseconds(row[OURS]),
        results.milliseconds(row.get(TWIN)),
        f"{row['ratio']:.3g}" if "ratio" in row else "",
        results.milliseconds(theirs),
        f"{theirs['ratio']:.3g}" if theirs else "",
        f"{known['peer']} {known['ms']:g}" if known else "",
        f"{known['ratio']:.3g}" if known else "",
        *peaks,
        _target(row),
        {True: "yes", False: "no", None: ""}[row.get("meets")],
        "" if row.get("difference") is None else f"{row['difference']:.1e}",
    ]


def _target(row: dict[str, Any]) -> str:
    texts = {
        "target_ms": "<= {:g} ms",
        "target_peak_mib": "<= {:g} MiB",
        "target_ratio": ">= {:g}x",
    }
    return ", ".join(text.format(row[name]) for name, text in texts.items() if name in row)


def _kernels(scene: dict[str, Any]) -> str:
    if "gpu_kernels" not in scene:
        return ""
    profile = scene["gpu_kernels"]
    rows = [
        [row["name"].replace("|", "/"), f"{row['ms']:g}", f"{row['launches']:g}"]
        for row in profile["longest"]
    ]
    head = f"\nForward and backward: {profile['kernel_ms']:g} ms of GPU kernels in "
    head += f"{profile['kernels']:g} launches.\n\n"
    return head + results.table(["kernel", "ms", "launches"], rows)


def _distance(scene: dict[str, Any]) -> str:
    found = scene.get(GSPLAT)
    if found is None:
        return ""
    if "error" in found:
        return f"\nResults could not be compared with gsplat's: {found['error']}\n"
    rows = [
        [name, f"{value:.2e}", f"{found['gradients_all_pixels'][name]:.2e}"]
        for name, value in found["gradients"].items()
    ]
    columns = ["gradient by", "relative L2 from gsplat's", "with all pixels"]
    return f"\n{distance_line(found)}.\n\n" + results.table(columns, rows)
