"""Figures say what they were given, and show texts as they are."""

import json

import numpy as np
import pytest
from scipy import sparse
from scipy.sparse import csgraph

from pgti.figures import (
    bars,
    error_by_horizon,
    graph_layout,
    heat_map,
    sensor_map,
    series_lines,
    span_bars,
    stack_figures,
    training_curves,
)
from pgti.figures.maps import thin_edges

HOSTILE = "<a href='https://x.invalid'>&amp;</a>"
ESCAPED = "&lt;a href='https://x.invalid'&gt;&amp;amp;&lt;/a&gt;"


def _grid_graph(side: int) -> sparse.csr_array:
    """Neighbors on a grid of side x side, every edge in one direction."""
    nodes = np.arange(side * side).reshape(side, side)
    pairs = [(nodes[:, :-1], nodes[:, 1:]), (nodes[:-1], nodes[1:])]
    rows = np.concatenate([a.ravel() for a, _ in pairs])
    columns = np.concatenate([b.ravel() for _, b in pairs])
    return sparse.csr_array((np.ones(len(rows)), (rows, columns)), shape=(side**2, side**2))


def test_coordinates_keep_true_proportions() -> None:
    coordinates = np.array([[60.0, 10.0], [60.0, 12.0], [60.0, 10.0], [np.nan, np.nan]])
    positions = graph_layout(sparse.csr_array((4, 4)), coordinates)
    # At 60 degrees north a degree of longitude is half as long as one of latitude.
    assert np.allclose(positions[1] - positions[0], [1.0, 0.0])
    assert np.isnan(positions[3]).all()


@pytest.mark.parametrize("side", [3, 25])  # springs, and eigenvectors
def test_layouts_of_edges_put_neighbors_together(side: int) -> None:
    graph = _grid_graph(side)
    positions = graph_layout(graph)
    assert np.array_equal(positions, graph_layout(graph))
    hops = csgraph.shortest_path(graph, directed=False)
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    far = hops > side
    assert distances[hops == 1].mean() < 0.5 * distances[far].mean()
    assert len(np.unique(positions.round(6), axis=0)) > 0.9 * len(positions)


def test_parts_without_edges_between_them_stand_apart() -> None:
    graph = sparse.csr_array((np.ones(2), ([0, 2], [1, 3])), shape=(9, 9))
    positions = graph_layout(graph)
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1) + 9 * np.eye(9)
    assert distances.min() > 0.2


def test_edges_are_drawn_once_and_the_strongest_of_many() -> None:
    edges = np.array([[0, 1, 2, 2, 0], [1, 0, 2, 3, 3]])
    assert thin_edges(edges, None, 10).T.tolist() == [[0, 1], [0, 3], [2, 3]]
    assert thin_edges(edges, [0.1, 0.5, 9, 0.2, 0.7], 2).T.tolist() == [[0, 1], [0, 3]]
    assert thin_edges(edges, None, 2).shape == (2, 2)


def test_a_map_has_every_sensor_with_its_value_and_position() -> None:
    positions = np.arange(8.0).reshape(4, 2)
    figure = sensor_map(
        positions, ["a", "b", HOSTILE, "d"], [1.0, np.nan, 3.0, 4.0],
        label="MAE in mph", edges=[[0, 1], [1, 2]],
    )  # fmt: skip
    edges, missing, sensors = figure.data
    assert [edges.name, missing.name, sensors.name] == ["edges", "no value", "sensors"]
    assert edges.x[:2].tolist() == [0, 2]
    assert np.isnan(edges.x[2])
    assert missing.customdata.tolist() == [1]
    assert sensors.customdata.tolist() == [0, 2, 3]
    assert sensors.marker.color.tolist() == [1, 3, 4]
    assert sensors.text[1] == ESCAPED
    assert sensors.marker.colorbar.title.text == "MAE in mph"
    assert figure.layout.yaxis.scaleanchor == "x"


