"""Sealing: every record is read once, from the lake or from the log, however far a seal came."""

import asyncio
import contextlib
import shutil
from concurrent.futures import ThreadPoolExecutor

import duckdb
import msgspec
import pytest

from features.homes import home_contract
from service.cli import main
from service.decision.records import DecisionRecord, ErasureRecord, EventRecord, IdentityRecord, OutcomeRecord, Versions
from service.errors import UnknownDecision
from service.files import locked
from service.registry import Registry
from service.stores.decisions import find_decision as find_served
from service.stores.segment_log import SegmentLog
from tests.acceptance.disks import FailingFiles
from training import decision_log
from training.event_history import read_aliases, read_events
from training.examples import Objective, load_examples
from training.experiments import experiments
from training.lake_store import POINTER, FolderLake, RemoteLake, open_lake
from training.live_log import payloads, read_log, read_payloads, segments, sources, write_segment
from training.rebuild import contacts_in
from training.replay import replay
from training.sealing import LOCK, ManifestInvalid, manifest_names, read_manifests, remove_sealed, seal
from training.verifying import verify
from training.whatif import Draft, what_if

AT = 1_790_000_000.0
DAY = 86_400.0
KINDS = ("decisions", "outcomes", "events", "identities")


def decision(name: str, at: float = AT) -> DecisionRecord:
    return DecisionRecord(name, "c1", at, {"age": 40.0}, {}, (), Versions(1, None, "x"), ())


def fill(home, prefix: str, count: int = 6, *, close: bool = True) -> SegmentLog:
    """Some records of each kind, over two days, in a log that is closed or still open."""

    async def write() -> SegmentLog:
        log = SegmentLog(home / "log", segment_bytes=800)
        for n in range(count):
            at = AT + n * DAY / 3
            await log.append_decisions([log.entry(decision(f"{prefix}{n}", at))])
            await log.append_outcomes([OutcomeRecord(f"{prefix}{n}", f"{prefix}{n}", "click", at, at)])
            await log.append_events([EventRecord(f"{prefix}{n}", "c1", "viewed", "web", at, at, {"price": 1.5})])
            await log.append_identities([IdentityRecord(f"{prefix}{n}", "c1", at)])
        if close:
            await log.close()
        return log

    return asyncio.run(write())


def everything(home) -> dict[str, list[bytes]]:
    return {kind: sorted(read_payloads(home, kind)) for kind in KINDS}


def test_what_was_sealed_is_read_as_it_was_written_once(tmp_path):
    """Byte for byte, by every reader: records, events, aliases, contacts, and one decision by its id."""
    fill(tmp_path, "a")
    before, contacts = everything(tmp_path), contacts_in(tmp_path)
    report = seal(tmp_path)
    assert (report.records, report.damaged, report.torn, report.growing) == (24, 0, 0, 0)
    assert (everything(tmp_path), segments(tmp_path, "decisions")) == (before, [])
    assert (contacts_in(tmp_path), len(read_aliases(tmp_path)), len(list(read_events(tmp_path)))) == (contacts, 6, 6)
    assert decision_log.find_decision(tmp_path, "a3") == decision("a3", AT + DAY)
    assert find_served(tmp_path / "log" / "decisions", "a3") == decision("a3", AT + DAY)
    assert verify(tmp_path).findings == ()


def test_files_lie_by_day_in_order_of_time_with_plain_fields_as_columns(tmp_path):
    """Whoever asks with SQL needs nothing of ours."""
    fill(tmp_path, "a")
    seal(tmp_path)
    names = [name.split("/")[1] for name in open_lake(tmp_path).names("outcomes") if name.endswith(".parquet")]
    assert names == ["date=2026-09-21", "date=2026-09-22", "date=2026-09-23"]
    files = duckdb.read_parquet(f"{tmp_path}/lake/outcomes/date=*/sealed-*.parquet")
    rows = files.select("outcome_id", "value", "orphan", "written_at").fetchall()
    assert [row[:3] for row in rows] == [(f"a{n}", 0.0, False) for n in range(6)]
    assert [row[3] for row in rows] == sorted(row[3] for row in rows)


def test_what_two_commands_write_in_one_millisecond_is_all_there(tmp_path):
    """Two erasures at once: one of the two would be forgotten, and the customer not."""
    for name in ("c1", "c2"):
        write_segment(tmp_path, "erasures", "erase", [ErasureRecord(name, AT)], AT)
    assert {record.customer_id for record in read_log(tmp_path, "erasures", ErasureRecord)} == {"c1", "c2"}


