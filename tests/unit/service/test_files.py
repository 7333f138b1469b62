"""What everything durable is made of."""

import errno
import os
import subprocess
import sys

import pytest

from service.files import DISK, is_written, make_folders, put_file
from tests.acceptance.disks import FailingFiles, RecordingFiles

HOLDS = """
import sys, time
from pathlib import Path
from service.files import DISK
DISK.create(Path(sys.argv[1]))
print("holds it", flush=True)
time.sleep(60)
"""


def test_every_folder_that_is_made_is_synced_into_the_one_above(tmp_path):
    """From the top down; a folder that is there is left alone."""
    files = RecordingFiles(tmp_path)
    make_folders(files, tmp_path / "a" / "b")
    make_folders(files, tmp_path / "a" / "b")
    assert [(step.what, step.path) for step in files.steps] == [
        ("folder", "a"), ("sync_folder", "."), ("folder", "a/b"), ("sync_folder", "a"),
    ]  # fmt: skip


@pytest.mark.parametrize("operation", ["create", "write", "sync"])
def test_a_file_that_cannot_be_put_leaves_the_one_before_and_nothing_unfinished(tmp_path, operation):
    """The content has to be on disk before the name is."""
    path, files = tmp_path / "file", FailingFiles()
    put_file(DISK, path, b"before")
    files.fail(operation, errno.ENOSPC)
    with pytest.raises(OSError, match="injected"):
        put_file(files, path, b"after")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("file", b"before")]


def test_a_file_counts_as_written_for_as_long_as_its_writer_lives(root_folder, tmp_path):
    """A process that was killed lets go, whatever it meant to do."""
    path = tmp_path / "segment"
    command = [sys.executable, "-c", HOLDS, str(path)]
    with subprocess.Popen(command, cwd=root_folder, stdout=subprocess.PIPE) as process:
        process.stdout.readline()
        while_alive = is_written(path)
        process.kill()
    assert (while_alive, is_written(path)) == (True, False)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux says whether a file is in memory")
def test_what_is_forgotten_is_on_disk_and_not_in_memory_any_more(tmp_path):
    """Whoever reads it gets all of it."""
    path = tmp_path / "segment"
    put_file(DISK, path, 2**20 * b"x")
    if not is_in_memory(path):
        pytest.skip("this file system does not say whether a file is in memory")
    DISK.forget(path)
    assert (is_in_memory(path), path.read_bytes()) == (False, 2**20 * b"x")


def test_nobody_minds_that_a_file_to_be_forgotten_is_gone(tmp_path):
    """Somebody may have removed what was sealed."""
    DISK.forget(tmp_path / "gone")
    assert not (tmp_path / "gone").exists()


def is_in_memory(path) -> bool:
    """Whether a read of its first page needs no disk."""
    with path.open("rb") as file:
        try:
            return os.preadv(file.fileno(), [bytearray(4096)], 0, os.RWF_NOWAIT) > 0
        except OSError:  # EAGAIN, or a file system that cannot tell
            return False


@pytest.fixture
def root_folder(request):
    return request.config.rootpath
