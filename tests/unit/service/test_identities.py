"""What is acknowledged as linked is written down."""

from service.decision.records import IdentityRecord
from service.identities import IdentityIntake
from service.stores.identities import MemoryIdentities
from service.stores.memory_log import MemoryDecisionLog


async def test_a_link_that_was_taken_back_and_is_made_again_is_written_down_again():
    """Another process took it back: this one remembers that it wrote it, and must not believe that that holds."""
    log = MemoryDecisionLog()
    intake = IdentityIntake(log, MemoryIdentities(), lambda: 7.0)
    assert (await intake.take([("a", "c"), ("a", "c")])).linked == 1
    assert (await intake.take([("a", "c")])).known == 1
    assert log.identities == [IdentityRecord("a", "c", 7.0)]
    intake.store = MemoryIdentities()
    assert (await intake.take([("a", "c")])).linked == 1
    assert log.identities == [IdentityRecord("a", "c", 7.0)] * 2


async def test_a_known_link_is_written_down_only_the_way_it_was_made():
    """From the alias to whom it leads; said the other way round, or of two aliases of one, it adds nothing that contradicts."""
    log = MemoryDecisionLog()
    made = IdentityIntake(log, MemoryIdentities(), lambda: 7.0)
    await made.take([("a", "c"), ("b", "c")])
    written = list(log.identities)
    assert (await made.take([("c", "a"), ("c", "c")])).known == 2
    assert log.identities == written
    assert (await made.take([("a", "b")])).known == 1
    assert log.identities == [*written, IdentityRecord("a", "c", 7.0)]
    after = IdentityIntake(log, made.store, lambda: 8.0)  # of another process
    assert (await after.take([("a", "c"), ("a", "c")])).known == 2
    assert log.identities[3:] == [IdentityRecord("a", "c", 8.0)]
