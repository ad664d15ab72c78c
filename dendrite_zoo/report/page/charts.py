"""Charts of a page as Vega-Lite has them: data and what is drawn of them, without a library.

Colours that are no data are variables of the page's style sheet, so that they follow the reader's dark or light.
"""

from collections.abc import Mapping, Sequence
from typing import Any

Spec = dict[str, Any]
Columns = dict[str, list[Any]]

FIRST, SECOND, CHOSEN, FAINT, INK = "var(--first)", "var(--second)", "var(--chosen)", "var(--faint)", "var(--ink)"
SERIES = [FIRST, SECOND, CHOSEN, "var(--fourth)"]
NAMED = "names[datum.value]"
MOST_NUMBERS = 12  # tasks whose cells are wide enough for a number, also on a phone


def _by_width(narrow: int, wide: int) -> Spec:
    """A number by the width of the reader's window."""
    return {"expr": f"containerSize()[0] < 500 ? {narrow} : {wide}"}


CONFIG: Spec = {
    "background": None,
    "font": "system-ui, sans-serif",
    "view": {"stroke": None},
    "axis": {
        **{"labelColor": INK, "titleColor": INK, "gridColor": FAINT, "domainColor": FAINT, "tickColor": FAINT},
        **{"labelLimit": _by_width(110, 260), "labelOverlap": True, "labelSeparation": 4, "titleFontWeight": "normal"},
    },
    "axisQuantitative": {"tickCount": _by_width(5, 10)},
    "legend": {
        **{"labelColor": INK, "titleColor": INK, "titleFontWeight": "normal", "titleLimit": 300},
        **{"orient": "top", "columns": _by_width(2, 4)},
    },
    "title": {"color": INK, "anchor": "start", "fontWeight": "normal", "fontSize": 12},
}


def heat_map(names: Sequence[str], rows: Sequence[str], low: float, high: float, metric: str, mode: str) -> Spec:
    """The accuracy matrix: columns ``t`` are tasks, rows ``a`` say after which; ``v`` is None where not measured.

    Cells of a task that was not yet learned (``early``) are faint. The column of the task ``chosen`` has a border.
    """
    reverse = mode == "min"
    colour = {"field": "v", "type": "quantitative", "title": metric + " (less is better)" * reverse, "legend": {}}
    colour["scale"] = {"scheme": "viridis", "domain": [low, high], "reverse": reverse}
    tooltip = [
        {"field": "task", "title": "task"},
        {"field": "row", "title": "after"},
        {"field": "said", "title": metric},
    ]
    cells: Spec = {
        "mark": {"type": "rect", "strokeWidth": 1.5},
        "encoding": {
            "color": {"condition": {"test": "datum.v !== null", **colour}, "value": "var(--blank)"},
            "opacity": {"condition": {"test": "datum.early", "value": 0.35}, "value": 1},
            "stroke": {"condition": {"test": "datum.t === chosen", "value": CHOSEN}, "value": None},
            "tooltip": tooltip,
        },
    }
    light = f"(datum.v - {low}) / {(high - low) or 1} {'<' if reverse else '>'} 0.6"
    through = {"test": "datum.early || datum.v === null", "value": INK}  # the page's background shows
    numbers: Spec = {
        "mark": {"type": "text", "fontSize": 10},
        "encoding": {
            "text": {"field": "short"},
            "color": {"condition": [through, {"test": light, "value": "black"}], "value": "white"},
            "tooltip": tooltip,
        },
    }
    return {
        "params": [{"name": "names", "value": list(names)}, {"name": "rows", "value": list(rows)}, _chosen()],
        "transform": [
            {"calculate": NAMED.replace("value", "t"), "as": "task"},
            {"calculate": "rows[datum.a]", "as": "row"},
        ],
        "height": _height(len(rows)),
        "encoding": {
            "x": _ordinal("t", "task", NAMED, -90 if max(map(len, names)) > 4 else 0),
            "y": _ordinal("a", "after task", "rows[datum.value]"),
        },
        "layer": [cells, numbers] if len(names) <= MOST_NUMBERS else [cells],
    }


