"""How do figures become a picture? Small panels side by side that share their axes, as SVG by hand.

A row of panels for each quantity, a column for each case, in every panel the same few lines. The colours differ in
lightness too and the marks in shape, so that it can be read in grey; where two lines run together the first one is
seen through the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, PANEL_HEIGHT = 1080, 215
LEFT, RIGHT, TOP, BETWEEN, GAP, BOTTOM = 92, 30, 168, 28, 52, 72
INSET = 12  # of the first and last point, from the sides of their panel
INK, PALE, GRID, PAPER = "#1f2933", "#66727f", "#e4e8ec", "#ffffff"
FONT = "font-family=\"'Helvetica Neue', Helvetica, Arial, 'Liberation Sans', sans-serif\""

Point = tuple[float, float]
Place = Callable[[Point], Point]


@dataclass(frozen=True)
class Line:
    """What the legend says of it, and how it looks; ``mark`` is "circle" or "square"."""

    name: str
    colour: str
    width: float
    mark: str


@dataclass(frozen=True)
class Row:
    """One quantity: its axis, and of each case, of each line, the points."""

    title: str
    panels: Sequence[Sequence[Sequence[Point]]]

    @property
    def most(self) -> float:
        return max(y for panel in self.panels for points in panel for _, y in points)

    @property
    def step(self) -> float:
        """From one line of the grid to the next, a round number, so that there are five to eight of them."""
        unit = 10.0 ** (len(str(int(self.most))) - 1)
        return next(unit * part for part in (0.1, 0.2, 0.25, 0.5, 1, 2) if self.most <= 6 * unit * part)

    @property
    def top(self) -> float:
        return (int(self.most / self.step) + 1) * self.step


@dataclass(frozen=True)
class Picture:
    """``ticks``: of the shared x axis, from left to right, with their labels; the scale runs between the outer two."""

    title: str
    about: Sequence[str]
    cases: Sequence[str]
    lines: Sequence[Line]
    rows: Sequence[Row]
    x_title: str
    ticks: Sequence[tuple[float, str]]

    @property
    def height(self) -> float:
        return TOP + len(self.rows) * PANEL_HEIGHT + (len(self.rows) - 1) * GAP + BOTTOM

    def svg(self) -> str:
        return "\n".join(self._elements()) + "\n"

    def _elements(self) -> Iterator[str]:
        size = f'width="{WIDTH}" height="{self.height:g}" viewBox="0 0 {WIDTH} {self.height:g}"'
        yield f'<svg xmlns="http://www.w3.org/2000/svg" {size} {FONT} role="img" aria-labelledby="title about">'
        yield f'<title id="title">{escape(self.title)}</title>'
        yield f'<desc id="about">{escape(" ".join(self.about))}</desc>'
        yield f'<rect width="{WIDTH}" height="{self.height:g}" rx="8" fill="{PAPER}"/>'
        yield _text(LEFT, 36, self.title, 21, weight=600)
        for number, line in enumerate(self.about):
            yield _text(LEFT, 60 + 18 * number, line, 13, colour=PALE)
        yield from self._legend()
        for number, row in enumerate(self.rows):
            top = TOP + number * (PANEL_HEIGHT + GAP)
            turned = f'<g transform="rotate(-90 24 {top + PANEL_HEIGHT / 2:g})">'
            yield turned + _text(24, top + PANEL_HEIGHT / 2, row.title, 14, anchor="middle", weight=600) + "</g>"
            for column, panel in enumerate(row.panels):
                yield from self._panel(self._left(column), top, row, panel, column)
        for column, case in enumerate(self.cases):
            yield _text(self._left(column) + self._across / 2, TOP - 16, case, 15, anchor="middle", weight=600)
        yield _text(LEFT + (WIDTH - LEFT - RIGHT) / 2, self.height - 20, self.x_title, 14, anchor="middle", weight=600)
        yield "</svg>"

    @property
    def _across(self) -> float:
        return (WIDTH - LEFT - RIGHT - BETWEEN * (len(self.cases) - 1)) / len(self.cases)

    def _left(self, column: int) -> float:
        return LEFT + column * (self._across + BETWEEN)

    def _legend(self) -> Iterator[str]:
        left, y = LEFT, TOP - 58
        for line in reversed(self.lines):
            yield _polyline([(left, y), (left + 40, y)], line)
            yield _mark(left + 20, y, line)
            yield _text(left + 52, y + 5, line.name, 14)
            left += 52 + 9 * len(line.name) + 20

    def _panel(self, left: float, top: float, row: Row, panel: Sequence[Sequence[Point]], column: int) -> Iterator[str]:
        bottom, first, last = top + PANEL_HEIGHT, self.ticks[0][0], self.ticks[-1][0]

        def place(point: Point) -> Point:
            x, y = point
            across = left + INSET + (self._across - 2 * INSET) * (x - first) / (last - first)
            return across, bottom - PANEL_HEIGHT * y / row.top

        for number in range(round(row.top / row.step) + 1):
            _, y = place((first, number * row.step))
            yield _rule(left, y, left + self._across, y, INK if number == 0 else GRID)
            if column == 0:
                yield _text(left - 10, y + 4, f"{number * row.step:,.0f}", 12, anchor="end", colour=PALE)
        for x, label in self.ticks:
            across, _ = place((x, 0))
            yield _rule(across, bottom, across, bottom + 5, INK)
            yield _text(across, bottom + 20, label, 12, anchor="middle", colour=PALE)
        for line, points in zip(self.lines, panel, strict=True):
            placed = [place(point) for point in points]
            yield _polyline(placed, line)
            for x, y in placed:
                yield _mark(x, y, line)
        yield from self._last_values(panel, place)

    def _last_values(self, panel: Sequence[Sequence[Point]], place: Place) -> Iterator[str]:
        """What each line comes to at its right end, over the upper one and under the lower one; of two that meet, one
        number."""
        ends = [(place(points[-1]), points[-1][1], line) for line, points in zip(self.lines, panel, strict=True)]
        ends.sort(key=lambda end: end[0][1])
        meet = ends[-1][0][1] - ends[0][0][1] < 8
        for number, ((x, y), value, line) in enumerate(ends[:1] if meet else ends):
            colour = INK if meet else line.colour
            below = number > 0
            yield _text(x + 5, y + (19 if below else -11), f"{value:,.0f}", 13, anchor="end", weight=600, colour=colour)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _text(
    x: float, y: float, text: str, size: float, *, anchor: str = "start", weight: int = 400, colour: str = INK
) -> str:
    place = f'x="{_number(x)}" y="{_number(y)}" font-size="{size:g}"'
    return f'<text {place} text-anchor="{anchor}" font-weight="{weight}" fill="{colour}">{escape(text)}</text>'


def _rule(x1: float, y1: float, x2: float, y2: float, colour: str) -> str:
    ends = " ".join(f'{name}="{_number(at)}"' for name, at in (("x1", x1), ("y1", y1), ("x2", x2), ("y2", y2)))
    return f'<line {ends} stroke="{colour}"/>'


def _polyline(points: Sequence[Point], line: Line) -> str:
    path = " ".join(f"{_number(x)},{_number(y)}" for x, y in points)
    look = f'stroke="{line.colour}" stroke-width="{line.width:g}" stroke-linejoin="round" stroke-linecap="round"'
    return f'<polyline points="{path}" fill="none" {look}/>'


def _mark(x: float, y: float, line: Line) -> str:
    look = f'fill="{PAPER}" stroke="{line.colour}" stroke-width="2"'
    if line.mark == "square":
        return f'<rect x="{_number(x - 4)}" y="{_number(y - 4)}" width="8" height="8" {look}/>'
    return f'<circle cx="{_number(x)}" cy="{_number(y)}" r="3.5" {look}/>'
