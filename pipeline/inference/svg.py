"""Figures as SVG within a page: their text takes the page's font and colour, and pointing at a dot shows its value.
They are drawn without pyplot, which keeps state and may look for a screen."""

import io
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#123456"  # stands for the page's own colour
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#999999", "#f0e442")  # Okabe and Ito's
SEPARATOR = "\u2063"  # which no text here has, and XML allows
SVG = "http://www.w3.org/2000/svg"


def new_figure(width: float, height: float) -> "Figure":
    """An empty figure of this size in inches."""
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=(width, height), layout="constrained")


def prepare(axes: "Axes", *, x: str = "", y: str = "", logarithmic: bool = False):
    """Labels, a grid, and with `logarithmic` a logarithmic axis upwards."""
    if logarithmic:
        set_logarithmic(axes)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    axes.tick_params(colors=INK)
    axes.grid(alpha=0.3)
    for name, spine in axes.spines.items():
        spine.set_visible(name in ("left", "bottom"))
        spine.set_color(INK)
    axes.set_facecolor("none")


def set_logarithmic(axes: "Axes"):
    """Makes the axis upwards logarithmic, with plain numbers at its ticks, also between the powers of ten."""
    from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=12))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())  # whose ticks take a third of the time


def draw_line(axes: "Axes", x: Sequence[float], y: Sequence[float], says: Sequence[str], *, label: str, colour: str):
    """A line with a dot at each place; `says` has their texts."""
    axes.plot(x, y, color=colour, linewidth=1.5, label=label)
    axes.scatter(x, y, s=14, color=colour, gid=hint(says))


def draw_legend(axes: "Axes"):
    for text in axes.legend(frameon=False, labelcolor=INK, fontsize="small").get_texts():
        text.set_parse_math(False)  # a name of a run may have dollar signs


def hint(says: Iterable[str]) -> str:
    """A name for a set of dots that contains their texts, and by which `as_svg` finds them."""
    return "hint " + SEPARATOR.join(says)


def as_svg(figure: "Figure", *, title: str, prefix: str) -> str:
    """The figure as the text of an <svg>, with a title for screen readers. prefix: of the names in it, since a page has
    several figures.
    """
    import matplotlib

    figure.patch.set_alpha(0)
    file = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix, "font.size": 9}):
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    root = ElementTree.fromstring(re.sub(r"<!DOCTYPE[^>]*>", "", file.getvalue()))
    for group in root.iter(f"{{{SVG}}}g"):
        name = group.get("id", "")
        if name.startswith("hint "):
            del group.attrib["id"]
            marks = list(group.iter(f"{{{SVG}}}use")) or [group]
            for dot, text in zip(marks, name.removeprefix("hint ").split(SEPARATOR), strict=False):
                ElementTree.SubElement(dot, f"{{{SVG}}}title").text = text
    for name in ("width", "height"):
        root.attrib.pop(name, None)
    root.set("role", "img")
    root.insert(0, ElementTree.Element(f"{{{SVG}}}title"))
    root[0].text = title
    text = ElementTree.tostring(root, encoding="unicode").replace(INK, "currentColor")
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{prefix}-", text)
    return re.sub(r"font: (?:\w+ )?([\d.]+px) [^;\"]*", r"font-size: \1", text)


def dots(points: np.ndarray) -> str:
    """The path of a dot at each of (K, 2) points, for a line with round ends; missing points have none."""
    known = points[np.isfinite(points).all(axis=1)]
    return "".join(f"M{x:.1f} {y:.1f}h0" for x, y in known.tolist())


def segments(starts: np.ndarray, ends: np.ndarray) -> str:
    """The path of lines from (K, 2) points to others, where both are known."""
    known = np.isfinite(starts + ends).all(axis=1)
    pairs = zip(starts[known].tolist(), ends[known].tolist(), strict=True)
    return "".join(f"M{a:.1f} {b:.1f}L{c:.1f} {d:.1f}" for (a, b), (c, d) in pairs)
