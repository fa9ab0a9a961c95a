"""The charts of a report, as Vega-Lite: each filters a named table by what the page's choosers say.

A chart's signals are the page's state: ``waist``, ``estimator``, ``split``, ``run``, ``variant``, ``layers``,
``epoch``, ``mean`` (whether the run is the mean of all), and ``hovered``, the layer that the pointer is on.
"""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import altair as alt

if TYPE_CHECKING:
    from ibstore.analyze.report.contents import Contents

Spec = dict[str, Any]
Time = dict[str, Any]
Look = dict[str, Any]
"""Scale and axis of epochs; how lines look."""

STATE: Final[dict[str, Any]] = {
    **dict.fromkeys(("waist", "estimator", "split", "run", "variant", "hovered"), ""),
    "layers": [],
    "epoch": 0,
    "mean": False,
}
OF_PLANE: Final = (
    "datum.waist == waist && datum.estimator == estimator && datum.split == split && datum.run == run"
    " && indexof(layers, datum.layer) >= 0"
)
OF_RUN: Final = "(mean || datum.run == run)"
"""Rows of what has no mean over the runs: all, where the mean is chosen."""

UNHOVERED: Final = "hovered != '' && hovered != datum.layer"
SIZE: Final = "(datum.epoch == epoch ? 320 : 60) * pow(0.4, indexof(layers, datum.layer) / max(1, length(layers) - 1))"
"""The later the layer the smaller its dots: of those in one place all are seen."""

CURVES: Final = {"h_t": "H(T)", "i_xt": "I(X;T)", "i_ty": "I(T;Y)", "ib": "I(X;T) − β·I(T;Y)"}
DYNAMICS: Final = {
    "gradient_mean": "norm of the mean gradient",
    "gradient_std": "norm of its deviation",
    "snr": "signal to noise",
    "weight_norm": "norm of the weights",
}
UNEVEN: Final = 10
"""How much longer the longest step between epochs is than the shortest, for an axis to be logarithmic."""

FEW: Final = 4
"""Epochs that all are named on the axis."""

HEIGHT: Final = 220
PLANE_HEIGHT: Final = 420


def charts(page: "Contents") -> dict[str, list[Spec]]:
    """Charts of each section; a section without anything to draw has none."""
    time = _time(page.choices("epoch"))
    look = _look(len(page.tables["runs"]))
    plane = page.tables["plane"]
    curves = {name: title for name, title in CURVES.items() if plane[name].is_not_null().any()}
    metrics = [name for name in page.tables["epochs"].columns if name not in {"run", "epoch", "step", "split"}]
    moved = {name: title for name, title in DYNAMICS.items() if page.tables["dynamics"][name].is_not_null().any()}
    known = [name for name in metrics if page.tables["epochs"][name].is_not_null().any()]
    return {
        "plane": [_plane(page)] if plane["i_ty"].is_not_null().any() else [],
        "curves": [_curve(page, name, title, time) for name, title in curves.items()],
        "training": [_metric(name, time, look) for name in known],
        "dynamics": [_norm(page, name, title, look) for name, title in moved.items()],
    }


def _plane(page: "Contents") -> Spec:
    """Paths of the layers; epochs that are still to come are faint, the chosen one is large."""
    kept = alt.Chart(alt.NamedData("plane")).transform_filter(OF_PLANE)
    roomy = alt.Scale(zero=True, nice=False, padding=14)  # so that dots at the limits are whole
    x = alt.X("i_xt:Q", title=f"I(X;T) [{page.unit}]", scale=roomy)
    y = alt.Y("i_ty:Q", title=f"I(T;Y) [{page.unit}]", scale=roomy)
    bars = [
        kept.transform_filter(f"datum.epoch == epoch && isValid(datum.{name}_low)")
        .mark_rule(strokeWidth=1.2, opacity=0.7)
        .encode(**ends, color=_colour(page))
        for name, ends in (
            ("i_xt", {"x": alt.X("i_xt_low:Q"), "x2": alt.X2("i_xt_high:Q"), "y": y}),
            ("i_ty", {"y": alt.Y("i_ty_low:Q"), "y2": alt.Y2("i_ty_high:Q"), "x": x}),
        )
        if page.tables["plane"][f"{name}_low"].is_not_null().any()
    ]
    path = kept.mark_line(strokeWidth=1.2).encode(
        x=x, y=y, color=_colour(page), order="epoch:Q", opacity=_when(UNHOVERED, 0.08, 0.4)
    )
    points = (
        kept.transform_calculate(size=SIZE)
        .mark_circle(stroke="white", strokeWidth=0.6)
        .encode(
            x=x,
            y=y,
            color=_colour(page),
            size=alt.Size("size:Q", scale=None),
            opacity=_when(f"datum.epoch > epoch || ({UNHOVERED})", 0.12, 0.85),
            order="epoch:Q",
            tooltip=_tooltip("h_t", "i_xt", "i_ty", "n", "distinct_t", "saturated"),
        )
    )
    zoom = alt.selection_interval(bind="scales", zoom="wheel![event.shiftKey]", name="zoomed")
    chart = alt.layer(*_limits(kept), path, *bars, points.add_params(zoom))
    return _spec(_told(chart), "The information plane: I(T;Y) over I(X;T), a path a layer", PLANE_HEIGHT)


