"""What all commands have in common: help, errors, how they end."""

from __future__ import annotations

import argparse
import re
import runpy
import shlex
from collections.abc import Iterator

import pytest

from scgpt.cli import _embed, main, parser
from scgpt.hub import known_checkpoints


def commands(of: argparse.ArgumentParser, name: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Return all commands with their names, down to those that do something."""
    within = [action for action in of._actions if isinstance(action, argparse._SubParsersAction)]
    if not within:
        yield name, of
    for action in within:
        for word, command in action.choices.items():
            yield from commands(command, f"{name} {word}".strip())


COMMANDS = dict(commands(parser()))


def test_the_help_lists_the_commands_in_a_line_each_and_says_where_to_start(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "90")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    shown = capsys.readouterr().out
    listed = re.findall(r"^    (\w+) +(\w.*)$|^    (\w+)$", shown, re.MULTILINE)
    assert {one or other for one, _, other in listed} == {name.split()[0] for name in COMMANDS}
    assert shown.count("scgpt embed cells.h5ad --model mini") == 1
    assert max(map(len, shown.splitlines())) <= 90


@pytest.mark.parametrize("name", COMMANDS)
def test_the_help_of_a_command_says_what_it_writes_and_gives_an_example_that_it_takes(name):
    command = COMMANDS[name]
    assert re.match(r"[A-Z].*\.\s.*(--out|setting `out`|folder holds)", command.description, re.DOTALL)
    title, *examples = command.epilog.splitlines()
    assert title == "example:"
    for example in examples:
        program, *arguments = shlex.split(example)
        assert program == "scgpt"
        assert parser().parse_args(arguments).run is command.get_default("run")


@pytest.mark.parametrize("name", COMMANDS)
def test_options_tell_their_defaults(name):
    for action in COMMANDS[name]._actions:
        if action.option_strings and not action.required and action.nargs != 0:
            assert action.help, action.option_strings
            told = re.search(r"\(default: (.*)\)$", action.help)
            if action.default in (None, []):
                assert told or action.option_strings[0] in {"--labels", "--gene-mapping", "--class-weight"}, (
                    action.option_strings
                )
            elif told[1] != f"--{action.dest}":  # a switch
                assert told[1] == "%(default)s", action.option_strings


def test_names_in_the_help_are_of_checkpoints_that_can_be_had():
    had = {name for name, entry in known_checkpoints().items() if "folder" in entry or "files" in entry}
    models = [action.help for command in COMMANDS.values() for action in command._actions if action.dest == "model"]
    assert len(models) == 5
    for text in models:
        assert {name for name in known_checkpoints() if re.search(rf"\b{name}\b", text)} <= had


def test_a_wrong_call_ends_with_two(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["embed", "cells.h5ad"])
    assert "the following arguments are required: --model, --out" in capsys.readouterr().err


def test_an_interrupt_ends_with_130_and_says_what_is_there(capsys, monkeypatch):
    def interrupt(*args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(_embed, "check_files", interrupt)
    assert main(["embed", "a.h5ad", "--model", "mini", "--out", "b.h5ad"]) == 130
    assert capsys.readouterr().err == "\nscgpt embed: interrupted; nothing is written.\n"


def test_an_error_of_many_lines_and_notes_is_one_line(capsys, monkeypatch):
    def fail(*args: object) -> None:
        error = KeyError("There is no column\n  'a'.")
        error.add_note("Name another.")
        raise error

    monkeypatch.setattr(_embed, "check_files", fail)
    assert main(["embed", "a.h5ad", "--model", "mini", "--out", "b.h5ad"]) == 1
    assert capsys.readouterr().err == "scgpt embed: There is no column 'a'. Name another.\n"


def test_as_a_module(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["scgpt", "--version"])
    with pytest.raises(SystemExit, match="0"):
        runpy.run_module("scgpt", run_name="__main__")
    assert "scgpt-tools" in capsys.readouterr().out
