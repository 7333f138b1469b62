"""`POST /identities`."""

import pytest


async def test_a_link_is_taken_written_down_and_known_the_second_time(client, service):
    """An alias of somebody else, and personal data, are refused one by one."""
    links = [{"alias": "a-1", "customer_id": "c42"}, {"alias": "ann@shop.example", "customer_id": "c42"}]
    answer = await client.post("/identities", json={"links": links})
    assert answer.status_code == 202
    body = answer.json()
    assert (body["linked"], body["known"], [r["index"] for r in body["rejected"]]) == (1, 0, [1])
    again = await client.post("/identities", json={"links": [{"alias": "a-1", "customer_id": "c43"}, links[0]]})
    assert (again.json()["linked"], again.json()["known"]) == (0, 1)
    assert "unlink it first" in again.json()["rejected"][0]["error"]
    [record] = service.log.identities
    assert (record.alias, record.customer_id, record.linked) == ("a-1", "c42", True)


@pytest.mark.parametrize("body", ["", "{}", '{"links": []}', '{"links": [{"alias": "a"}]}', '{"links": [1]}'])
async def test_a_call_that_is_none_is_refused(client, body):
    """400."""
    assert (await client.post("/identities", content=body)).status_code == 400


async def test_an_id_that_is_said_to_be_its_own_alias_is_refused(client, service):
    """One of the rejected, and nothing is written down; links beside it are taken."""
    links = [{"alias": "c42", "customer_id": "c42"}, {"alias": "a-1", "customer_id": "c42"}]
    answer = await client.post("/identities", json={"links": links})
    told = "Expected two ids, got `c42` as an alias of itself"
    assert answer.json() == {"linked": 1, "known": 0, "rejected": [{"index": 0, "error": told}]}
    assert [record.alias for record in service.log.identities] == ["a-1"]
