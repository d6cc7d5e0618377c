"""Draw the pictures of docs/how-it-works.md: `python docs/draw_pictures.py` writes docs/images.

Each has a panel of its own, so that it is legible on a light and on a dark page. The orders are
those that pgti computes.
"""

from pathlib import Path

import numpy as np

import pgti

IMAGES = Path(__file__).parent / "images"
BATCHES = ("#56b4e9", "#e69f00", "#009e73", "#cc79a7")  # Okabe and Ito
INK, FAINT, PANEL, INPUT, TARGET = "#1d2430", "#5b6472", "#f6f7f9", "#56b4e9", "#e69f00"
FONT = "font-family='system-ui, sans-serif'"


class Picture:
    """A picture that grows by elements.

    Args:
        width: in units of the picture, as everything is.
        height: likewise.
        title: what it shows, in a sentence.
    """

    def __init__(self, width: int, height: int, title: str) -> None:
        self.lines = [
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {width} {height}' "
            f"role='img' {FONT}>",
            f"<title>{title}</title>",
            f"<rect width='{width}' height='{height}' rx='10' fill='{PANEL}'/>",
        ]

    def box(self, x: float, y: float, width: float, fill: str, *, height: float = 20) -> None:
        """A cell or a range."""
        self.lines.append(
            f"<rect x='{x:g}' y='{y:g}' width='{width:g}' height='{height:g}' rx='2' fill='{fill}' "
            f"stroke='{PANEL}'/>"
        )

    def text(
        self,
        x: float,
        y: float,
        words: str,
        *,
        size: int = 14,
        fill: str = INK,
        anchor: str = "start",
        weight: str = "normal",
    ) -> None:
        """A line of text."""
        self.lines.append(
            f"<text x='{x:g}' y='{y:g}' font-size='{size}' fill='{fill}' text-anchor='{anchor}' "
            f"font-weight='{weight}'>{words}</text>"
        )

    def save(self, name: str) -> None:
        """Write it."""
        text = "\n".join([*self.lines, "</svg>"]) + "\n"
        (IMAGES / f"{name}.svg").write_text(text, encoding="utf-8")


def draw_windows() -> None:
    """Materialised windows beside starts."""
    steps, inputs, horizon, cell = 16, 4, 3, 20
    picture = Picture(760, 400, "Windows as copies, and windows as starts into one series")
    left, right = 30, 410
    for x, head in (
        (left, "Standard: every window is stored"),
        (right, "Index: the start is stored"),
    ):
        picture.text(x, 36, head, size=16, weight="bold")
    picture.text(left, 62, f"the series, {steps} time steps", fill=FAINT)
    picture.text(right, 62, "the series, once, mapped from the disk", fill=FAINT)
    for step in range(steps):
        for x in (left, right):
            picture.box(x + step * cell, 72, cell, "#9aa4b2")
            picture.text(x + step * cell + cell / 2, 86, str(step), size=10, anchor="middle")
    starts = range(0, steps - inputs - horizon + 1, 2)
    for row, start in enumerate(starts):
        y = 112 + row * 34
        picture.text(right + 4, y + 15, str(start), size=13, weight="bold")
        for step in range(inputs + horizon):
            fill = INPUT if step < inputs else TARGET
            picture.box(left + (start + step) * cell, y, cell, fill)
            picture.text(
                left + (start + step) * cell + cell / 2, y + 14, str(start + step), size=10,
                anchor="middle",
            )  # fmt: skip
        if row == 2:
            for first, length, fill in ((start, inputs, INPUT), (start + inputs, horizon, TARGET)):
                picture.box(right + first * cell, 94, length * cell, fill, height=7)
            picture.text(
                right + 40, y + 15, "the batch gathers rows 4 to 10 when it is built", size=13
            )
    bottom = 112 + len(starts) * 34 + 24
    picture.box(left, bottom - 12, 14, INPUT, height=14)
    picture.text(left + 20, bottom, "inputs")
    picture.box(left + 90, bottom - 12, 14, TARGET, height=14)
    picture.text(left + 110, bottom, "steps to forecast")
    picture.text(left, bottom + 34, "With 12 + 12 steps each reading is stored 24 times:", size=13)
    picture.text(left, bottom + 52, "a year of California takes 419 GiB.", size=13)
    picture.text(right, bottom + 34, "An integer for each window:", size=13)
    picture.text(right, bottom + 52, "a year of California is a file of 2.3 GB.", size=13)
    picture.save("windows")


