"""A day in the warehouse: deliveries come in, orders go out, the rest is ordered again."""

from stock.levels import low, receive
from stock.orders import queue, reserve, total
from stock.trail import note


def reorder(levels, minimum, batch):
    """What to order: whole batches until each low article is at its minimum again."""
    wanted = {}
    for article in low(levels, minimum):
        lacking = minimum[article] - levels.get(article, 0)
        size = batch.get(article, 1)
        wanted[article] = -(-lacking // size) * size
    note(f"reorder {wanted}")
    return wanted


def run(levels, deliveries, orders, prices, weights):
    """Serve a day's orders; levels at its end, and for each order cents and what is missing."""
    for article, count in deliveries:
        levels = receive(levels, article, count)
    bills = {}
    by_name = {order["name"]: order for order in orders}
    for name in queue(orders):
        levels, sent, missing = reserve(levels, by_name[name]["lines"])
        bills[name] = {"cents": total(sent, prices, weights), "missing": missing}
        note(f"order {name}: {bills[name]}")
    return levels, bills


def backlog(bills):
    """All that is missing, over all orders."""
    lacking = {}
    for bill in bills.values():
        for article, count in bill["missing"].items():
            lacking[article] = lacking.get(article, 0) + count
    return lacking