def test_a_day_that_was_deleted_is_passed_over_and_counted(tmp_path):
    """Who no longer needs a day may delete it: all that reads the rest goes on, and says how much it lacks."""
    fill(tmp_path, "a")
    seal(tmp_path)
    told, days = list[int](), sorted((tmp_path / "lake" / "decisions").glob("date=*"))
    shutil.rmtree(days[0])
    read = [payload for source in sources(tmp_path, "decisions") for payload in payloads(source, told.append)]
    assert (len(days), len(read), sum(told)) == (3, 4, 2)
    assert [one.record.decision_id for one in decision_log.read_decisions(tmp_path)] == ["a2", "a3", "a4", "a5"]
    with pytest.raises(UnknownDecision):
        decision_log.find_decision(tmp_path, "a0")
    assert [finding.reason for finding in verify(tmp_path).findings] == ["Expected a file of 2 rows, found none"]
    for day in days[1:]:
        shutil.rmtree(day)
    assert list(read_payloads(tmp_path, "decisions")) == []


class SealedMeanwhile(FolderLake):
    """Somebody seals while names are read: before they are told, or after."""

    def __init__(self, home, *, before: bool) -> None:
        super().__init__(home / "lake")
        self._home, self._before, self._done = home, before, False

    def names(self, folder: str) -> list[str]:
        told = super().names(folder)
        if not self._done:
            self._done = True
            seal(self._home)
        return super().names(folder) if self._before else told


@pytest.mark.parametrize("before", [True, False])
def test_a_reader_beside_a_seal_reads_each_record_once(tmp_path, before):
    """Whether the seal ends before or after it has looked for manifests."""
    fill(tmp_path, "a")
    written = sorted(read_payloads(tmp_path, "decisions"))
    found = sources(tmp_path, "decisions", SealedMeanwhile(tmp_path, before=before))
    assert sorted(payload for source in found for payload in payloads(source)) == written
    assert segments(tmp_path, "decisions") == []


def test_who_seals_beside_somebody_who_seals_waits(tmp_path):
    """Two lists of segments that differ would become two manifests that name the same records."""
    fill(tmp_path, "a")
    with ThreadPoolExecutor() as pool:
        with locked(tmp_path / LOCK):
            second = pool.submit(seal, tmp_path)
            with pytest.raises(TimeoutError):
                second.result(timeout=0.3)
        assert second.result(timeout=10).records == 24


def test_a_segment_that_a_living_process_writes_to_is_not_sealed(tmp_path):
    """Its full segments are; the open one is read from the log, and sealed once its writer has ended."""
    log = fill(tmp_path, "a", close=False)
    before = everything(tmp_path)
    report = seal(tmp_path)
    assert report.growing > 0
    assert 0 < report.records < 24
    assert everything(tmp_path) == before
    asyncio.run(log.close())
    assert seal(tmp_path).records == 24 - report.records
    assert everything(tmp_path) == before


@pytest.mark.parametrize("operation", ["create", "write", "sync", "rename", "sync_folder", "make_folder"])
@pytest.mark.parametrize("allowed", [0, 1, 2, 3, 5, 8])
def test_a_seal_that_is_interrupted_anywhere_changes_nothing_that_is_read_and_is_done_by_the_next(tmp_path, operation, allowed):
    """A disk that refuses after so many operations: each record once, before and after the second try."""
    fill(tmp_path, "a")
    before, files = everything(tmp_path), GivingUp(operation, allowed)
    with pytest.raises(OSError, match="injected") if allowed < 8 else contextlib.suppress(OSError):
        seal(tmp_path, files=files)
    assert everything(tmp_path) == before
    seal(tmp_path)
    assert (everything(tmp_path), segments(tmp_path, "events")) == (before, [])
    assert verify(tmp_path).findings == ()


class GivingUp(FailingFiles):
    """Refuses one operation after it was allowed so many times."""

    def __init__(self, operation: str, allowed: int) -> None:
        super().__init__()
        self._operation, self._allowed = operation, allowed

    def _pass(self, operation: str) -> None:
        if operation == self._operation and self.counts[operation] >= self._allowed:
            self.fail(operation, 28)
        super()._pass(operation)


def test_damaged_lines_and_torn_tails_are_kept_and_counted(tmp_path):
    """Nothing is dropped in silence: their bytes lie in the lake, and the manifest counts them."""
    fill(tmp_path, "a")
    path = segments(tmp_path, "events")[0]
    data = bytearray(path.read_bytes())
    data[20] ^= 1
    path.write_bytes(bytes(data) + b"12345678 9 torn")
    report = seal(tmp_path)
    assert (report.damaged, report.torn, report.records) == (1, 1, 23)
    [manifest] = read_manifests(open_lake(tmp_path), "events")
    kept = open_lake(tmp_path).get(manifest.spoiled).splitlines()
    assert [msgspec.json.decode(line)["torn"] for line in kept] == [False, True]


