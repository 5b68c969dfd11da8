# SPDX-License-Identifier: Apache-2.0
"""Tables in Markdown, plots in SVG, lines for bench/run.sh."""
import html
import math
import os

COLOURS = ["#3b6fb6", "#d0743c", "#4c9a62", "#9a5aa8", "#8a6d3b", "#5f6b7a"]


def geomean(values):
    values = list(values)
    if not values or min(values) <= 0:
        return float("nan")
    return math.exp(sum(math.log(v) for v in values) / len(values))


def figure(value):
    if value is None or math.isnan(value):
        return "–"
    return "%.3g" % value if value < 100 else "%.0f" % value


def table(head, rows):
    """Markdown; numbers are set short, text as it is."""
    cells = [[c if isinstance(c, str) else figure(c) for c in row]
             for row in rows]
    lines = ["| %s |" % " | ".join(head),
             "|%s|" % "|".join(["---"] + ["---:"] * (len(head) - 1))]
    return "\n".join(lines + ["| %s |" % " | ".join(c) for c in cells])


def bench(name, value, unit="x"):
    print("BENCH paper.%s %.4g %s" % (name.replace(" ", "_"), value, unit),
          flush=True)


class Svg:
    """A plot area with axes; y begins at 0 or is logarithmic."""

    WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 900, 430, 130, 170, 40, 120

    def __init__(self, title, label, top, log=False, bottom=0.0):
        self.parts = []
        self.log, self.top = log, top
        self.bottom = bottom if not log else max(bottom, 1e-12)
        self.text(self.LEFT, 22, title, size=15)
        self.text(80, self.y(bottom), label, turn=True, anchor="start")
        for tick in self.ticks():
            y = self.y(tick)
            self.line(self.LEFT, y, self.WIDTH - self.RIGHT, y, "#dddddd")
            self.text(self.LEFT - 6, y + 4, "%g" % tick, anchor="end")

    def ticks(self):
        if self.log:
            low = math.floor(math.log10(self.bottom))
            return [10.0 ** e for e in
                    range(low, math.ceil(math.log10(self.top)) + 1)
                    if self.bottom <= 10.0 ** e <= self.top]
        step = 10 ** math.floor(math.log10(self.top))
        while self.top / step < 4:
            step /= 2
        return [i * step for i in range(int(self.top / step) + 1)]

    def y(self, value):
        span = self.HEIGHT - self.TOP - self.BOTTOM
        if self.log:
            value = max(value, self.bottom)
            share = (math.log(value / self.bottom) /
                     math.log(self.top / self.bottom))
        else:
            share = value / self.top
        return self.HEIGHT - self.BOTTOM - span * min(share, 1)

    def x(self, share):
        return self.LEFT + share * (self.WIDTH - self.LEFT - self.RIGHT)

    def line(self, x1, y1, x2, y2, colour, width=1, dash=""):
        self.parts.append(
            '<line x1="%.1f" y1="%.1f" x2="%.1f" y2="%.1f" stroke="%s" '
            'stroke-width="%g"%s/>' % (x1, y1, x2, y2, colour, width,
            ' stroke-dasharray="%s"' % dash if dash else ""))

    def text(self, x, y, text, size=12, anchor="start", turn=False, tilt=0):
        angle = -90 if turn else tilt
        spin = ' transform="rotate(%d %.1f %.1f)"' % (angle, x, y)
        self.parts.append(
            '<text x="%.1f" y="%.1f" font-size="%d" text-anchor="%s"%s>%s'
            '</text>' % (x, y, size, anchor, spin if angle else "",
                         html.escape(text)))

    def legend(self, names):
        for i, name in enumerate(names):
            y = self.TOP + 18 * i
            x = self.WIDTH - self.RIGHT + 12
            self.parts.append('<rect x="%d" y="%d" width="12" height="12" '
                              'fill="%s"/>' % (x, y, COLOURS[i % 6]))
            self.text(x + 18, y + 11, name)

    def save(self, path):
        with open(path, "w", encoding="utf-8") as file:
            file.write('<svg xmlns="http://www.w3.org/2000/svg" width="%d" '
                       'height="%d" font-family="sans-serif">\n<rect '
                       'width="100%%" height="100%%" fill="#ffffff"/>\n%s\n'
                       '</svg>\n' % (self.WIDTH, self.HEIGHT,
                                     "\n".join(self.parts)))


def bars(path, title, label, groups, series):
    """series: {name: [value of each group]}; a line marks 1."""
    top = 1.1 * max([1] + [v for values in series.values() for v in values
                           if not math.isnan(v)])
    plot = Svg(title, label, top)
    width = 0.8 / len(groups) / len(series)
    for i, (_, values) in enumerate(series.items()):
        for g, value in enumerate(values):
            if math.isnan(value):
                continue
            left = plot.x((g + 0.1) / len(groups) + i * width)
            right = plot.x((g + 0.1) / len(groups) + (i + 1) * width)
            plot.parts.append(
                '<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" '
                'fill="%s"/>' % (left, plot.y(value), right - left,
                                 plot.y(0) - plot.y(value), COLOURS[i % 6]))
    for g, name in enumerate(groups):
        plot.text(plot.x((g + 0.5) / len(groups)), plot.y(0) + 14, name,
                  size=11, anchor="end", tilt=-30)
    plot.line(plot.x(0), plot.y(1), plot.x(1), plot.y(1), "#222222", 1, "4 3")
    plot.legend(list(series))
    plot.save(path)


def lines(path, title, label, points, series, log=False):
    """series: {name: [value of each point]}, points evenly apart."""
    values = [v for s in series.values() for v in s if not math.isnan(v)]
    plot = Svg(title, label, 1.2 * max(values), log, 0.8 * min(values))
    for i, (_, line) in enumerate(series.items()):
        at = [(plot.x((p + 0.5) / len(points)), plot.y(v))
              for p, v in enumerate(line) if not math.isnan(v)]
        plot.parts.append(
            '<polyline fill="none" stroke="%s" stroke-width="2" points="%s"/>'
            % (COLOURS[i % 6], " ".join("%.1f,%.1f" % xy for xy in at)))
    for p, name in enumerate(points):
        plot.text(plot.x((p + 0.5) / len(points)),
                  plot.HEIGHT - plot.BOTTOM + 16, name, size=11,
                  anchor="middle")
    if not log:
        plot.line(plot.x(0), plot.y(1), plot.x(1), plot.y(1), "#222222", 1,
                  "4 3")
    plot.legend(list(series))
    plot.save(path)


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text.rstrip() + "\n")