def draw_orders() -> None:
    """In which batch of an epoch each window is, by order."""
    count, size, cell = 32, 8, 20
    orders = {
        "Sequential": ("time order, for evaluation", pgti.Sequential()),
        "global": ("all windows shuffled: the default", pgti.GlobalShuffle(seed=3)),
        "blocks": (
            "blocks of 4 shuffled: fewer rows to read",
            pgti.BlockShuffle(seed=3, block_size=4),
        ),
        "partitions": (
            "blocks of 2 from each of 4 parts in every batch",
            pgti.PartitionShuffle(seed=3, partitions=4, block_size=2),
        ),
    }
    picture = Picture(760, 340, "The batch of each window in four orders")
    picture.text(
        30,
        36,
        "32 windows in time order, colored by their batch in an epoch",
        size=16,
        weight="bold",
    )
    for row, (name, (words, order)) in enumerate(orders.items()):
        y = 78 + row * 58
        picture.text(30, y - 8, f"<tspan font-weight='bold'>{name}</tspan>: {words}")
        batch_of = np.empty(count, dtype=int)
        batch_of[order.epoch(count, 0)] = np.arange(count) // size
        for window, batch in enumerate(batch_of):
            x = 30 + window * (cell + 1.5)
            picture.box(x, y, cell, BATCHES[batch], height=24)
            picture.text(x + cell / 2, y + 16, str(batch + 1), size=12, anchor="middle")
    y = 78 + len(orders) * 58 + 8
    for batch, fill in enumerate(BATCHES):
        picture.box(30 + batch * 100, y - 12, 14, fill, height=14)
        picture.text(50 + batch * 100, y, f"batch {batch + 1}")
    picture.save("orders")


def draw_placements() -> None:
    """Which rows each rank holds."""
    picture = Picture(760, 370, "Replicated and partitioned placement of the rows on four ranks")
    ranks, width, reach = 4, 660, 22
    part = width / ranks
    picture.text(50, 36, "Replicated: ranks of a machine map the same file", size=16, weight="bold")
    picture.box(50, 48, width, "#9aa4b2", height=26)
    picture.text(50 + width / 2, 66, "the series, one copy in the page cache", anchor="middle")
    for rank in range(ranks):
        x = 50 + width * (rank + 0.5) / ranks
        picture.lines.append(f"<path d='M{x:g} 78 V100' stroke='{FAINT}' stroke-width='2'/>")
        picture.box(x - 40, 102, 80, BATCHES[rank], height=26)
        picture.text(x, 120, f"rank {rank}", anchor="middle")
    picture.text(50, 150, "Every rank reads any window. No row is sent.", size=13, fill=FAINT)
    picture.text(50, 196, "Partitioned: a rank holds a range of time", size=16, weight="bold")
    for rank in range(ranks):
        y, x = 210 + rank * 30, 50 + rank * part
        picture.box(50, y, width, "#e3e6ea", height=24)
        picture.box(x, y, part, BATCHES[rank], height=24)
        picture.text(x + part / 2, y + 17, f"rank {rank}", anchor="middle")
        if rank + 1 < ranks:
            picture.box(x + part, y, reach, INK, height=24)
    picture.box(50, 338, 14, INK, height=14)
    picture.text(72, 350, "the rows that its last windows reach into", size=13, fill=FAINT)
    picture.save("placements")


if __name__ == "__main__":
    draw_windows()
    draw_orders()
    draw_placements()