def one_task(names: Sequence[str], rows: Sequence[str], metric: str) -> Spec:
    """A column of the matrix: the task ``chosen`` after each task was learned."""
    encoding = {
        "x": {**_ordinal("a", "after task", "rows[datum.value]", -90 if max(map(len, rows)) > 4 else 0)},
        "y": {"field": "v", "type": "quantitative", "title": metric, "scale": {"zero": False}},
        "opacity": {"condition": {"test": "datum.early", "value": 0.35}, "value": 1},
        "tooltip": [{"field": "row", "title": "after"}, {"field": "said", "title": metric}],
    }
    return {
        "params": [{"name": "names", "value": list(names)}, {"name": "rows", "value": list(rows)}, _chosen()],
        "title": {"text": {"expr": "'task ' + names[max(chosen, 0)]"}},
        "transform": [
            {"filter": "datum.t === max(chosen, 0) && datum.v !== null"},
            {"calculate": "rows[datum.a]", "as": "row"},
        ],
        "height": 180,
        "mark": {"type": "line", "point": {"size": 45, "fill": CHOSEN, "stroke": None}, "stroke": CHOSEN},
        "encoding": encoding,
    }


def lines(x: str, y: str, series: Sequence[str], zero: bool = True) -> Spec:
    """Values ``v`` over a number ``n``, which has a ``label``: a line for each of the series ``s``."""
    scale = {"domain": list(series), "range": SERIES[: len(series)]}
    return {
        "height": 220,
        "mark": {"type": "line", "point": {"size": 40}},
        "encoding": {
            "x": {"field": "n", "type": "quantitative", "title": x, "axis": {"grid": False, "tickMinStep": 1}},
            "y": {"field": "v", "type": "quantitative", "title": y, "scale": {"zero": zero}},
            "color": {"field": "s", "type": "nominal", "title": None, "scale": scale},
            "tooltip": [
                {"field": "s", "title": " "},
                {"field": "label", "title": x},
                {"field": "said", "title": "value"},
            ],
        },
    }


def dots(names: Sequence[str], series: Sequence[str], title: str, zero: bool) -> Spec:
    """Values ``v`` of named things ``n``, a dot for each of the series ``s``; from ``zero`` on or from the least."""
    scale = {"domain": list(series), "range": SERIES[: len(series)]}
    x = {"field": "v", "type": "quantitative", "title": title, "scale": {"zero": zero}}
    return {
        "params": [{"name": "names", "value": list(names)}],
        "transform": [{"calculate": "names[datum.n]", "as": "name"}],
        "height": 22 * len(names),
        "mark": {"type": "point", "filled": True, "size": 80, "opacity": 0.9},
        "encoding": {
            "y": {**_ordinal("n", None, NAMED), "axis": {"grid": True, "labelExpr": NAMED, "labelOverlap": True}},
            "x": x,
            "color": {"field": "s", "type": "nominal", "title": None, "scale": scale},
            "shape": {"field": "s", "type": "nominal", "title": None, "scale": {"domain": list(series)}},
            "tooltip": [
                {"field": "name", "title": " "},
                {"field": "s", "title": "of"},
                {"field": "said", "title": "value"},
            ],
        },
    }


def winners(names: Sequence[str], tasks: int) -> Spec:
    """Units ``u`` of a layer ``l`` by some tasks ``t``: the share ``v`` of a task's inputs that a unit was active for.

    Where a task is ``chosen``, the others are faint.
    """
    return {
        "params": [{"name": "names", "value": list(names)}, _chosen(), {"name": "layer", "value": 0}],
        "transform": [{"filter": "datum.l === layer"}, {"calculate": "names[datum.t]", "as": "task"}],
        "height": _height(tasks),
        "mark": "rect",
        "encoding": {
            "x": {
                **{"field": "u", "type": "ordinal", "title": "units, ordered by task"},
                "axis": {"labels": False, "ticks": False, "domain": False},
            },
            "y": _ordinal("t", None, NAMED),
            "color": {
                **{
                    "field": "v",
                    "type": "quantitative",
                    "title": "share of inputs",
                },
                "scale": {"scheme": "viridis", "domain": [0, 1]},
            },
            "opacity": {"condition": {"test": "chosen < 0 || datum.t === chosen", "value": 1}, "value": 0.25},
            "tooltip": [
                {"field": "task", "title": "task"},
                {"field": "unit", "title": "unit"},
                {"field": "said", "title": "active for a share of"},
            ],
        },
    }


