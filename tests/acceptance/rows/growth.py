"""Row 7: what a decision costs grows with the catalog, and no faster."""

from loadtests.decision_cost import costs, growth, markdown_start, sizes
from tests.acceptance.row import Context, Measured, Row
from tests.acceptance.speed_place import speed_place

PAGE = "docs/performance.md"
LINEAR = 1.5  # times as much as in proportion: caches overflow; what is quadratic would cost ten times as much


def measure(context: Context) -> Measured:
    with speed_place(context) as place:
        found = []
        for cost in costs(place.home):
            context.tell(f"{cost.size}: alone {cost.alone_ms:.2f} ms, in a batch {cost.batched_ms:.2f} ms each")
            found.append(cost)
    grows, page = growth(found), (context.root / PAGE).read_text()
    told = sum(markdown_start(size) in page for size in sizes())
    small, large = found[0], found[-1]
    figure = (
        f"{small.alone_ms:.2f} ms for {small.size.actions} actions, {large.alone_ms:.1f} for {large.size.actions:,}; ten times "
        f"as many actions cost at most {grows.actions:.1f} x, rules {grows.rules:.1f} x; five slots {grows.slots:.1f} x; {told} "
        f"of {len(sizes())} sizes in {PAGE}"
    )
    holds = grows.actions <= 10 * LINEAR and grows.rules <= 10 * LINEAR and grows.slots <= 5 * LINEAR
    return Measured(figure, holds and told == len(sizes()))


ROW = Row(
    7,
    "cost of a decision for 10, 100, 1,000 and 10,000 actions, 10 and 100 rules, 1 and 5 slots; alone, in a batch, compiling",
    f"table in {PAGE}; nothing quadratic: at most {LINEAR:g} x what is in proportion",
    measure,
)
