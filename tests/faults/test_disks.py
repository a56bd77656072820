"""Disks that are full, and folders that cannot be written to: what is said, and what stays."""

import pytest

JOBS = ["train", "pretrain", "corpus", "embed", "index", "exact index", "save", "embed file"]
SLOW = pytest.mark.slow


@pytest.mark.parametrize("job", JOBS)
@pytest.mark.parametrize("share", [0.4, *(pytest.param(share, marks=SLOW) for share in (0.0, 0.1, 0.2, 0.6, 0.8))])
def test_a_full_disk_is_named_and_with_room_the_job_ends_as_ever(ask, undisturbed, folder_of, assert_whole, job, share):
    about, folder = undisturbed(job), folder_of(job)
    told = ask(job, "full_disk", folder, room=int(share * about["written"]))
    assert "error" not in told, folder.log()
    told = told["value"]
    if "skip" in told:
        pytest.skip(told["skip"])
    name, message = told["full"]["run"]["error"]
    assert (name, "The disk that holds " in message, " is full. " in message) == ("OSError", True, True), message
    assert_whole(job, told["full"]["read"])
    assert all(".corpus.zarr.build" in path for path in told["full"]["hidden"])  # which the next build goes on with
    assert (told["value"], told["read"]) == (about["value"], about["new"])


@pytest.mark.parametrize("job", JOBS)
def test_a_folder_that_cannot_be_written_to_is_named(ask, folder_of, assert_whole, job):
    folder = folder_of(job)
    before = folder.files()
    told = ask(job, "read_only", folder)
    assert "error" not in told, folder.log()
    told = told["value"]
    if "skip" in told:
        pytest.skip(told["skip"])
    name, message = told["run"]["error"]
    assert (name, "cannot be written to. " in message) == ("OSError", True), message
    assert_whole(job, told["read"])
    assert folder.files() == before