def test_segments_stay_until_somebody_says_remove_and_go_only_where_the_lake_holds_them_whole(tmp_path):
    """A damaged file in the lake keeps its segments; afterwards readers find everything in the lake."""
    fill(tmp_path, "a")
    before = everything(tmp_path)
    seal(tmp_path)
    assert remove_sealed(tmp_path, before=0.0) == 0
    lake = open_lake(tmp_path)
    [name] = [name for name in lake.names("events/date=2026-09-21") if name.endswith(".parquet")]
    whole = lake.get(name)
    lake.put(name, whole[:-1] + b"?")
    there = len(list((tmp_path / "log" / "events").glob("*.log")))
    remove_sealed(tmp_path, before=float("inf"))
    assert (there > 0, len(list((tmp_path / "log" / "events").glob("*.log")))) == (True, there)
    assert list((tmp_path / "log" / "decisions").iterdir()) == []
    lake.put(name, whole)
    assert remove_sealed(tmp_path, before=float("inf")) == there
    assert everything(tmp_path) == before
    assert decision_log.find_decision(tmp_path, "a3") == decision("a3", AT + DAY)


def test_a_manifest_that_was_changed_is_not_believed(tmp_path):
    """Whoever reads is told which file it is, and does not guess."""
    fill(tmp_path, "a")
    seal(tmp_path)
    lake = open_lake(tmp_path)
    [name] = manifest_names(lake, "events")
    lake.put(name, lake.get(name).replace(b'"rows":6', b'"rows":5'))
    with pytest.raises(ManifestInvalid, match="checksum"):
        list(read_log(tmp_path, "events", EventRecord))
    assert main(["--home", str(tmp_path), "log", "verify"]) == 1
    assert main(["--home", str(tmp_path), "log", "seal"]) == 1


@pytest.mark.parametrize("scheme", ["memory", "file"])
def test_the_lake_may_lie_elsewhere(tmp_path, scheme):
    """Any fsspec URL: what was sealed there is read from there."""
    url = f"memory://{tmp_path.name}/lake" if scheme == "memory" else f"file://{tmp_path}/elsewhere"
    home = tmp_path / "home"
    fill(home, "a")
    before = everything(home)
    assert main(["--home", str(home), "log", "lake", url]) == 0
    seal(home)
    remove_sealed(home, before=float("inf"))
    assert isinstance(open_lake(home), RemoteLake)
    assert (everything(home), (home / "lake").exists()) == (before, False)
    assert verify(home).findings == ()
    (home / POINTER).unlink()
    assert everything(home)["events"] == []


def test_a_lake_is_not_moved_from_under_its_files(tmp_path):
    """A home with files in its lake refuses to look elsewhere."""
    fill(tmp_path, "a")
    seal(tmp_path)
    assert main(["--home", str(tmp_path), "log", "lake", "memory://x"]) == 1


def test_a_day_can_be_sealed_without_the_days_after(tmp_path, capsys):
    """`--before`: segments whose last record was written earlier."""
    fill(tmp_path, "a")
    assert main(["--home", str(tmp_path), "log", "seal", "--before", "2001-01-01"]) == 0
    assert "sealed 0 records" in capsys.readouterr().out
    assert main(["--home", str(tmp_path), "log", "seal", "--remove"]) == 0
    assert "sealed 24 records" in capsys.readouterr().out


def test_a_home_without_segments_or_lake_has_nothing_to_seal_or_verify(tmp_path):
    """Both say so and change nothing."""
    assert seal(tmp_path)[:2] == (0, 0)
    assert verify(tmp_path)[:2] == (0, 0)
    shutil.rmtree(tmp_path)
    assert verify(tmp_path).findings == ()


def test_every_report_says_the_same_of_a_log_that_lies_in_the_lake(own_busy_home):
    """Examples, what-if, replay and experiments: before sealing, and once the segments are gone."""

    def reports():
        draft = Draft(load_document(own_busy_home), Registry(own_busy_home / "registry").current().champion)
        return (
            load_examples(own_busy_home, Objective("click"), home_contract(own_busy_home)).fingerprint,
            what_if(own_busy_home, draft, "click", processes=1),
            replay(own_busy_home),
            experiments(own_busy_home, "click"),
        )

    before = reports()
    seal(own_busy_home)
    assert remove_sealed(own_busy_home, before=float("inf")) == 2
    assert reports() == before


def load_document(home):
    return Registry(home / "registry").catalog(Registry(home / "registry").current().catalog).document
