"""Long jobs that are struck dead at any moment: what a reader finds then, and what the same call makes of it."""

import random
import signal

import pytest

JOBS = ["train", "pretrain", "corpus", "embed", "index", "exact index", "save", "embed file"]
SLOW = [(job, number) for job in JOBS for number in range(1 if job in JOBS[:5] else 0, 11)]

# Before a change to the files, by the clock, and in the middle of a write.
KINDS = {"change": "changes", "seconds": "seconds", "bytes": "largest"}


def moment(rng: random.Random, kind: str, about: dict) -> dict:
    most = about[KINDS[kind]]
    return {kind: rng.uniform(0, most) if kind == "seconds" else rng.randrange(most)}


@pytest.mark.parametrize(
    ("job", "number"),
    [*((job, 0) for job in JOBS[:5]), *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)],
)
def test_a_job_that_is_killed_ends_as_one_that_was_not(
    ask, undisturbed, folder_of, assert_whole, job, number, record_property
):
    """It is killed, and the call that goes on is killed, too."""
    about, folder, rng = undisturbed(job), folder_of(job), random.Random(f"{job} {number}")
    kinds = list(KINDS)
    for kind in (kinds[number % 3], kinds[(number + 1) % 3]):
        strike = moment(rng, kind, about)
        while not (ended := ask(job, "run", folder, **strike))["exit"]:  # it was over before, or does less than it did
            assert "error" not in ended, folder.log()
            strike = {"seconds": strike.get("seconds", about["seconds"]) / 2}
        assert ended["exit"] == -(signal.SIGXFSZ if "bytes" in strike else signal.SIGKILL)
        assert_whole(job, ask(job, "read", folder))
    ended = ask(job, "run", folder)
    assert "error" not in ended, folder.log()
    assert ended["value"] == about["value"]
    assert ask(job, "read", folder)["value"] == about["new"]
    assert folder.files() == about["files"]
    record_property("kills survived", {job: 2})
