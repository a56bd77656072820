"""Ctrl-C: on the command line one line, and nowhere a result that is half-written or a file that is left over."""

import random
import signal

import pytest

TORCHS = "could not determine the shape of object type 'torch.storage.UntypedStorage'"
NUMBERS = [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 6))]


@pytest.fixture
def interrupt(ask, undisturbed, folder_of):
    """Have a job interrupted at some moment; one that was faster is begun anew."""

    def interrupt(job, do, number):
        seconds = random.Random(f"{job} {number}").uniform(0, 0.9 * undisturbed(job)["seconds"])
        while True:
            folder = folder_of(job)
            ended = ask(job, do, folder, signal="SIGINT", seconds=seconds)
            if ended.get("error", [""])[0] == "KeyboardInterrupt" or ended.get("value") == 128 + signal.SIGINT:
                return ended, folder
            # torch takes an interrupt while a tensor is read from a file for a fault of the file.
            assert ("error" not in ended and ended.get("value") != 1) or TORCHS in folder.log(), folder.log()
            seconds *= 0.8

    return interrupt


@pytest.fixture
def assert_clean(ask, undisturbed, assert_whole):
    """Check that what is there is whole, that nothing else is, and that the same call ends as ever."""

    def assert_clean(job, folder, kept=None):
        about = undisturbed(job)
        assert_whole(job, ask(job, "read", folder))
        assert list(folder.tmp.iterdir()) == []
        found = {path.relative_to(folder.work).parts for path in folder.work.rglob(".*")}
        assert all(parts[0] == kept for parts in found)
        assert ask(job, "run", folder)["value"] == about["value"], folder.log()
        assert ask(job, "read", folder)["value"] == about["new"]

    return assert_clean


@pytest.mark.parametrize(
    ("job", "what_now"),
    [
        ("pretrain", "the same command goes on from the last state"),
        ("corpus", "the same command goes on with what is finished"),
        ("embed file", "nothing is written"),
        ("annotate file", "--out is not written"),
    ],
)
@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupted_command_says_what_now(interrupt, assert_clean, job, what_now, number):
    ended, folder = interrupt(job, "command", number)
    assert ended["value"] == 130, folder.log()
    assert folder.log().endswith(f"\nscgpt {job.split()[0]}: interrupted; {what_now}.\n")
    assert "Traceback" not in folder.log()
    assert_clean(job, folder, kept=".corpus.zarr.build")


@pytest.mark.parametrize("job", ["train", "embed", "index", "save"])
@pytest.mark.parametrize("number", NUMBERS)
def test_an_interrupted_call_can_be_repeated(interrupt, assert_clean, job, number):
    ended, folder = interrupt(job, "run", number)
    assert ended["error"][0] == "KeyboardInterrupt"
    assert_clean(job, folder)
