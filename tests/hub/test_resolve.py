import hashlib
import multiprocessing
import os
import re
import signal
import socket
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import product
from pathlib import Path

import pytest
import torch

from scgpt import hub
from scgpt.hub import _resolve, cache_folder, known_checkpoints, read, read_official, resolve, write_checkpoint

FILES = ("best_model.pt", "args.json", "vocab.json")
NAMES = ("whole-human", "blood", "brain", "heart", "lung", "kidney", "pan-cancer", "continual")


class _Handler(SimpleHTTPRequestHandler):
    def do_GET(self):
        self.server.requested.append(self.path)
        super().do_GET()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(golden):
    """A web server on this machine that has the golden checkpoint."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=golden / "checkpoint")) as server:
        server.requested = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache, and no way to the network but to this machine."""
    monkeypatch.setenv("SCGPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(_resolve, "_SCHEMES", ("https", "http"))  # the server of the tests has no certificate
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache"


def registry_of(golden: Path, port: int, **wrong: str) -> dict:
    sums = {file: hashlib.sha256((golden / "checkpoint" / file).read_bytes()).hexdigest() for file in FILES} | wrong
    files = {file: {"url": f"http://127.0.0.1:{port}/{file}", "sha256": sums[file]} for file in FILES}
    return {"tiny": {"about": "a test", "page": "https://example.org/tiny", "files": files}}


def litter(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


# The registry


def test_every_checkpoint_of_the_authors_has_a_name():
    assert set(known_checkpoints()) == {*NAMES, "mini"}
    assert all(name in resolve.__doc__ for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_pinned_is_pinned_in_full(name):
    entry = known_checkpoints()[name]
    assert entry["about"]
    assert entry["page"].startswith("https://")
    for file in entry.get("files", ()):
        assert entry["files"][file]["url"].startswith("https://")
        assert re.fullmatch("[0-9a-f]{64}", entry["files"][file]["sha256"])
    assert set(entry.get("files", FILES)) == set(FILES)


def test_the_whole_human_model_is_pinned():
    assert "files" in known_checkpoints()["whole-human"]


# The one in the package


def test_the_small_model_is_part_of_the_package(cache):
    folder = resolve("mini")
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    checkpoint = read("mini")
    assert len(checkpoint.vocab.genes) == 26404
    assert {"gep", "gepc", "zero"} <= set(checkpoint.config.heads)
    assert checkpoint.report.fresh == ()
    assert checkpoint.report.source == "mini"  # and not where this machine keeps it
    assert read(folder).report.source == str(folder)
    assert not cache.exists()  # nothing was downloaded


# Folders and names


def test_a_folder_is_itself(golden, tmp_path):
    assert resolve(golden / "checkpoint") == golden / "checkpoint"
    assert resolve(str(golden / "checkpoint")) == golden / "checkpoint"
    (tmp_path / "blood").mkdir()
    assert resolve("blood") == Path("blood")  # a folder that is there comes before a name


@pytest.mark.parametrize("model", [Path("nowhere"), "./nowhere", f"some{os.sep}where", "." + os.sep + "blood"])
def test_a_folder_that_is_not_there_is_named(model):
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        resolve(model)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="'human' is neither a folder nor a known checkpoint; known are mini, "):
        resolve("human")


@pytest.mark.parametrize("name", [name for name in NAMES if "files" not in known_checkpoints()[name]])
def test_a_name_without_a_pinned_file_says_where_to_put_them(name, cache):
    message = f"{name!r} has no direct download .*Put best_model.pt, args.json, vocab.json from https://.* into {cache / name}"
    with pytest.raises(FileNotFoundError, match=message) as error:
        resolve(name)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["blood", "whole-human"])
def test_files_put_into_the_cache_by_hand_are_taken(name, cache, golden):
    folder = cache / name
    folder.mkdir(parents=True)
    for file in FILES:
        (folder / file).write_bytes((golden / "checkpoint" / file).read_bytes())
    assert resolve(name) == folder


# Downloads


def test_a_name_is_downloaded_once(server, golden, cache):
    registry = registry_of(golden, server.server_port)
    folder = resolve("tiny", registry=registry)
    assert folder == cache / "tiny"
    assert litter(cache) == sorted(f"tiny/{file}" for file in FILES)
    assert sorted(server.requested) == sorted(f"/{file}" for file in FILES)
    plain = read_official(golden / "checkpoint").state_dict
    assert all(torch.equal(x, plain[name]) for name, x in read_official(folder).state_dict.items())
    assert resolve("tiny", registry=registry) == folder
    assert len(server.requested) == 3


def test_only_what_is_absent_is_downloaded(server, golden, cache):
    registry = registry_of(golden, server.server_port)
    (resolve("tiny", registry=registry) / "args.json").unlink()
    server.requested.clear()
    resolve("tiny", registry=registry)
    assert server.requested == ["/args.json"]


def test_a_file_that_was_put_into_the_cache_by_hand_stays(server, golden, cache):
    mine = cache / "tiny" / "args.json"
    mine.parent.mkdir(parents=True)
    mine.write_text("{}")
    resolve("tiny", registry=registry_of(golden, server.server_port))
    assert mine.read_text() == "{}"
    assert "/args.json" not in server.requested


@pytest.mark.parametrize("file", FILES)
def test_a_wrong_checksum_is_an_error_and_leaves_nothing(file, server, golden, cache):
    registry = registry_of(golden, server.server_port, **{file: "0" * 64})
    with pytest.raises(ValueError, match=f"The download of {file} is not what it should be .*Put .* into ") as error:
        resolve("tiny", registry=registry)
    assert "\n" not in str(error.value)
    assert f"tiny/{file}" not in litter(cache)
    assert set(litter(cache)) <= {f"tiny/{other}" for other in FILES}  # no partial file under another name
    # What was right is kept, and what was wrong is asked for again.
    resolve("tiny", registry=registry_of(golden, server.server_port))
    assert litter(cache) == sorted(f"tiny/{file}" for file in FILES)


def assert_says_where_to_put_the_files(error: pytest.ExceptionInfo, folder: Path) -> None:
    message = str(error.value)
    assert "\n" not in message
    assert re.match(r"Cannot download best_model\.pt \(\w+\)\. Put best_model\.pt, args\.json, vocab\.json", message)
    assert f"from https://example.org/tiny into {folder}, or pass the folder that holds them." in message


def test_offline_is_one_line_that_says_where_to_put_the_files(golden, cache):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # not listening
        with pytest.raises(FileNotFoundError) as error:
            resolve("tiny", registry=registry_of(golden, unused.getsockname()[1]))
    assert_says_where_to_put_the_files(error, cache / "tiny")
    assert error.value.__cause__ is None
    assert error.value.__suppress_context__  # no traceback of the network library before it
    assert litter(cache) == []


def test_a_page_that_is_gone_is_the_same_line(server, golden, cache):
    registry = registry_of(golden, server.server_port)
    registry["tiny"]["files"]["best_model.pt"]["url"] += ".moved"
    with pytest.raises(FileNotFoundError) as error:
        resolve("tiny", registry=registry)
    assert_says_where_to_put_the_files(error, cache / "tiny")
    assert litter(cache) == []


def test_a_download_that_breaks_off_leaves_nothing(server, golden, cache, monkeypatch):
    def half(self, source, target):
        target.write(source.read(100))
        raise ConnectionResetError

    monkeypatch.setattr(_Handler, "copyfile", half)
    with pytest.raises((FileNotFoundError, ValueError), match="Put best_model.pt"):
        resolve("tiny", registry=registry_of(golden, server.server_port))
    assert litter(cache) == []


# Where downloads may come from and go to


@pytest.mark.parametrize("scheme", ["http", "ftp", "file", "HTTP", "doi", ""])
def test_only_https_is_asked(scheme, server, golden, cache, monkeypatch):
    monkeypatch.setattr(_resolve, "_SCHEMES", ("https",))
    registry = registry_of(golden, server.server_port)
    registry["tiny"]["files"]["best_model.pt"]["url"] = f"{scheme}://127.0.0.1:{server.server_port}/best_model.pt"
    with pytest.raises(ValueError, match=r"is no https:// address; best_model\.pt is not downloaded\. Put "):
        resolve("tiny", registry=registry)
    assert server.requested == []
    assert not cache.exists()


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *product(("files", "folder"), ("../tiny", "a/../../tiny", "{}/tiny", "a\\b", "C:tiny", "")),
        ("folder", ".."),  # as a name it is a folder that is there
    ],
)
def test_no_name_leads_out_of_its_folder(name, kind, server, golden, cache, tmp_path):
    name = name.format(tmp_path)
    entry = registry_of(golden, server.server_port)["tiny"]
    registry = {name: entry} if kind == "files" else {"tiny": {"about": "a test", "folder": name}}
    with pytest.raises(ValueError, match="cannot be the name of a checkpoint: a name is no path"):
        resolve(name if kind == "files" else "tiny", registry=registry)
    assert server.requested == []
    assert litter(tmp_path) == []