def _limits(kept: alt.Chart) -> list[alt.Chart]:
    """Dashed lines at H(X), log N and H(Y), with their names."""
    drawn = []
    places: dict[str, tuple[str, str, Any]] = {
        "h_x": ("H(X)", "x", {"align": "right", "dx": -4, "y": PLANE_HEIGHT - 24}),
        "ceiling": ("log N", "x", {"align": "right", "dx": -4, "y": PLANE_HEIGHT - 10}),
        "h_y": ("H(Y)", "y", {"align": "left", "dx": 4, "dy": -7, "x": 0}),
    }
    for column, (name, channel, place) in places.items():
        value = kept.transform_aggregate([alt.AggregatedFieldDef(op="max", field=column, **{"as": f"most_{column}"})])
        where = {channel: alt.X(f"most_{column}:Q") if channel == "x" else alt.Y(f"most_{column}:Q")}
        drawn.append(value.mark_rule(strokeDash=[4, 3], opacity=0.6).encode(**where))
        drawn.append(value.mark_text(baseline="middle", text=name, **place).encode(**where))
    return drawn


def _curve(page: "Contents", name: str, title: str, time: Time) -> Spec:
    """A quantity against the epoch; a click on a point chooses its epoch."""
    kept = alt.Chart(alt.NamedData("plane")).transform_filter(OF_PLANE)
    encoded: dict[str, Any] = {
        "x": alt.X("epoch:Q", title="epoch", **time),
        "y": alt.Y(f"{name}:Q", title=f"{title} [{page.unit}]"),
        "color": _colour(page),
        "opacity": _when(UNHOVERED, 0.15, 1.0),
    }
    line = kept.mark_line(strokeWidth=1.8).encode(**encoded)
    points = kept.mark_circle(cursor="pointer").encode(
        **encoded, size=_when("datum.epoch == epoch", 120, 25), tooltip=_tooltip(name, "saturated")
    )
    return _spec(_told(alt.layer(_now(time), line, points)), f"{title} against the epoch, a line a layer", HEIGHT)


def _metric(name: str, time: Time, look: Look) -> Spec:
    """A metric of the training against the epoch, split by split; it may be called whatever its user liked."""
    known = alt.Chart(alt.NamedData("epochs")).transform_filter(OF_RUN)
    kept = known.transform_calculate(value=f"datum[{json.dumps(name)}]").transform_filter("isValid(datum.value)")
    line = kept.mark_line(**look).encode(
        x=alt.X("epoch:Q", title="epoch", **time),
        y=alt.Y("value:Q", title=name),
        color=alt.Color("split:N", legend=alt.Legend(orient="top", title=None)),
        detail="run:N",
        tooltip=["run:N", "split:N", "epoch:Q", alt.Tooltip("value:Q", format=".4g", title=name)],
    )
    return _spec(alt.layer(_now(time), line), f"{name} against the epoch", HEIGHT)


