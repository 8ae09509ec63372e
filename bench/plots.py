"""Draws the benchmark's pictures, in the environment that has matplotlib: `drawing.py` starts it.

    python bench/plots.py FOLDER < pictures.json

It knows nothing of benchmarks. A picture has a title, a note and two panels of horizontal bars; one colour is
for what is ours and a quiet one for all else.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FuncFormatter

OURS = "#0b6e99"
OTHERS = "#c3ccd4"
INK = "#22303a"
QUIET = "#6b7a86"
PAPER = "#fcfcfa"
WIDTH_IN, HEIGHT_IN, DOTS = 12, 6, 100


def short(value: float) -> str:
    """A number that fits beside a bar."""
    if value >= 10_000:
        return f"{value / 1000:,.0f}k"
    if value >= 1_000:
        return f"{value / 1000:.2g}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def tick(value: float, _place: int) -> str:
    """The same on an axis, as matplotlib wants it."""
    return short(value)


def draw_panel(axes: Any, panel: dict[str, Any]) -> None:
    """Bars from the best, at the top, to the worst."""
    bars = panel["bars"]
    middles = [bar["middle"] for bar in bars]
    places = range(len(bars))
    whiskers = [
        [bar["middle"] - bar["least"] for bar in bars],
        [bar["most"] - bar["middle"] for bar in bars],
    ]
    axes.barh(
        places,
        middles,
        height=0.68,
        color=[OURS if bar["ours"] else OTHERS for bar in bars],
        xerr=whiskers,
        error_kw={"ecolor": QUIET, "elinewidth": 1, "capsize": 2.5},
        zorder=2,
    )
    most = max((bar["most"] for bar in bars), default=1)
    if panel["log"]:
        axes.set_xscale("log")
        axes.minorticks_off()
        axes.set_xlim(min(middles, default=1) / 2, most * 3.2)
    else:
        axes.set_xlim(0, most * 1.16)
    for place, bar in zip(places, bars, strict=True):
        axes.annotate(
            short(bar["middle"]),
            (bar["most"], place),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=9.5,
            color=OURS if bar["ours"] else INK,
            fontweight="bold" if bar["ours"] else "normal",
        )
    axes.set_yticks(places, [bar["name"] for bar in bars], fontsize=10)
    for label, bar in zip(axes.get_yticklabels(), bars, strict=True):
        label.set_color(OURS if bar["ours"] else INK)
        label.set_fontweight("bold" if bar["ours"] else "normal")
    axes.invert_yaxis()
    axes.set_title(panel["title"], loc="left", fontsize=11.5, color=INK, pad=8)
    axes.set_xlabel(panel["unit"], fontsize=9.5, color=QUIET)
    axes.xaxis.set_major_formatter(FuncFormatter(tick))
    axes.tick_params(axis="x", colors=QUIET, labelsize=9, length=0)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e3e7ea", linewidth=0.8, zorder=0)
    axes.set_facecolor(PAPER)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(QUIET)


def draw(picture: dict[str, Any], file: Path) -> None:
    """One picture."""
    figure, panels = plt.subplots(1, len(picture["panels"]), figsize=(WIDTH_IN, HEIGHT_IN), dpi=DOTS)
    figure.set_facecolor(PAPER)
    for axes, panel in zip(panels, picture["panels"], strict=True):
        draw_panel(axes, panel)
    figure.suptitle(
        picture["title"], x=0.015, y=0.975, ha="left", fontsize=14.5, fontweight="bold", color=INK
    )
    figure.text(0.015, 0.022, picture["note"], ha="left", fontsize=8.5, color=QUIET)
    figure.tight_layout(rect=(0.005, 0.045, 0.995, 0.985), w_pad=2.5)
    figure.savefig(file, facecolor=PAPER)
    plt.close(figure)


def main() -> None:
    """Draw all that stdin has."""
    for name, picture in json.load(sys.stdin).items():
        draw(picture, Path(sys.argv[1], name))


if __name__ == "__main__":
    main()
