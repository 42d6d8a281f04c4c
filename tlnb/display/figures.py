"""What the pictures share: colours, plain axes, and how a figure becomes PNG, SVG or HTML."""

from __future__ import annotations

import base64
import io
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, VERMILION = "#0072B2", "#D55E00"
# Read on white paper and on a dark page alike: 4 to 1 against white, and more against JupyterLab's dark.
INK, FAINT, BAND = "#7d7d7d", "#80808048", "#8080801c"
PALETTE = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F7F7F", "#A6761D")
"""Okabe and Ito's colours: told apart with any colour vision."""


def new_figure(width: float, height: float) -> Figure:
    """A figure of this size in inches, that belongs to no window; it stands on the page's own paper."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), facecolor="none", layout="constrained")


def plain(ax: Axes) -> None:
    """Axes without a box: a faint grid, and spines on the left and below."""
    ax.set_facecolor("none")
    ax.spines[["top", "right"]].set_visible(False)
    ax.spines[["left", "bottom"]].set_color("#999999")
    ax.grid(True, color=FAINT, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.tick_params(colors=INK, labelsize=9)


def short(name: str, most: int) -> str:
    """A name that fits: the middle is left out, since names often begin alike.

    It must be drawn with ``parse_math=False``, since it may be called ``$x$``.
    """
    if len(name) <= most:
        return name
    end = (most - 1) // 2
    return f"{name[: most - 1 - end].rstrip()}…{name[-end:].lstrip()}"


def as_png(figure: Figure, dpi: int = 100) -> bytes:
    """The figure as a PNG file."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi)
    return file.getvalue()


def as_svg(figure: Figure) -> str:
    """The figure as an SVG file, for papers: the same figure gives the same text."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "tlnb", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
    return file.getvalue()


def as_html(figure: Figure, alt: str, dpi: int = 100) -> str:
    """The figure as an image in HTML."""
    picture = base64.b64encode(as_png(figure, dpi)).decode()
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{picture}">'
