"""What may become of a malformed input: a clean error, or a right answer."""

from __future__ import annotations

import contextlib
import hashlib
import resource
import signal
import sysconfig
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Literal

import anndata
from mudata import MuData

import scgpt

_OURS = Path(scgpt.__file__).parent
_STANDARD_LIBRARY = Path(sysconfig.get_path("stdlib"))
# Modules whose own errors for arguments of a wrong type say what is wrong.
_CLEAR = {"pathlib.py"}
_CLEAN = (ValueError, KeyError, TypeError, OSError)
# What is imported and compiled within the first case counts, too.
_SECONDS = 60
_MEMORY = 4 * 2**30

Verdict = Literal["error", "answer"]


@dataclass(frozen=True)
class Case:
    """One malformed input.

    Parameters
    ----------
    name
        What is wrong with it.
    call
        Gives it to the package.
    check
        Raises an ``AssertionError`` for what is no right answer.
    state
        Returns what a call that ends in an error must leave as it is.
    """

    name: str
    call: Callable[[], object]
    check: Callable[[object], None]
    state: Callable[[], object] = lambda: None


class Hang(BaseException):
    """Raised where a call takes too long; nothing that catches errors catches it."""


def judge(case: Case) -> Verdict:
    """Run a case.

    Raises
    ------
    AssertionError
        When it ends neither in a clean error nor in a right answer.
    """
    before = case.state()
    try:
        with _limited(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.filterwarnings("error", module=r"scgpt(\.|$)")
            # What all who write to a view, or have cells of one name, are told by anndata.
            warnings.filterwarnings("ignore", "Observation names are not unique")
            warnings.filterwarnings("ignore", category=anndata.ImplicitModificationWarning)
            answer = case.call()
    except (Exception, Hang) as error:
        check_error(error)
        if (after := case.state()) != before:
            raise AssertionError(f"{_told(error)}, but left {after} in place of {before}") from error
        return "error"
    try:
        case.check(answer)
    except Exception as error:
        raise AssertionError(f"no right answer: {type(error).__name__} {' '.join(str(error).split())[:300]}") from error
    return "answer"


def check_error(error: BaseException) -> None:
    """Raise for an error that does not tell a user what to do."""
    if not isinstance(error, _CLEAN) or isinstance(error, UnicodeError | NotImplementedError):
        raise AssertionError(_told(error)) from error
    if not _is_ours(error):
        raise AssertionError(f"{_told(error)}, not raised in scgpt") from error
    message = str(error.args[0] if isinstance(error, KeyError) and error.args else error)
    if not 20 <= len(message) <= 2000:
        raise AssertionError(f"{_told(error)}: a message of {len(message)} characters") from error


def keys_of(adata: anndata.AnnData | MuData) -> list[list[str]]:
    """Return the names of all that results are written to."""
    return [list(map(str, part)) for part in (adata.obs, adata.var, adata.obsm, adata.uns, adata.uns.get("scgpt", ()))]


def content(folder: Path) -> dict[str, str]:
    """Return the hash of every file in a folder, and the folders in it."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "a folder"
        for path in folder.rglob("*")
    }


def _is_ours(error: BaseException) -> bool:
    """Whether this package raised an error, or the system one of its own that names a file."""
    frames = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if frames[-1].is_relative_to(_OURS):
        return True
    if isinstance(error, TypeError) and frames[-1].name in _CLEAR:
        return True
    within = next((i for i in reversed(range(len(frames))) if frames[i].is_relative_to(_OURS)), None)
    if within is None or not (isinstance(error, OSError) and error.filename):
        return False
    return all("site-packages" not in f.parts and f.is_relative_to(_STANDARD_LIBRARY) for f in frames[within + 1 :])


def _told(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    where = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if Path(f.filename).is_relative_to(_OURS)]
    last = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}"
    return f"{type(error).__name__} ({str(error)[:200]!r}) by {' '.join(where[-2:])} in {last}"


@contextlib.contextmanager
def _limited() -> Iterator[None]:
    """Bound time, and memory above what there is."""

    def ring(signum: int, frame: FrameType | None) -> None:
        raise Hang(f"took more than {_SECONDS} s")

    old_limits = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    old_handler = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, _SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, old_limits[1]))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old_handler)
        resource.setrlimit(resource.RLIMIT_AS, old_limits)
