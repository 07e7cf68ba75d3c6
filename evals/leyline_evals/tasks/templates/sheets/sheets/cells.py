"""Cells: text that may stand for a number, a truth value or nothing."""

from sheets.trail import note

TRUE = ["yes", "true", "on"]
FALSE = ["no", "false", "off"]


def value(text):
    """What a cell's text stands for: None, a bool, an int, a float, or the text."""
    text = text.strip()
    if text == "" or text == "-":
        return None
    if text.lower() in TRUE:
        return True
    if text.lower() in FALSE:
        return False
    digits = text[1:] if text[0] in "+-" else text
    whole, dot, rest = digits.partition(".")
    if whole.isdigit() and not dot:
        return int(text)
    if whole.isdigit() and rest.isdigit():
        return float(text)
    note(f"{text!r} stays text")
    return text


def shown(item, width=0):
    """A value as text: numbers to the right of a width, all else to the left."""
    if item is None:
        text = "-"
    elif item is True or item is False:
        text = "yes" if item else "no"
    elif isinstance(item, float):
        text = f"{item:.2f}"
    else:
        text = str(item)
    number = isinstance(item, (int, float)) and not isinstance(item, bool)
    return text.rjust(width) if number else text.ljust(width)