def overlaps(names: Sequence[str], tasks: int) -> Spec:
    """The share ``v`` of active units that the ``chosen`` task ``t`` has in common with each ``o``, by layer ``l``."""
    shared: Spec = {
        "mark": {"type": "bar"},
        "encoding": {
            "y": _ordinal("o", None, NAMED),
            "x": {
                **{"field": "v", "type": "quantitative", "title": "share of active units in common"},
                "scale": {"domainMin": 0},
            },
            "color": {"condition": {"test": "datum.o === datum.t", "value": CHOSEN}, "value": FIRST},
            "tooltip": [{"field": "other", "title": "with"}, {"field": "said", "title": "in common"}],
        },
    }
    by_chance = {
        "mark": {"type": "rule", "stroke": INK, "strokeDash": [4, 3]},
        "encoding": {"x": {"aggregate": "mean", "field": "chance", "type": "quantitative"}},
    }
    return {
        "params": [{"name": "names", "value": list(names)}, _chosen(), {"name": "layer", "value": 0}],
        "title": {"text": {"expr": "'task ' + names[max(chosen, 0)]"}},
        "transform": [
            {"filter": "datum.l === layer && datum.t === max(chosen, 0)"},
            {"calculate": "names[datum.o]", "as": "other"},
        ],
        "height": _height(tasks),
        "layer": [shared, by_chance],
    }


def curves(names: Sequence[str], x: str, y: str) -> Spec:
    """Values ``v`` of tasks ``t`` over ``x``; -1 is their mean. The task ``chosen`` and the mean stand out."""
    is_mean, is_chosen = {"test": "datum.t < 0", "value": FIRST}, {"test": "datum.t === chosen", "value": CHOSEN}
    stands_out = {"condition": {"test": "datum.t < 0 || datum.t === chosen", "value": 2.5}, "value": 1}
    encoding = {
        "x": {"field": "x", "type": "quantitative", "title": x, "axis": {"grid": False, "format": "~s"}},
        "y": {"field": "v", "type": "quantitative", "title": y},
        "detail": {"field": "t"},
        "color": {"condition": [is_mean, is_chosen], "value": "var(--quiet)"},
        "tooltip": [{"field": "task", "title": "task"}, {"field": "x", "title": x}, {"field": "said", "title": y}],
    }
    return {
        "params": [{"name": "names", "value": list(names)}, _chosen()],
        "transform": [{"calculate": "datum.t < 0 ? 'mean' : names[datum.t]", "as": "task"}],
        "height": 240,
        "encoding": encoding,
        "layer": [
            {"mark": {"type": "line"}, "encoding": {"strokeWidth": stands_out}},
            {"mark": {"type": "point", "filled": True, "size": 30, "opacity": 0.5}},
        ],
    }


def _ordinal(field: str, title: str | None, label: str, angle: int = 0) -> Spec:
    axis: Spec = {"labelExpr": label, "labelOverlap": True, "labelAngle": angle, "ticks": False, "domain": False}
    return {"field": field, "type": "ordinal", "title": title, "axis": axis}


def _height(rows: int) -> int:
    """Of so many rows: high enough for a finger where they are few."""
    return rows * (22 if rows <= 24 else 9)


def _chosen() -> Spec:
    """The task that the reader has chosen, -1 for none; the page sets it."""
    return {"name": "chosen", "value": -1}


def columns(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Rows with the same keys as a column for each of them, which takes a third of the space.

    Example:
        >>> columns([{"x": 1, "v": 0.5}, {"x": 2, "v": None}])
        {'x': [1, 2], 'v': [0.5, None]}
    """
    return {name: [row[name] for row in rows] for name in rows[0]} if rows else {}
