"""Orders: which can be sent now, which in part, which wait."""

from stock.levels import take
from stock.pricing import cost, shipping
from stock.trail import note


def reserve(levels, lines):
    """Levels after an order, what is sent, and what is missing, each as {article: count}."""
    sent = {}
    missing = {}
    for article, count in lines:
        levels, taken = take(levels, article, count)
        if taken:
            sent[article] = sent.get(article, 0) + taken
        if taken < count:
            missing[article] = missing.get(article, 0) + count - taken
        note(f"line {article} x {count}: sent {sent}, missing {missing}")
    return levels, sent, missing


def total(sent, prices, weights):
    """Cents for what is sent, shipping included; nothing sent costs nothing."""
    if not sent:
        return 0
    goods = 0
    weight = 0
    for article, count in sent.items():
        goods += cost(prices[article], count)
        weight += weights.get(article, 0) * count
    note(f"goods {goods}, weight {weight}")
    return goods + shipping(goods, weight)


def queue(orders):
    """Names of orders in the order in which they are served: urgent ones first, then by day."""
    ranked = sorted(orders, key=lambda order: (not order["urgent"], order["day"], order["name"]))
    return [order["name"] for order in ranked]