# Processes that download the same at the same time


@pytest.fixture
def forked(golden):
    """Start processes that resolve a name, before there is any thread; then the server that they wait for."""
    context = multiprocessing.get_context("fork")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=golden / "checkpoint")) as server:
        server.requested = []
        server.request_queue_size = 32
        server.socket.listen(32)
        registry = registry_of(golden, server.server_port)
        processes = []
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})

        def start(n: int):
            processes.extend(
                context.Process(target=resolve, args=("tiny",), kwargs={"registry": registry}) for _ in range(n)
            )
            for process in processes:
                process.start()
            thread.start()
            return server, registry, processes

        yield start
        for process in processes:
            process.kill()
            process.join()
        server.shutdown()
        thread.join()


class _Slow:
    """Hands out half of the weights, and the rest once it is told to."""

    def __init__(self, n: int):
        self.n_halves = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.all_have_asked = threading.Barrier(n, action=self.go_on.set)

    def __call__(self, handler, source, target):
        content = source.read()
        if handler.path != "/best_model.pt":
            target.write(content)
            return
        target.write(content[: len(content) // 2])
        target.flush()
        self.n_halves.release()
        if not self.go_on.is_set():
            self.all_have_asked.wait(60)
        target.write(content[len(content) // 2 :])


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_ten_processes_download_the_same_and_all_end_well(forked, golden, cache, monkeypatch):
    slow = _Slow(10)
    monkeypatch.setattr(_Handler, "copyfile", lambda *args: slow(*args))
    server, registry, processes = forked(10)
    for process in processes:
        process.join(90)
    assert [process.exitcode for process in processes] == [0] * 10
    assert server.requested.count("/best_model.pt") == 10  # all at once: none was done before the last had asked
    assert litter(cache) == sorted(f"tiny/{file}" for file in FILES)
    for file in FILES:
        assert (cache / "tiny" / file).read_bytes() == (golden / "checkpoint" / file).read_bytes()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_process_that_is_killed_while_it_downloads_leaves_nothing_that_is_taken_for_the_file(
    forked, golden, cache, monkeypatch
):
    slow = _Slow(2)
    monkeypatch.setattr(_Handler, "copyfile", lambda *args: slow(*args))
    server, registry, (process,) = forked(1)
    assert slow.n_halves.acquire(timeout=60)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert not (cache / "tiny" / "best_model.pt").exists()
    slow.go_on.set()
    slow.all_have_asked.abort()
    folder = resolve("tiny", registry=registry)  # starts anew
    assert (folder / "best_model.pt").read_bytes() == (golden / "checkpoint" / "best_model.pt").read_bytes()


def test_the_cache_is_where_the_environment_says(cache, monkeypatch):
    assert cache_folder() == cache
    monkeypatch.delenv("SCGPT_CACHE")
    assert cache_folder().name == "scgpt-tools"
    assert cache_folder().is_absolute()


# Reading


def test_read_takes_names_and_both_kinds_of_folders(server, golden, tmp_path, monkeypatch):
    monkeypatch.setattr(_resolve, "known_checkpoints", lambda: registry_of(golden, server.server_port))
    by_name = read("tiny")
    write_checkpoint(by_name, tmp_path / "ours")
    by_folder, ours = read(golden / "checkpoint"), read(tmp_path / "ours")
    for checkpoint in (by_folder, ours):
        assert checkpoint.config == by_name.config
        assert all(torch.equal(x, by_name.state_dict[name]) for name, x in checkpoint.state_dict.items())


@pytest.mark.parametrize("kind", ["official", "ours"])
def test_read_passes_on_what_is_to_change(kind, golden, tmp_path):
    folder = golden / "checkpoint"
    if kind == "ours":
        write_checkpoint(read_official(folder), tmp_path / "ours")
        folder = tmp_path / "ours"
    checkpoint = read(folder, fresh=["cls"], n_classes=4, gepc=False)
    assert checkpoint.config.n_classes == 4
    assert checkpoint.report.fresh == ("cls",)
    assert checkpoint.report.dropped == ("gepc",)


def test_a_folder_of_ours_that_lacks_a_file_is_not_taken_for_the_authors(tmp_path, golden):
    write_checkpoint(read_official(golden / "checkpoint"), tmp_path / "ours")
    (tmp_path / "ours" / "config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"lacks config\.json; a checkpoint is model\.safetensors"):
        read(tmp_path / "ours")


def test_public_names_are_there():
    assert all(hasattr(hub, name) for name in hub.__all__)
