"""What a quantity of an article costs, in cents."""

from stock.trail import note

# From so many pieces on, so many per cent off.
STEPS = [(10, 5), (50, 12), (100, 20)]


def rebate(count, steps=STEPS):
    """Per cent off for a quantity: the step with the largest quantity that is reached."""
    percent = 0
    for least, off in steps:
        if count >= least:
            percent = off
    note(f"rebate for {count}: {percent} %")
    return percent


def cost(price, count, steps=STEPS):
    """Cents for so many pieces, rounded down to whole cents after the rebate."""
    full = price * count
    reduced = full * (100 - rebate(count, steps)) // 100
    note(f"cost {count} x {price}: {full}, reduced {reduced}")
    return reduced


def shipping(total, weight, free_from=5000):
    """Shipping: free from a total on; otherwise 490, and 150 for each kilo begun above two."""
    if total >= free_from:
        return 0
    charge = 490
    if weight > 2000:
        charge += 150 * -(-(weight - 2000) // 1000)
    note(f"shipping of {weight} g for {total}: {charge}")
    return charge
