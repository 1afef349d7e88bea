"""The report's plots, each drawn once, as Vega-Lite: interactive in the page, and PNG and SVG files beside it.

A mark's datum holds `configuration` (an identity) or `trial` (a trial_index): the page opens their pictures on a
click. Titles and subtitles are the page's headings and hints.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import altair as alt
import vl_convert

from nst_batch.results.labels import SCORES, STRENGTH

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

MAX_SHOWN = 40
"""Configurations in the ranking, curves in the other plots: the best ones, when there are more."""
TERMS = ("total", "content", "style")
"""The losses that have curves."""

_WIDTH = 760
_MARK, _FRONT = "#2b62b3", "#cf5a1f"
_ON_FRONT = alt.Color("pareto:N", scale=alt.Scale(range=[_MARK, _FRONT], domain=[False, True]), legend=None)
_NAME = alt.Tooltip("label:N", title="configuration")
_SCORES = [alt.Tooltip(f"{name}:Q", title=name.replace("_", " "), format=".3f") for name in SCORES]
_VEGA_LITE = alt.SCHEMA_VERSION[1:].rpartition(".")[0]


def plots(data: Mapping[str, Any]) -> dict[str, Spec]:
    """The specification of each plot for which the report has something to draw: ranking, tradeoff, curves."""
    known = {each["id"]: each for each in data["configurations"]}
    rows = [
        {"label": row["configuration"], **known.get(row["configuration"], {}), **row}
        for row in data["ranking"]["rows"]
    ]
    scored = {row["configuration"]: row for row in rows if row.get("transfer_score") is not None}
    found = {"ranking": ranking_plot(rows)} if rows else {}
    if scored and any(field["name"] == STRENGTH for field in data["fields"]):
        pictured = [each for each in data["trials"] if each["thumbnail"]]
        count = Counter(each["pair"] for each in pictured)
        pair = max(count, key=lambda number: count[number], default=0)  # the first of those with most pictures
        pictures = {each["configuration"]: each["thumbnail"] for each in pictured if each["pair"] == pair}
        points = [
            scored[key] | {"picture": pictures.get(number)} for number, key in enumerate(known) if key in scored
        ]
        found["tradeoff"] = strength_plot(points, data["pairs"][pair]["label"])
    elif scored:
        found["tradeoff"] = tradeoff_plot(list(scored.values()))
    if data["curves"]["trials"]:
        found["curves"] = curves_plot(data["curves"])
    return found


@cache
def vega_javascript() -> str:
    """Vega, Vega-Lite and vega-embed with the expression interpreter, as one script that needs nothing else."""
    return vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=_VEGA_LITE)


def drawn(spec: Spec) -> dict[str, bytes]:
    """A plot as files, by suffix."""
    svg = vl_convert.vegalite_to_svg(spec, vl_version=_VEGA_LITE, allowed_base_urls=[])
    return {"png": vl_convert.svg_to_png(svg, scale=1.5), "svg": svg.encode()}


def ranking_plot(rows: Rows) -> Spec:
    """Transfer scores with their intervals, best at the top; mean ranks where a study has no scores."""
    shown, scored = rows[:MAX_SHOWN], rows[0].get("transfer_score") is not None
    value, low, high = ("transfer_score", "score_low", "score_high") if scored else ("mean_rank", "low", "high")
    axis = alt.X(f"{value}:Q", title=value.replace("_", " "), scale=alt.Scale(zero=False, nice=True))
    base = alt.Chart(alt.NamedData("ranking"), height=22 * len(shown)).encode(
        y=alt.Y("label:N", sort=None, title=None),
        color=_ON_FRONT if scored else alt.value(_MARK),
        tooltip=[
            _NAME,
            *(_SCORES if scored else ()),
            alt.Tooltip("mean_rank:Q", title="mean rank", format=".3~f"),
            alt.Tooltip("won:Q", title="first in", format=".0%"),
            alt.Tooltip("pairs:Q"),
        ],
    )
    interval = base.transform_filter(f"isValid(datum.{low})").mark_rule(strokeWidth=2, opacity=0.6)
    more = f": the best {MAX_SHOWN}" if len(rows) > MAX_SHOWN else ""
    measure = "Transfer score: content kept × style taken" if scored else "Ranks within each pair"
    return _finished(
        interval.encode(x=alt.X(f"{low}:Q"), x2=f"{high}:Q") + base.mark_circle(size=90, opacity=1).encode(x=axis),
        title=f"Ranking{more}",
        subtitle=f"{measure}, means over pairs; in the order of the ranks within each pair. Lines: 95% intervals."
        + (" Orange: no other keeps more and takes more." if scored else ""),
        datasets={"ranking": shown},
    )


def tradeoff_plot(rows: Rows) -> Spec:
    """Content kept against style taken, a point per configuration; the front is labelled."""
    base = _kept_against_taken()
    front = base.transform_filter("datum.pareto")
    return _finished(
        front.mark_line(color=_FRONT, strokeDash=[4, 3]).encode(order="style_taken:Q")
        + base.mark_circle(size=90, opacity=1).encode(color=_ON_FRONT)
        + front.mark_text(align="left", dx=8, dy=-8, limit=240).encode(text="label:N"),
        title="Content kept against style taken",
        subtitle="Means over pairs; up and to the right is better. Orange: no other keeps more and takes more.",
        datasets={"points": rows},
    )


def strength_plot(points: Rows, pair: str) -> Spec:
    """Content kept against style taken along alpha: a curve for each value of the other fields.

    `points` are in the order of the study; the pictures, of a `pair`, stand along the curve that is chosen.
    """
    best_first = sorted(points, key=lambda point: -point["transfer_score"])
    shown = list(dict.fromkeys(point["curve"] for point in best_first))[:MAX_SHOWN]
    names = [name for name in dict.fromkeys(point["curve"] for point in points) if name in shown]
    choice = alt.binding_select(options=names, name="pictures along ")
    base = _kept_against_taken(alt.Tooltip("strength:Q", title=STRENGTH))
    color = _per_curve("curve:N", names)
    opacity = alt.condition("datum.curve == shown", alt.value(1), alt.value(0.55))
    chart = alt.layer(
        base.mark_line().encode(color=color, order="strength:Q", opacity=opacity),
        base.mark_circle(size=70).encode(color=color, opacity=opacity),
        base.transform_filter("datum.curve == shown && isValid(datum.picture)")
        .mark_image(width=60, height=60, yOffset=-38, aria=False)
        .encode(url="picture:N"),
    )
    return _finished(
        chart.add_params(alt.param(name="shown", value=shown[0], bind=choice)),
        title="Content kept against style taken",
        subtitle=f"Curves along {STRENGTH}, means over pairs; up and to the right is better. Pictures: {pair}.",
        datasets={"points": [point for point in points if point["curve"] in names]},
    )


def _per_curve(field: str, names: Sequence[str]) -> alt.Color:
    """Colours from shallow to deep, and their legend."""
    scale = alt.Scale(scheme=alt.SchemeParams(name="plasma", extent=[0.0, 0.85]))
    return alt.Color(field, sort=list(names), scale=scale, title=None, legend=alt.Legend(symbolLimit=MAX_SHOWN))


def _kept_against_taken(*tooltip: alt.Tooltip) -> alt.Chart:
    x, y = (
        alt.X("style_taken:Q", title="style taken", scale=alt.Scale(zero=False, padding=40)),
        alt.Y("content_kept:Q", title="content kept", scale=alt.Scale(zero=False, padding=40)),
    )
    return alt.Chart(alt.NamedData("points"), height=440).encode(x=x, y=y, tooltip=[_NAME, *tooltip, *_SCORES])


def curves_plot(curves: Mapping[str, Any]) -> Spec:
    """Losses relative to the initial picture: medians over pairs, or the trials of one configuration."""
    names = list(dict.fromkeys(trial["label"] for trial in curves["trials"]))[:MAX_SHOWN]
    choice = alt.binding_select(options=[None, *names], labels=["all (medians)", *names], name="show ")
    term = alt.param(name="term", value=TERMS[0], bind=alt.binding_radio(options=list(TERMS), name="loss "))
    only = alt.param(name="shown", value=names[0] if len(names) == 1 else None, bind=choice)
    steps = alt.param(name="steps", value=curves["steps"])
    return _finished(
        _curve_marks(names).add_params(term, only, steps),
        title="Loss curves",
        subtitle="Relative to the initial picture: medians over pairs, or one configuration's trials with the "
        "middle half. Losses of different layers differ in scale: compare the shapes only.",
        datasets={"trials": [trial for trial in curves["trials"] if trial["label"] in names]},
    )


def _curve_marks(names: Sequence[str]) -> alt.LayerChart | alt.FacetChart:
    """Of the loss `term`: a median of each configuration, or the trials of the one that is `shown`."""
    x = alt.X("step:Q", title="step", scale=alt.Scale(nice=False))
    y = alt.Y("value:Q", title="loss / initial loss", scale=alt.Scale(type="log", nice=False))
    numbers = [alt.Tooltip("step:Q"), alt.Tooltip("value:Q", title="loss / initial", format=".3~g")]
    points = (
        alt.Chart(alt.NamedData("trials"), height=400)
        .transform_filter("isValid(datum[term]) && (shown == null || datum.label == shown)")
        .transform_calculate(step="steps", value="datum[term]")
        .transform_flatten(["step", "value"])
        .transform_filter("datum.value > 0")
    )
    single = points.transform_filter("shown != null").encode(
        x=x, y=y, detail="trial:N", tooltip=[alt.Tooltip("pair:N"), *numbers]
    )
    medians = points.transform_aggregate(
        value="median(value)", low="q1(value)", high="q3(value)", groupby=["label", "configuration", "step"]
    ).encode(x=x, detail="label:N", tooltip=[_NAME, *numbers])
    return alt.layer(
        medians.transform_filter("shown != null").mark_area(opacity=0.15).encode(y="low:Q", y2="high:Q"),
        single.mark_line(color="gray", strokeWidth=0.7),
        medians.mark_line(strokeWidth=2).encode(y=y, color=_per_curve("label:N", names)),
        single.mark_point(opacity=0, size=60),
        medians.mark_point(opacity=0, size=90).encode(y=y),
    )


def _finished(
    chart: alt.LayerChart | alt.FacetChart, *, title: str, subtitle: str, datasets: Mapping[str, Rows]
) -> Spec:
    titled = chart.properties(width=_WIDTH, title=alt.TitleParams(title, subtitle=subtitle, anchor="start"))
    spec: Spec = titled.configure_axis(labelLimit=340).configure_view(stroke=None).to_dict()
    return spec | {"datasets": dict(datasets)}
