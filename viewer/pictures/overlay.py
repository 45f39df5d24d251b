"""Words on a picture: title, legend and color bar, drawn with Pillow over what was rendered."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lumigraph.core.color import colorize

Pixels = NDArray[np.uint8]
_MARGIN, _GAP, _CHIP = 22, 10, 13
"""Pixels in a picture of 1100 x 800; others scale."""
_INK = {True: ((24, 32, 44), (91, 103, 118)), False: (((240, 243, 247)), (170, 180, 193))}
"""Colors of titles and of lesser text on a light picture and on a dark one."""


@dataclass(frozen=True)
class LegendEntry:
    """A line of the legend."""

    text: str
    color: str
    """E.g. "#2563eb"."""


@dataclass(frozen=True)
class ColorBar:
    """What colors of a mesh mean: 0 at the lower end, `limit` at the upper one."""

    limit: float
    text: str
    colormap: str = "ember"
    open_ended: bool = False
    """Whether values above `limit` have its color."""
    marks: Sequence[tuple[str, float]] = ()
    """Named values shown beside the bar, e.g. the median."""


@dataclass(frozen=True)
class Words:
    """All that is written on a picture."""

    title: str = ""
    subtitle: str = ""
    legend: Sequence[LegendEntry] = ()
    bar: ColorBar | None = None


def annotated(image: Pixels, words: Words, *, is_light: bool) -> Pixels:
    """The picture (H, W, 3) with words on it; they scale with its size."""
    canvas = Image.fromarray(image)
    pen = _Pen(canvas, is_light)
    pen.heading(words)
    pen.legend(words.legend)
    if words.bar is not None:
        pen.bar(words.bar)
    return np.asarray(canvas)


class _Pen:
    def __init__(self, canvas: Image.Image, is_light: bool) -> None:
        self.draw = ImageDraw.Draw(canvas)
        self.canvas = canvas
        self.width, self.height = canvas.size
        self.scale = word_scale(self.width, self.height)
        self.strong, self.faint = _INK[is_light]
        self.halo = (255, 255, 255) if is_light else (16, 20, 27)

    def px(self, length: float) -> int:
        return max(1, round(length * self.scale))

    def heading(self, words: Words) -> None:
        top = self.px(_MARGIN - 4)
        for text, size, ink in ((words.title, 22, self.strong), (words.subtitle, 14, self.faint)):
            if text:
                font = self._font(size, self.width - 2 * self.px(_MARGIN), text)
                self._text((self.px(_MARGIN), top), text, font, ink)
                top += self.px(size * 1.4)

    def legend(self, entries: Sequence[LegendEntry]) -> None:
        left, line = self.px(_MARGIN), self.px(_CHIP * 1.65)
        top = self.height - self.px(_MARGIN) - line * len(entries) + self.px(4)
        chip = self.px(_CHIP)
        for entry in entries:
            box = (left, top, left + chip, top + chip)
            self.draw.rounded_rectangle(box, self.px(3), entry.color, self.halo)
            font = self._font(14, self.width - 3 * left, entry.text)
            place = (left + chip + self.px(_GAP), top + chip // 2)
            self._text(place, entry.text, font, self.strong, anchor="lm")
            top += line

    def bar(self, bar: ColorBar) -> None:
        wide, tall = self.px(18), round(self.height * 0.5)
        left, top = self.width - self.px(_MARGIN + 76) - wide, (self.height - tall) // 2
        ramp = colorize(torch.linspace(1, 0, tall), colormap=bar.colormap)
        strip = (ramp[:, None].expand(tall, wide, 3) * 255 + 0.5).to(torch.uint8)
        self.canvas.paste(Image.fromarray(strip.numpy()), (left, top))
        self.draw.rectangle((left - 1, top - 1, left + wide, top + tall), outline=self.faint)
        step = nice_step(bar.limit)
        for number in range(int(bar.limit / step + 1.0001)):
            value = number * step
            y = top + tall - round(value / bar.limit * (tall - 1)) - 1
            last = bar.open_ended and value > bar.limit - step / 2
            text = ("≥ " if last else "") + f"{value:.4g}"
            self.draw.line((left + wide, y, left + wide + self.px(5), y), fill=self.faint)
            self._text((left + wide + self.px(9), y), text, self._font(13), self.strong, "lm")
        for name, value in bar.marks:
            y = top + tall - round(min(value / bar.limit, 1) * (tall - 1)) - 1
            self.draw.line((left - self.px(7), y, left + wide - 1, y), fill=self.strong)
            self._text((left - self.px(10), y), name, self._font(13), self.strong, "rm")
        right = self.width - self.px(_MARGIN)
        font = self._font(14, right - self.px(_MARGIN), bar.text)
        self._text((right, top - self.px(14)), bar.text, font, self.strong, "rb")

    def _text(
        self, place: tuple[int, int], text: str, font: Any, ink: Any, anchor: str = "la"
    ) -> None:
        # The halo keeps words readable over what is drawn behind them.
        self.draw.text(
            place, text, ink, font, anchor, stroke_width=self.px(2), stroke_fill=self.halo
        )

    def _font(self, size: float, room: int | None = None, text: str = "") -> Any:
        """A font of so many pixels, smaller where `text` needs more room than there is."""
        font = _font(self.px(size))
        if room is not None:
            taken = font.getlength(text)
            if taken > room:
                font = _font(max(6, int(self.px(size) * room / taken)))
        return font


def word_scale(width: int, height: int) -> float:
    """How much larger words, lines and points are than in a picture of 1100 x 800.

    In small pictures they would vanish, so that they do not go below 0.7.
    """
    return max(0.7, math.sqrt(width * height / (1100 * 800)))


def nice_step(limit: float) -> float:
    """1, 2 or 5 times a power of ten: the step of four to eight marks up to `limit`."""
    rough = limit / 5
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= 0.8 * rough)


def nice_limit(value: float) -> float:
    """The value, raised to a whole number of nice steps."""
    if not value > 0:
        return 1.0
    step = nice_step(value)
    return math.ceil(value / step - 1e-9) * step


@functools.cache
def _font(pixels: int) -> Any:
    import matplotlib

    path = Path(matplotlib.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    return ImageFont.truetype(str(path), pixels)
