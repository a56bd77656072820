"""Disks of which there is little left, and folders that cannot be written to, for one process and as long as it lives."""

import os
import shutil
import subprocess
from pathlib import Path


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


def _own_mounts() -> None:
    """Let this process mount what no other sees; one that is not root becomes that of a namespace of its own."""
    user, group = os.getuid(), os.getgid()
    os.unshare(os.CLONE_NEWNS | (os.CLONE_NEWUSER if user else 0))
    if user:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _mount("--make-rprivate", "/")


def _told(function, work: Path) -> dict:
    try:
        return {"value": function(work)}
    except Exception as error:  # noqa: BLE001 - the other side is told
        return {"error": [type(error).__name__, str(error)]}


def _attempt(job, work: Path) -> dict:
    """What becomes of a job, what can be read afterwards, and what was left."""
    run, read = _told(job.run, work), _told(job.read, work)
    return {"run": run, "read": read, "hidden": sorted(map(str, work.rglob(".*")))}


def full_disk(job, work: Path, room: int) -> dict:
    """Do a job on a disk with some bytes of room, and again with enough of it."""
    disk = work.with_name("disk")
    disk.mkdir()
    try:
        _own_mounts()
        _mount("-t", "tmpfs", "-o", "size=1g", "none", str(disk))
    except (OSError, subprocess.CalledProcessError) as error:
        return {"skip": f"this machine lets no process mount disks of its own: {error}"}
    shutil.copytree(work, disk / "work")
    used = shutil.disk_usage(disk).used
    _mount("-o", f"remount,size={used + max(room, 4096)}", str(disk))
    full = _attempt(job, disk / "work")
    _mount("-o", "remount,size=1g", str(disk))
    return {"full": full, "value": job.run(disk / "work"), "read": job.read(disk / "work")}


def read_only(job, work: Path) -> dict:
    """Do a job in a folder that cannot be written to, by root neither."""
    try:
        _own_mounts()
        _mount("--bind", str(work), str(work))
        _mount("-o", "remount,ro,bind", str(work))
    except (OSError, subprocess.CalledProcessError) as error:
        return {"skip": f"this machine lets no process mount folders of its own: {error}"}
    return _attempt(job, work)