def test_differences_have_0_in_the_middle_of_their_colors() -> None:
    figure = sensor_map(np.zeros((3, 2)), list("abc"), [-1.0, 0.0, 3.0], is_difference=True)
    marker = figure.data[-1].marker
    assert marker.cmin == -marker.cmax
    grid = heat_map([[-1.0, 4.0]], x=["a", "b"], y=["c"], label="d", is_difference=True)
    assert (grid.data[0].zmin, grid.data[0].zmax) == (-4, 4)


def test_no_text_of_a_user_is_markup() -> None:
    figures = [
        sensor_map(np.zeros((1, 2)), [HOSTILE], [1.0], label=HOSTILE, title=HOSTILE),
        series_lines([0], {HOSTILE: [1]}, label=HOSTILE, bands={HOSTILE: ([0], [2])}, x=HOSTILE),
        error_by_horizon([HOSTILE], {HOSTILE: [1]}, label=HOSTILE),
        training_curves([1], {HOSTILE: [1]}, label=HOSTILE, best=1),
        heat_map([[1]], x=[HOSTILE], y=[HOSTILE], label=HOSTILE, x_title=HOSTILE),
        bars([HOSTILE], {HOSTILE: [1]}, label=HOSTILE, x=HOSTILE),
    ]
    for figure in figures:
        text = json.dumps(json.loads(figure.to_json()))
        assert "<a" not in text
        assert json.dumps(ESCAPED)[1:-1] in text


def test_bands_are_drawn_beneath_the_lines() -> None:
    figure = series_lines(
        ["2024-01-01", "2024-01-02"],
        {"observed": [1.0, np.nan], "forecast 60 min ahead": [1.5, 2.0]},
        label="speed in mph",
        bands={"80 % interval": ([0.5, 1.0], [2.0, 3.0])},
    )
    low, high, observed, forecast = figure.data
    assert high.fill == "tonexty"
    assert low.y.tolist() == [0.5, 1.0]
    assert high.y.tolist() == [2.0, 3.0]
    assert observed.line.color != forecast.line.color
    assert figure.layout.yaxis.title.text == "speed in mph"


def test_spreads_are_drawn_around_their_line() -> None:
    figure = error_by_horizon(
        ["15 min", "30 min"], {"dcrnn": [2.0, 3.0], "persistence": [4.0, 5.0]},
        label="MAE in mph", spreads={"dcrnn": ([1.9, 2.9], [2.2, 3.3])}, first="dcrnn",
    )  # fmt: skip
    assert [trace.name for trace in figure.data] == [None, None, "dcrnn", "persistence"]
    assert figure.data[1].y.tolist() == [2.2, 3.3]


def test_stacked_panels_keep_what_each_shows_and_do_not_overlap() -> None:
    grid = heat_map([[1, 2]], x=["a", "b"], y=["c"], label="d", title=HOSTILE)
    curves = training_curves([1, 2], {"training": [3, 2], "validation": [4, 3]}, label="e", best=2)
    points = sensor_map(np.zeros((2, 2)), ["s", "t"], [1.0, 2.0], label="f")
    figure = stack_figures([grid, curves, points])
    heat, training, validation, sensors = figure.data
    assert heat.z.tolist() == [[1, 2]]
    assert (training.yaxis, validation.legend, sensors.xaxis) == ("y2", "legend2", "x3")
    assert validation.y.tolist() == [4, 3]
    assert figure.layout.yaxis3.scaleanchor == "x3"
    assert figure.layout.yaxis2.title.text == "e"
    assert figure.layout.shapes[0].xref == "x2"
    assert figure.layout.annotations[0].text == ESCAPED
    axes = [figure.layout[f"yaxis{number}"].domain for number in ("", 2, 3)]
    assert all(0 <= low < high <= 1 for low, high in axes)
    assert axes[0][0] > heat.colorbar.y > figure.layout.legend2.y > axes[1][1]
    assert axes[1][0] > axes[2][1]
    assert grid.data[0].colorbar.orientation is None  # what was stacked is left as it was


def test_long_names_leave_room_for_the_plot() -> None:
    long = "<" * 300
    for axis in (
        heat_map([[1.0]], x=["x"], y=[long], label="").layout.yaxis,
        span_bars([long], [0], [1], [""]).layout.yaxis,
    ):
        assert axis.labelalias == {"&lt;" * 300: "&lt;" * 23 + "…"}
