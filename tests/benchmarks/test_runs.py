import argparse

import pytest


@pytest.fixture
def runs(script, tmp_path, monkeypatch):
    runs = script("_runs")
    monkeypatch.setattr(runs, "RESULTS", tmp_path)
    made = []

    def in_process(script, arguments):
        made.append(arguments)
        return {"settings": "new", "number": int(arguments[0])}

    monkeypatch.setattr(runs, "in_process", in_process)
    return runs, made


def plans(runs):
    return [runs.Planned("task", "a method", (n, 7), runs.file_name("task", "a method", n)) for n in range(2)]


def args(**changes) -> argparse.Namespace:
    return argparse.Namespace(**{"quick": False, "kept": False, "json": None, "task": None, "method": None} | changes)


def test_what_is_kept_is_made_again_only_under_other_settings(runs, tmp_path):
    runs, made = runs
    results = runs.collect("benchmarks/some.py", plans(runs), args(), lambda method: "new")
    assert [result["number"] for result in results] == [0, 1]
    assert made == [[str(n), "7", "--task", "task", "--method", "a method"] for n in range(2)]
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == [
        "task.a_method.0.json",
        "task.a_method.1.json",
    ]
    assert runs.collect("benchmarks/some.py", plans(runs), args(), lambda method: "new") == results
    assert len(made) == 2
    assert runs.collect("benchmarks/some.py", plans(runs), args(kept=True), lambda method: "newer") == []
    runs.collect("benchmarks/some.py", plans(runs), args(), lambda method: "newer")
    assert len(made) == 4


def test_quick_runs_are_not_kept(runs, tmp_path):
    runs, made = runs
    runs.collect("benchmarks/some.py", plans(runs), args(quick=True), lambda method: "new")
    assert all(arguments[-1] == "--quick" for arguments in made)
    assert not list(tmp_path.iterdir())


def test_a_report_is_kept_where_it_is_of_everything(runs, tmp_path, capsys):
    runs, _ = runs
    runs.publish("some.py", "text", [{"a": 1}], args(task=["task"], json=tmp_path / "all.json"))
    assert capsys.readouterr().out == "text\n"
    assert (tmp_path / "all.json").read_text() == '[\n {\n  "a": 1\n }\n]\n'
    assert not (tmp_path / "some.md").exists()
    runs.publish("some.py", "text", [], args())
    assert (tmp_path / "some.md").read_text() == "text"
