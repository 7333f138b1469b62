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
