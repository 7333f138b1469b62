"""The command line finds the room that owns a command, and errors end in exit code 1."""

import subprocess
import sys

from service.cli import COMMANDS, main


def test_no_command_shows_every_command(capsys):
    """A stranger sees what there is."""
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in COMMANDS)


def test_an_unknown_command_is_wrong_usage(capsys):
    """Exit code 2, as shells expect, and a line that says which one it was and what is near."""
    assert main(["premote"]) == 2
    assert (
        capsys.readouterr().err == "error: Expected a command, got `premote` (did you mean `promote`?); `nextbest` lists them\n"
    )


def test_an_error_that_a_person_can_mend_is_one_line_and_exit_code_1(tmp_path, capsys):
    """Nothing to roll back to: no traceback."""
    assert main(["--home", str(tmp_path), "rollback"]) == 1
    assert capsys.readouterr().err.startswith("error: Expected a previous champion")


def test_a_disk_that_does_not_take_what_is_written_is_one_line_and_exit_code_1(tmp_path, capsys):
    """A home under a file: no traceback, and the path that it is about."""
    (tmp_path / "file").write_text("")
    assert main(["--home", str(tmp_path / "file" / "home"), "keys", "make", "till"]) == 1
    told = capsys.readouterr().err
    assert told == f"error: Expected files and connections that work, got: Not a directory - at `{tmp_path / 'file' / 'home'}`\n"


def test_a_customer_without_an_id_cannot_be_erased(tmp_path, capsys):
    """A script whose variable is empty."""
    assert main(["--home", str(tmp_path), "erase", ""]) == 1
    assert "Expected the id of a customer, got an empty text" in capsys.readouterr().err


def test_whoever_reads_the_output_may_stop(tmp_path):
    """`nextbest ... | head -1`: no traceback, and the code that shells give."""
    code = "import sys; from service.cli import main; sys.exit(main(sys.argv[1:]))"
    command = f'{sys.executable} -c "{code}" --home {tmp_path} catalog schema; echo $? >&2'
    done = subprocess.run(["bash", "-c", f"({command}) | true"], capture_output=True, text=True, check=False)
    assert done.stderr == "141\n"


def test_help_of_the_command_line_loads_no_trainer():
    """`nextbest --help` must not take seconds."""
    heavy = ("feast", "lightgbm", "numpy", "litestar")
    code = f"import sys, service.cli; service.cli.main([]); print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]")
