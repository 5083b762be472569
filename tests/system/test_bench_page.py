"""The page of latchkey-bench, rendered by a browser in light and in dark."""

from __future__ import annotations

import html
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest

from harness import child
from harness.folder import TemporaryFolder
from harness.programs import program, sanitized
from harness.wait import scaled, until

# Reports the position and the colour of every element, once the browser has laid the page out.
MEASURE = """
<script>
addEventListener("load", () => {
  const box = (element) => {
    const {left, top, right, bottom} = element.getBoundingClientRect();
    return [left, top, right, bottom];
  };
  const facts = {
    dark: matchMedia("(prefers-color-scheme: dark)").matches,
    paper: getComputedStyle(document.body).backgroundColor,
    width: [document.documentElement.scrollWidth, innerWidth],
    plots: [...document.querySelectorAll("svg")].map((svg) => ({
      box: box(svg),
      texts: [...svg.querySelectorAll("text")].map((text) => ({
        text: text.textContent, kind: text.getAttribute("class"), box: box(text),
        ink: getComputedStyle(text).fill,
      })),
      lines: [...svg.querySelectorAll("polyline")].map((line) => ({
        box: box(line), points: line.points.length, ink: getComputedStyle(line).stroke,
      })),
      bars: [...svg.querySelectorAll("rect")].map((bar) => ({
        box: box(bar), ink: getComputedStyle(bar).fill,
      })),
    })),
  };
  const told = document.createElement("pre");
  told.id = "facts";
  told.textContent = JSON.stringify(facts);
  document.body.append(told);
});
</script>
"""

Box = list[float]


def shown(page: Path, *, dark: bool) -> dict[str, Any]:
    """The browser's report on the page."""
    scheme = 0 if dark else 1  # blink::mojom::PreferredColorScheme
    with_question = page.with_suffix(".asked.html")
    with_question.write_text(page.read_text().replace("</body>", MEASURE + "</body>"))
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
               f"--user-data-dir={page.parent}/browser", "--window-size=1000,1200",
               f"--blink-settings=preferredColorScheme={scheme}",
               with_question.as_uri()]  # fmt: skip
    printed = child.run(command, timeout_s=scaled(120)).expect(0).stdout
    found = re.search(r'<pre id="facts">(.*?)</pre>', printed, re.DOTALL)
    assert found, printed[-2000:]
    return dict(json.loads(html.unescape(found[1])))


@pytest.fixture(scope="module")
def page() -> Iterator[Path]:
    """The page of two measurements of the floor, which needs no database."""
    if sanitized():
        pytest.skip("a browser sees the same page")
    folder = TemporaryFolder()
    socket = folder.path / "echo.sock"
    bench = str(program("latchkey-bench"))
    echo = subprocess.Popen([bench, "echo", "--socket", str(socket)])
    try:
        until(socket.exists, 10, "the echo serves")
        for depth in (1, 8):
            child.run(
                [bench, "run", "--socket", str(socket), "--protocol", "echo", "--generate", "100",
                 "--duration", "1s", "--warm-up", "100ms", "--depth", str(depth),
                 "--title", f"the floor & <depth> {depth}",
                 "--json", str(folder.path / f"{depth}.json")],  # fmt: skip
            ).expect(0)
    finally:
        echo.send_signal(signal.SIGTERM)
        assert echo.wait(scaled(10)) == 0
    made = folder.path / "page.html"
    reports = [str(folder.path / f"{depth}.json") for depth in (1, 8)]
    child.run([bench, "report", *reports, "--html", str(made)]).expect(0)
    yield made
    folder.close()


def luminance(colour: str) -> float:
    """WCAG 2.1: the relative luminance of "rgb(r, g, b)"."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    """WCAG 2.1: the contrast ratio, from 1 (none) to 21 (black on white)."""
    bright, dim = sorted((luminance(one), luminance(other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_can_be_read(page: Path, dark: bool) -> None:
    facts = shown(page, dark=dark)
    assert facts["dark"] == dark
    assert (luminance(facts["paper"]) < 0.1) == dark
    assert facts["width"][0] <= facts["width"][1], "it must not have to be scrolled sideways"
    titles = [plot["texts"][0]["text"] for plot in facts["plots"]]
    assert titles == [
        "Throughput: more is better (keys a second)",
        "99th percentile of latency: less is better (µs)",
        "Throughput over time",
        "Latency by percentile",
    ]
    for title, plot in zip(titles, facts["plots"]):
        for text in plot["texts"]:
            left, top, right, bottom = text["box"]
            inside = plot["box"]
            assert inside[0] <= left and right <= inside[2], f"{title}: {text} is cut off"
            assert inside[1] <= top and bottom <= inside[3], f"{title}: {text} is cut off"
            assert contrast(text["ink"], facts["paper"]) >= 4.5, f"{title}: {text} is faint"
        for one, other in combinations(plot["texts"], 2):
            assert not overlap(one["box"], other["box"]), f"{title}: {one} on {other}"
        drawn = plot["lines"] or plot["bars"]
        assert len(drawn) == 2, title
        assert drawn[0]["ink"] != drawn[1]["ink"], f"{title}: cannot be told apart"
        for mark in drawn:
            assert contrast(mark["ink"], facts["paper"]) >= 3, f"{title}: {mark} is faint"
            assert mark["box"][2] - mark["box"][0] > 20, f"{title}: {mark} is nothing"


def test_axes_are_labelled_with_units(page: Path) -> None:
    plots = shown(page, dark=False)["plots"]
    labels = [[text["text"] for text in plot["texts"] if text["kind"] == "axis"] for plot in plots]
    assert labels[2:] == [["time, s", "keys a second"], ["percentile of requests", "latency, µs"]]
    ticks = [text["text"] for text in plots[3]["texts"] if text["kind"] == "tick"]
    assert {"90 %", "99 %", "99.9 %"} <= set(ticks), "each further nine has as much room"
    legends = [text["text"] for text in plots[3]["texts"] if text["kind"] == "legend"]
    assert legends == ["the floor & <depth> 1", "the floor & <depth> 8"]
