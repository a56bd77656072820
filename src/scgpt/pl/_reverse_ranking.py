"""Perturbations that may have led to a state."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from scgpt._messages import listed

from ._colors import BLUE, ORANGE, with_own
from ._finish import finish
from ._legend import dot, legend_above
from ._named_rows import name_rows

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.typing import ColorType

_SCORES = {"similarity": "similarity (cosine)", "distance": "distance (nearest on top)"}
_LABELS = {"true": "true", "relevant": "shares a gene", "other": "other"}


def reverse_ranking(
    ranking: pd.DataFrame,
    *,
    truth: str | Mapping[str, str] | None = None,
    state: str | None = None,
    n_top: int | None = None,
    control: str = "control",
    sep: str = "+",
    palette: Mapping[str, ColorType] | None = None,
    ax: Axes | None = None,
    show: bool | None = None,
    save: str | Path | None = None,
) -> Axes | None:
    """Draw which perturbations may have led to a state, the likeliest on top :cite:p:`Cui2024`.

    Similarities are bars from 0, and distances points. With ``truth`` their colours tell which is the perturbation that
    led there, which are relevant, that is, share a gene with it, and which are neither; the name of the true one is bold.
    It is written above, for it may be none of those drawn.

    Parameters
    ----------
    ranking
        What :func:`scgpt.tl.reverse_perturb` returned.
    truth
        The perturbation that led to the state, or for each state its one. The order of genes in a name has no meaning.
    state
        The state to draw, where the ranking has several.
    n_top
        Most perturbations to draw; all in the ranking by default.
    control
        Label of control cells.
    sep
        Between the genes of one perturbation.
    palette
        Colours for ``"true"``, ``"relevant"`` and ``"other"``.
    ax
        Axes to draw on; a new figure of fitting size by default.
    show
        Show the figure; by default as scanpy's settings say.
    save
        File to save the figure to.

    Returns
    -------
    The axes, unless the figure is shown.

    Raises
    ------
    KeyError
        When the state is not in the ranking, or not in ``truth``.
    ValueError
        When the table is no ranking, or an empty one; when it has several states and none is named; when ``n_top`` or
        ``palette`` make no sense.

    Examples
    --------
    >>> import pandas as pd
    >>> import scgpt
    >>> ranking = pd.DataFrame(  # as scgpt.tl.reverse_perturb returns it
    ...     {
    ...         "state": "",
    ...         "rank": [1, 2, 3],
    ...         "perturbation": ["CEBPA+KLF1", "KLF1", "TP73"],
    ...         "similarity": [0.9, 0.7, 0.2],
    ...     }
    ... )
    >>> ax = scgpt.pl.reverse_ranking(ranking, truth="KLF1+CEBPA", show=False)
    """
    import matplotlib.pyplot as plt

    score = next((name for name in _SCORES if name in ranking), None)
    lacking = [name for name in ("state", "rank", "perturbation") if name not in ranking]
    if lacking or score is None:
        raise ValueError(
            f"The table has no column {lacking[0]!r}: pass what scgpt.tl.reverse_perturb returned."
            if lacking
            else "The table has neither similarities nor distances: pass what scgpt.tl.reverse_perturb returned."
        )
    if n_top is not None and n_top < 1:
        raise ValueError(f"n_top has to be 1 or more, and is {n_top}.")
    colors = with_own({"true": BLUE, "relevant": ORANGE, "other": "0.75"}, palette)
    state = _state_of(ranking, state)
    rows = ranking[ranking["state"].astype(str) == state].sort_values("rank", kind="stable")[:n_top]
    names = rows["perturbation"].astype(str).to_list()
    values = rows[score].to_numpy(dtype=float)
    true = _truth_of(truth, state)
    roles = [_role(name, true, control, sep) for name in names]
    shades = [colors[role] for role in roles]

    y = range(len(names))
    if ax is None:
        _, ax = plt.subplots(figsize=(3.4, 0.2 * len(names) + 1.0), layout="constrained")
    if score == "similarity":
        ax.barh(y, values, height=0.7, color=shades, zorder=2)
        ax.axvline(0, color="0.3", linewidth=0.8)
    else:
        ax.scatter(values, y, s=32, c=shades, zorder=2)
    ax.grid(axis="x" if score == "similarity" else "both", color="0.9", linewidth=0.6, zorder=0)
    name_rows(ax, names, _SCORES[score])
    for text, role in zip(ax.get_yticklabels(), roles, strict=True):
        text.set_fontweight("bold" if role == "true" else "normal")
    if true is None:
        ax.set_title(state, loc="left", fontsize="small", fontweight="bold")
        return finish(ax, show, save)
    handles = [dot(colors[role], label) for role, label in _LABELS.items() if role in roles]
    title = f"truth: {true}" if state in ("", true) else f"{state}\ntruth: {true}"
    legend_above(ax, handles, title, len(handles))
    return finish(ax, show, save)


def _state_of(ranking: pd.DataFrame, state: str | None) -> str:
    """Return the state to draw."""
    states = list(dict.fromkeys(ranking["state"].astype(str)))
    if not states:
        raise ValueError("The ranking has no row.")
    if state is None:
        if len(states) > 1:
            raise ValueError(f"The ranking is of {len(states)} states: name one by state=, such as {listed(states)}.")
        return states[0]
    if str(state) not in states:
        raise KeyError(f"The ranking has no state {state!r}; it has {listed(states)}.")
    return str(state)


def _truth_of(truth: str | Mapping[str, str] | None, state: str) -> str | None:
    """Return the perturbation that led to a state, where it is known."""
    if truth is None or isinstance(truth, str):
        return truth
    if state not in truth:
        raise KeyError(f"truth= does not tell the perturbation of state {state!r}; it has {listed(list(truth))}.")
    return truth[state]


def _role(name: str, true: str | None, control: str, sep: str) -> str:
    """Return what a candidate is to the true perturbation."""
    from scgpt.metrics import perturbed_by

    if true is None:
        return "other"
    genes, of_truth = (perturbed_by(each, control=control, sep=sep) for each in (name, true))
    if genes == of_truth:
        return "true"
    return "relevant" if set(genes) & set(of_truth) else "other"
