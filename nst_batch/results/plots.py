"""The report's plots, each drawn once, as Vega-Lite: interactive in the page, and PNG and SVG files beside it.

A mark's datum holds `configuration` (an identity) or `trial` (a trial_index): the page opens their pictures on a
click. Titles and subtitles are the page's headings and hints.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np
import vl_convert

from nst_batch.results.report_data import TERMS

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

MAX_SHOWN = 40
"""Configurations in a plot; the best ones, when there are more."""
MAX_LINES = 100
"""Trials drawn one by one for one configuration."""

_WIDTH = 760
_MARK, _FRONT = "#2b62b3", "#cf5a1f"
_COLORS = alt.Scale(range=[_MARK, _FRONT], domain=[False, True])
_PER_LAYER = alt.Scale(scheme=alt.SchemeParams(name="plasma", extent=[0.0, 0.85]))
_NAME = alt.Tooltip("label:N", title="configuration")
_MAX_LINEAR_SPREAD = 30
_LABELLED_FRONT = 12
_VEGA_LITE = alt.SCHEMA_VERSION[1:].rpartition(".")[0]
_ORDERS = {"score": "transfer score", "content": "content kept", "style": "style taken"}


def plots(data: Mapping[str, Any]) -> dict[str, Spec]:
    """The specification of each plot for which there is something to draw: ranking, pareto, curves.

    Args:
        data: From `report_data`.
    """
    found = {}
    labels = {each["id"]: each["label"] for each in data["configurations"]}
    rankings = {by: ranking["rows"] for by, ranking in data["rankings"].items()}
    if rankings:
        found["ranking"] = ranking_plot(rankings, labels)
        rows = [row for row in next(iter(rankings.values())) if None not in _distances(row)]
        if rows:
            found["pareto"] = pareto_plot(rows, labels)
    if data["curves"]["trials"]:
        found["curves"] = curves_plot(data["curves"], labels)
    return found


@functools.cache
def vega_javascript() -> str:
    """Vega, Vega-Lite and vega-embed with the expression interpreter, as one script that needs nothing else."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)


def drawn(spec: Spec) -> dict[str, bytes]:
    """A plot as files, by suffix."""
    options: dict[str, Any] = {"vl_version": _VEGA_LITE, "allowed_base_urls": []}
    return {
        "png": vl_convert.vegalite_to_png(spec, scale=1.5, **options),
        "svg": vl_convert.vegalite_to_svg(spec, **options).encode(),
    }


def ranking_plot(rankings: Mapping[str, Rows], labels: Mapping[str, str]) -> Spec:
    """Mean ranks with their intervals, best at the top."""
    rows = [
        {name: row[name] for name in ("configuration", "mean_rank", "low", "high", "won", "pairs", "pareto")}
        | {"by": _ORDERS[by], "label": labels.get(row["configuration"], row["configuration"])}
        for by, ranked in rankings.items()
        for row in ranked[:MAX_SHOWN]
    ]
    by = alt.param(name="by", value=rows[0]["by"], bind=_choice("ranked by", [_ORDERS[by] for by in rankings]))
    base = (
        alt.Chart(alt.NamedData("ranks"), height=22 * min(len(next(iter(rankings.values()))), MAX_SHOWN))
        .transform_filter("datum.by == by")
        .encode(
            y=alt.Y("label:N", sort=None, title=None),
            color=alt.Color("pareto:N", scale=_COLORS, legend=None),
            tooltip=[
                _NAME,
                alt.Tooltip("mean_rank:Q", title="mean rank", format=".3~f"),
                alt.Tooltip("low:Q", title="95% from", format=".3~f"),
                alt.Tooltip("high:Q", title="to", format=".3~f"),
                alt.Tooltip("won:Q", title="first in", format=".0%"),
                alt.Tooltip("pairs:Q"),
            ],
        )
    )
    scale = alt.Scale(zero=False, domainMin=1)
    dots = base.mark_circle(size=90, opacity=1).encode(
        alt.X("mean_rank:Q", scale=scale, title="mean rank (1 is best)")
    )
    lines = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2, opacity=0.6)
    more = f", the best {MAX_SHOWN}" if len(next(iter(rankings.values()))) > MAX_SHOWN else ""
    return _finished(
        (lines.encode(x="low:Q", x2="high:Q") + dots).add_params(by),
        title=f"Ranking{more}",
        subtitle="Ranks within each pair, averaged. Lines: 95% intervals over pairs. Orange: on the Pareto front.",
        datasets={"ranks": rows},
    )


