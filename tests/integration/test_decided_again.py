"""Decisions that are made again, since a share of a budget went to somebody else: with a real Redis."""

import contextlib

from features.contract import parse_contract
from service.asks import Ask, Made, PlacementAsked, Turn
from service.bundles.assembling import Choice, assemble
from service.catalog.validate import parse_catalog
from service.claims import Claims
from service.ids import new_decision_id
from service.metrics import Metrics
from service.ports import Reading
from service.stores.contact_history import RedisContactHistory
from service.stores.customer_reader import RedisCustomerReader
from service.stores.links import open_link

NOW = 1_790_000_000.0
CONTRACT = parse_contract("features: []")
CATALOG = """
catalog: 1
issues: [{id: all}]
groups: [{id: all, issue: all}]
actions:
  - {id: gold, group: all, kind: offer, value: 1, priority: 3, treatments: [{id: g, placements: [hero]}]}
  - {id: silver, group: all, kind: offer, value: 1, priority: 2, treatments: [{id: s, placements: [hero]}]}
  - {id: news, group: all, kind: content, value: 1, priority: 1, treatments: [{id: n, placements: [hero]}]}
contact:
  caps: [{name: once, at_most: 1, per: action, window: 7d, count: decisions, where: {actions: [silver]}}]
  budgets: [{name: one_gold, action: gold, at_most: 1, count: decisions}]
placements: [{id: hero, channel: web, slots: 2, fallback: {action: welcome, kind: content}}]
"""


def shown(made: Made) -> list[str]:
    return [item.action_id for item in made.record.placements[0].items]


async def test_what_a_decision_shows_counts_though_it_was_made_again_under_the_same_id(redis_url):
    """What it showed the first time was taken back: what it shows at last is younger, and a cap knows it."""
    engine = assemble(parse_catalog(CATALOG, CONTRACT)[1], CONTRACT, Choice(1, None), lambda _: None)
    link = open_link(redis_url, timeout_ms=5000)
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(link.close)
        reader = RedisCustomerReader(link, CONTRACT, lambda: True)
        claims = Claims(reader, RedisContactHistory(link), Metrics())

        def asks(*customers: str) -> list[Ask]:
            return [Ask(new_decision_id(c), c, {}, (PlacementAsked("hero"),)) for c in customers]

        async def decided(now: float, *customers: str) -> list[Made]:
            turn = Turn(engine, now)
            read: Reading = await claims.look(turn, customers)
            made = turn.make(asks(*customers), read)
            await claims.settle(turn, made)
            return made

        first, second = await decided(NOW, "c1", "c2")
        assert sorted(map(shown, (first, second))) == [["gold", "silver"], ["silver", "news"]]
        late = "c1" if shown(first) == ["silver", "news"] else "c2"
        [again] = await decided(NOW + 60, late)
        assert shown(again) == ["news"]
