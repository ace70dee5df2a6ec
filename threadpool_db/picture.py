"""How do figures become a picture? Small panels side by side that share their axes, as SVG by hand.

A row of panels for each quantity, a column for each case, in every panel the same few lines. The colours differ in
lightness too, and the lines in their marks or dashes, so that it can be read in grey; where two lines run together the
first one is seen through the second. Whoever looks at it on a dark page gets it dark.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL_HEIGHT = 1080, 215
LEFT, RIGHT, TOP, BETWEEN, GAP, BOTTOM = 92, 30, 168, 28, 52, 72
LEGEND = 26  # more between two rows, where each has a legend of its own
INSET = 12  # of the first and last point, from the sides of their panel
INK, PALE, GRID, PAPER, BLUE, ORANGE = "#1f2933", "#66727f", "#e4e8ec", "#ffffff", "#14508c", "#e8743b"
DOTS = 'stroke-dasharray="2 4"'
FONT = "font-family=\"'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif\""

#: The attributes themselves are light: not everything that shows an SVG reads a style, and then it is light and whole.
_DARK = {INK: "#e6eaee", PALE: "#9aa6b2", GRID: "#343b43", PAPER: "#161b22", BLUE: "#6cb0f5", ORANGE: "#f0925f"}
_STYLE = "".join(
    f'[{where}="{light}"]{{{where}:{dark}}}' for light, dark in _DARK.items() for where in ("fill", "stroke")
)
STYLE = f"<style>@media (prefers-color-scheme: dark){{{_STYLE}}}</style>"

Point = tuple[float, float]
Place = Callable[[Point], Point]


@dataclass(frozen=True)
class Line:
    """What the legend says of it, and how it looks; ``mark`` is "circle", "square" or, where there are too many points
    for marks, "". ``dash``: as SVG has it, lengths of line and gap in pixels."""

    name: str
    colour: str
    width: float
    mark: str = ""
    dash: str = ""


@dataclass(frozen=True)
class Row:
    """One quantity: its axis, and of each case, of each line, the points. A ``y`` of nan is a gap in its line.

    ``lines``: those of this row, with a legend above it; without them they are the picture's. ``whole``: nothing lies
    between two whole numbers. ``levels``: a height to be compared with, and what it is; left out
    where it is above the axis. There is room for the words of one."""

    title: str
    panels: Sequence[Sequence[Sequence[Point]]]
    lines: Sequence[Line] = ()
    whole: bool = False
    levels: Sequence[tuple[float, str]] = ()

    @property
    def most(self) -> float:
        heights = (y for panel in self.panels for points in panel for _, y in points if not math.isnan(y))
        return max(heights, default=0) or 1.0

    @property
    def step(self) -> float:
        """From one line of the grid to the next, a round number, so that there are five to eight of them."""
        unit = 10.0 ** math.floor(math.log10(self.most))
        steps = (unit * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2))
        return next(step for step in steps if self.most <= 6 * step and (step == int(step) or not self.whole))

    @property
    def top(self) -> float:
        return (int(self.most / self.step) + 1) * self.step


@dataclass(frozen=True)
class Picture:
    """``ticks``: of the shared x axis, from left to right, with their labels; the scale runs between the outer two, or
    over ``span``. ``last_values``: each line's value is written at its right end."""

    title: str
    about: Sequence[str]
    cases: Sequence[str]
    lines: Sequence[Line]
    rows: Sequence[Row]
    x_title: str
    ticks: Sequence[tuple[float, str]]
    span: tuple[float, float] | None = None
    last_values: bool = True

    @property
    def height(self) -> float:
        return self._top(len(self.rows) - 1) + PANEL_HEIGHT + BOTTOM

    def svg(self) -> str:
        """One document of UTF-8, ended by a newline; nothing in it depends on when or where it was made."""
        return "\n".join(self._elements()) + "\n"

    def _elements(self) -> Iterator[str]:
        size = f'width="{WIDTH}" height="{self.height:g}" viewBox="0 0 {WIDTH} {self.height:g}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT} role="img" aria-labelledby="title about">'
        yield f'<title id="title">{escape(self.title)}</title>'
        yield f'<desc id="about">{escape(" ".join(self.about))}</desc>'
        yield STYLE
        yield f'<rect width="{WIDTH}" height="{self.height:g}" rx="8" fill="{PAPER}"/>'
        yield _text(LEFT, 36, self.title, 21, weight=600)
        for number, line in enumerate(self.about):
            yield _text(LEFT, 60 + 18 * number, line, 13, colour=PALE)
        yield from _legend(TOP - 58, self.lines)
        for number, row in enumerate(self.rows):
            top = self._top(number)
            turned = f'<g transform="rotate(-90 24 {top + PANEL_HEIGHT / 2:g})">'
            yield turned + _text(24, top + PANEL_HEIGHT / 2, row.title, 14, anchor="middle", weight=600) + "</g>"
            yield from _legend(top - 18, row.lines, [name for level, name in row.levels if level <= row.top])
            for column, panel in enumerate(row.panels):
                yield from self._panel(self._left(column), top, row, panel, column)
        for column, case in enumerate(self.cases):
            y = TOP - (16 + LEGEND if self._own else 16)
            if case:
                yield _text(self._left(column) + self._across / 2, y, case, 15, anchor="middle", weight=600)
        yield _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, self.height - 20, self.x_title, 14, anchor="middle", weight=600)
        yield "</svg>"

    @property
    def _own(self) -> bool:
        return any(row.lines for row in self.rows)

    def _top(self, number: int) -> float:
        return TOP + number * (PANEL_HEIGHT + GAP + (LEGEND if self._own else 0))

    @property
    def _across(self) -> float:
        return (WIDTH - LEFT - RIGHT - BETWEEN * (len(self.cases) - 1)) / len(self.cases)

    def _left(self, column: int) -> float:
        return LEFT + column * (self._across + BETWEEN)

    def _panel(self, left: float, top: float, row: Row, panel: Sequence[Sequence[Point]], column: int) -> Iterator[str]:
        bottom, (first, last) = top + PANEL_HEIGHT, self.span or (self.ticks[0][0], self.ticks[-1][0])

        def place(point: Point) -> Point:
            x, y = point
            across = left + INSET + (self._across - 2 * INSET) * (x - first) / (last - first)
            return across, bottom - PANEL_HEIGHT * y / row.top

        for number in range(round(row.top / row.step) + 1):
            _, y = place((first, number * row.step))
            yield _rule(left, y, left + self._across, y, INK if number == 0 else GRID)
            if column == 0:
                yield _text(left - 10, y + 4, _label(number * row.step, row.step), 12, anchor="end", colour=PALE)
        for x, label in self.ticks:
            across, _ = place((x, 0))
            yield _rule(across, bottom, across, bottom + 5, INK)
            yield _text(across, bottom + 20, label, 12, anchor="middle", colour=PALE)
        for level, _ in row.levels:
            if level <= row.top:
                _, y = place((first, level))
                yield _rule(left, y, left + self._across, y, PALE, DOTS)
        lines = row.lines or self.lines
        for line, points in zip(lines, panel, strict=True):
            for drawn, piece in itertools.groupby(points, lambda point: not math.isnan(point[1])):
                placed = [place(point) for point in piece] if drawn else []
                if placed:
                    yield _polyline(placed, line)
                for x, y in placed if line.mark else ():
                    yield _mark(x, y, line)
        if self.last_values:
            yield from _last_values(lines, panel, place, row.step)


