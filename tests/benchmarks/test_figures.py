import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
DRAWN = sorted((DOCS / "figures").glob("*.svg"))


@pytest.fixture(scope="module")
def figures(script):
    return script("figures")


def test_a_row_is_the_mean_of_runs_and_of_their_intervals(figures):
    runs = [{"F1": 0.5, "F1_low": 0.4, "F1_high": 0.7}, {"F1": 0.7, "F1_low": 0.5, "F1_high": 0.8}]
    row = figures.Row.of(runs, "F1")
    assert row.mean == pytest.approx(0.6)
    assert row.interval == pytest.approx((0.45, 0.75))
    assert figures.Row.of([{"F1": 0.5}], "F1").interval is None


def test_a_figure_is_the_same_whenever_it_is_drawn(figures, tmp_path):
    (tmp_path / "again").mkdir()
    one, other = (figures.write("scale", folder).read_bytes() for folder in (tmp_path, tmp_path / "again"))
    assert one == other


def test_all_are_there_small_and_with_text_as_text(figures):
    assert {path.stem for path in DRAWN} == set(figures.FIGURES)
    for path in DRAWN:
        assert path.stat().st_size < 100_000, path
        assert "<text" in path.read_text()
        assert "dc:date" not in path.read_text()


def test_the_pages_show_what_is_there():
    shown = set().union(*(re.findall(r"figures/(\w+)\.svg", page.read_text()) for page in DOCS.glob("*.md")))
    assert shown <= {path.stem for path in DRAWN}
    assert shown >= {path.stem for path in DRAWN} - {"overview"}