def _norm(page: "Contents", name: str, title: str, look: Look) -> Spec:
    """A norm of the training's gradients or weights against the epoch, both logarithmic."""
    shown = f"{OF_RUN} && datum.variant == variant && indexof(layers, datum.layer) >= 0"
    positive = f"isValid(datum.{name}) && datum.{name} > 0 && datum.epoch > 0"
    kept = alt.Chart(alt.NamedData("dynamics")).transform_filter(f"{shown} && {positive}")
    time: Time = {"scale": alt.Scale(type="log", nice=False), "axis": alt.Axis(tickCount=6, format="~s")}
    line = kept.mark_line(**look).encode(
        x=alt.X("epoch:Q", title="epoch", **time),
        y=alt.Y(
            f"{name}:Q", title=title, scale=alt.Scale(type="log", nice=False), axis=alt.Axis(tickCount=5, format="~g")
        ),
        color=_colour(page),
        detail="run:N",
        opacity=_when(UNHOVERED, 0.15, 1.0),
        tooltip=["layer:N", "run:N", "epoch:Q", alt.Tooltip(f"{name}:Q", format=".4g", title=title)],
    )
    return _spec(alt.layer(_now(time, "epoch > 0"), line), f"{title} against the epoch, a line a layer", HEIGHT)


def _now(time: Time, where: str = "true") -> Any:
    """A line at the epoch that is chosen."""
    nothing = alt.Chart(alt.InlineData(values=[{}])).transform_calculate(now="epoch").transform_filter(where)
    return nothing.mark_rule(strokeDash=[2, 2], opacity=0.7).encode(x=alt.X("now:Q", scale=time["scale"]))


def _colour(page: "Contents") -> alt.Color:
    """A legend below; names are cut where they are long."""
    legend = alt.Legend(orient="bottom", title=None, columns=4, labelLimit=160, symbolType="circle", symbolOpacity=1)
    return alt.Color("layer:N", scale=alt.Scale(domain=page.layers), legend=legend)


def _told(chart: Any) -> Any:
    """With what is chosen as its title: a picture that is saved says what it is of."""
    what = alt.ExprRef("waist + ' · ' + estimator + ' · ' + split + ' · ' + run + ' · epoch ' + epoch")
    return chart.properties(title=alt.TitleParams(what, fontSize=11, fontWeight="normal", limit=460, anchor="start"))


def _when(test: str, so: float, otherwise: float) -> Any:
    return alt.condition(test, alt.value(so), alt.value(otherwise))


def _tooltip(*columns: str) -> list[alt.Tooltip]:
    exact = {"n", "distinct_t", "saturated"}
    named = [alt.Tooltip("layer:N"), alt.Tooltip("run:N"), alt.Tooltip("epoch:Q")]
    titles = {**CURVES, "n": "samples", "distinct_t": "patterns"}
    return named + [
        alt.Tooltip(f"{name}:{'N' if name == 'saturated' else 'Q'}", title=titles.get(name, name))
        if name in exact
        else alt.Tooltip(f"{name}:Q", format=".4f", title=titles[name])
        for name in columns
    ]


def _time(epochs: Sequence[int]) -> Time:
    """The axis of epochs: logarithmic, with 0, where they were recorded so."""
    steps = [later - epoch for epoch, later in zip(sorted(epochs), sorted(epochs)[1:], strict=False)]
    if len(epochs) <= FEW:
        return {"scale": alt.Scale(nice=False), "axis": alt.Axis(values=sorted(epochs), format="d")}
    if max(steps) < UNEVEN * min(steps):
        return {"scale": alt.Scale(nice=False), "axis": alt.Axis(tickMinStep=1)}
    ticks = [0, *(digit * 10**power for power in range(len(str(max(epochs)))) for digit in (1, 2, 5))]
    return {
        "scale": alt.Scale(type="symlog", nice=False),
        "axis": alt.Axis(values=ticks, labelOverlap=True, format="d"),
    }


def _look(runs: int) -> Look:
    """Of lines against the epoch: of many runs they are thin, and without dots."""
    return {"point": alt.OverlayMarkDef(size=18), "strokeWidth": 1.6} if runs == 1 else {"strokeWidth": 0.8}


def _spec(chart: Any, description: str, height: int) -> Spec:
    state = [alt.param(name=name, value=value) for name, value in STATE.items()]
    sized = chart.add_params(*state).properties(width="container", height=height, description=description)
    return dict(sized.to_dict())