def _last_values(lines: Sequence[Line], panel: Sequence[Sequence[Point]], place: Place, step: float) -> Iterator[str]:
    """What each line comes to at its right end, over the upper one and under the lower one; of two that meet, one
    number."""
    ends = [(place(points[-1]), points[-1][1], line) for line, points in zip(lines, panel, strict=True)]
    ends = sorted((end for end in ends if not math.isnan(end[1])), key=lambda end: end[0][1])
    meet = bool(ends) and ends[-1][0][1] - ends[0][0][1] < 8
    for number, ((x, y), value, line) in enumerate(ends[:1] if meet else ends):
        colour = INK if meet else line.colour
        place_of = y + (19 if number > 0 else -11)
        yield _text(x + 5, place_of, _label(value, step), 13, anchor="end", weight=600, colour=colour)


def _legend(y: float, lines: Sequence[Line], levels: Sequence[str] = ()) -> Iterator[str]:
    """What is to be compared with stands at the right: in the panels, lines would run through its words."""
    left = LEFT
    for name in levels:
        end = WIDTH - RIGHT - 8 * len(name)
        yield _rule(end - 52, y, end - 12, y, PALE, DOTS)
        yield _text(end, y + 5, name, 14, colour=PALE)
    for line in reversed(lines):
        yield _polyline([(left, y), (left + 40, y)], line)
        if line.mark:
            yield _mark(left + 20, y, line)
        yield _text(left + 52, y + 5, line.name, 14)
        left += 52 + 9 * len(line.name) + 20


def ticks(most: float, parts: int = 6) -> list[tuple[float, str]]:
    """Round numbers from 0 to ``most`` at the utmost, about so many, for an axis that begins at 0."""
    unit = 10.0 ** math.floor(math.log10(most / parts))
    step = next(step for step in (unit, 2 * unit, 5 * unit, 10 * unit) if most / step <= parts + 1)
    return [(n * step, _label(n * step, step)) for n in range(int(most / step + 1e-9) + 1)]


def _label(value: float, step: float) -> str:
    """With as many decimals as the axis' own steps have."""
    decimals = next(decimals for decimals in range(12) if decimals == 11 or math.isclose(round(step, decimals), step))
    return f"{value:,.{decimals}f}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(
    x: float, y: float, text: str, size: float, *, anchor: str = "start", weight: int = 400, colour: str = INK
) -> str:
    place = f'x="{_number(x)}" y="{_number(y)}" font-size="{size:g}"'
    return f'<text {place} text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str, *more: str) -> str:
    ends = [f'{name}="{_number(at)}"' for name, at in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2))]
    look = " ".join([*ends, f'stroke="{colour}"', *more])
    return f"<line {look}/>"


def _polyline(points: Iterable[Point], line: Line) -> str:
    path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    look = f'stroke="{line.colour}" stroke-width="{line.width:g}" stroke-linejoin="round" stroke-linecap="round"'
    dash = f' stroke-dasharray="{line.dash}"' if line.dash else ""
    return f'<polyline points="{path}" fill="none" {look}{dash}/>'


def _mark(x: float, y: float, line: Line) -> str:
    look = f'fill="{PAPER}" stroke="{line.colour}" stroke-width="2"'
    if line.mark == "square":
        return f'<rect x="{_number(x - 4)}" y="{_number(y - 4)}" width="8" height="8" {look}/>'
    return f'<circle cx="{_number(x)}" cy="{_number(y)}" r="3.5" {look}/>'