def pareto_plot(rows: Rows, labels: Mapping[str, str]) -> Spec:
    """Content distance against style distance; the front is labelled."""
    points = [
        {name: row[name] for name in ("configuration", "content_distance", "style_distance", "pareto")}
        | {"label": labels.get(row["configuration"], row["configuration"])}
        for row in rows
    ]
    content, style = np.array([_distances(row) for row in rows], np.float64).T
    base = alt.Chart(alt.NamedData("points"), height=400).encode(
        x=alt.X("content_distance:Q", scale=_spread(content), title="content distance (left: more content kept)"),
        y=alt.Y("style_distance:Q", scale=_spread(style), title="style distance (down: closer to the style)"),
    )
    front = base.transform_filter("datum.pareto")
    dots = base.mark_circle(size=90, opacity=1).encode(
        color=alt.Color("pareto:N", scale=_COLORS, legend=None),
        tooltip=[
            _NAME,
            alt.Tooltip("content_distance:Q", title="content distance", format=".4~g"),
            alt.Tooltip("style_distance:Q", title="style distance", format=".4~g"),
        ],
    )
    chart = front.mark_line(color=_FRONT, strokeDash=[4, 3]).encode(order="content_distance:Q") + dots
    if sum(row["pareto"] for row in rows) <= _LABELLED_FRONT:
        chart += front.mark_text(align="left", dx=8, dy=-8, limit=280).encode(text="label:N")
    return _finished(
        chart,
        title="Content kept against style matched",
        subtitle="One point per configuration, means over layers and pairs. Orange: no other is better in both.",
        datasets={"points": points},
    )


def curves_plot(curves: Mapping[str, Any], labels: Mapping[str, str]) -> Spec:
    """Losses relative to the initial picture: medians over pairs, or the trials of one configuration."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for trial in curves["trials"]:
        groups.setdefault(trial["configuration"], []).append(trial)
    shown = {key: groups[key] for key in list(groups)[:MAX_SHOWN]}
    names = [labels[key] for key in shown]
    choice = alt.binding_select(options=[None, *names], labels=["all (medians)", *names], name="show ")
    term = alt.param(name="term", value=TERMS[0], bind=_choice("loss", TERMS))
    only = alt.param(name="shown", value=names[0] if len(names) == 1 else None, bind=choice)
    steps = alt.param(name="steps", value=curves["steps"])

    x = alt.X("step:Q", title="step", scale=alt.Scale(nice=False))
    y = alt.Y("value:Q", title="loss / initial loss", scale=alt.Scale(type="log", nice=False))
    color = alt.Color("label:N", sort=names, scale=_PER_LAYER, title=None, legend=alt.Legend(symbolLimit=MAX_SHOWN))
    numbers = [alt.Tooltip("step:Q"), alt.Tooltip("value:Q", title="loss / initial", format=".3~g")]
    medians = (
        alt.Chart(alt.NamedData("medians"), height=400)
        .transform_filter("datum.term == term && datum.low > 0 && (shown == null || datum.label == shown)")
        .encode(x=x, detail="label:N", tooltip=[_NAME, *numbers])
    )
    band = medians.transform_filter("shown != null").mark_area(opacity=0.15).encode(y="low:Q", y2="high:Q")
    single = (
        alt.Chart(alt.NamedData("trials"))
        .transform_filter("datum.label == shown")
        .transform_calculate(step="steps", value="datum[term]")
        .transform_flatten(["step", "value"])
        .transform_filter("datum.value > 0")
        .encode(x=x, y=y, detail="trial:N", tooltip=[alt.Tooltip("pair:N"), *numbers])
    )
    chart = alt.layer(
        band,
        single.mark_line(color="gray", strokeWidth=0.7),
        medians.mark_line(strokeWidth=2).encode(y=y, color=color),
        single.mark_point(opacity=0, size=60),
        medians.mark_point(opacity=0, size=90).encode(y=y),
    )
    return _finished(
        chart.add_params(term, only, steps),
        title="Loss curves",
        subtitle="Relative to the initial picture: medians over pairs, or one configuration's trials with the "
        "middle 80%. Losses of different layers differ in scale: compare the shapes only.",
        datasets={
            "medians": [
                row | {"label": labels[key], "configuration": key}
                for key, trials in shown.items()
                for row in _medians(curves["steps"], trials)
            ],
            "trials": [
                {**trial, "label": labels[key]} for key, trials in shown.items() for trial in trials[:MAX_LINES]
            ],
        },
    )


def _medians(steps: Sequence[int], trials: Rows) -> Iterator[dict[str, Any]]:
    """The median and the middle 80% of trials: one row per term and step."""
    for term in TERMS:
        curves = [trial[term] for trial in trials if term in trial]
        if curves:
            for step, (low, middle, high) in zip(
                steps, np.quantile(curves, [0.1, 0.5, 0.9], axis=0).T, strict=True
            ):
                yield {"term": term, "step": step, "value": middle, "low": low, "high": high}


def _distances(row: Mapping[str, Any]) -> tuple[float | None, float | None]:
    return row.get("content_distance"), row.get("style_distance")


def _choice(name: str, options: Sequence[str]) -> alt.BindRadioSelect:
    return alt.binding_radio(options=list(options), name=f"{name} ")


def _spread(values: np.ndarray[Any, np.dtype[np.float64]]) -> alt.Scale:
    """Logarithmic where the values differ by more than a factor of 30."""
    log = values.min() > 0 and values.max() / values.min() > _MAX_LINEAR_SPREAD
    return alt.Scale(type="log" if log else "linear", zero=False, padding=40)


def _finished(
    chart: alt.LayerChart | alt.FacetChart, *, title: str, subtitle: str, datasets: Mapping[str, Rows]
) -> Spec:
    titled = chart.properties(width=_WIDTH, title=alt.TitleParams(title, subtitle=subtitle, anchor="start"))
    spec: Spec = titled.configure_axis(labelLimit=340).configure_view(stroke=None).to_dict()
    return spec | {"datasets": dict(datasets)}
