"""What everything durable is made of."""

import errno
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


@pytest.fixture
def root_folder(request):
    return request.config.rootpath
