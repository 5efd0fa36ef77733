"""Names of classes in messages, and those that are numbers."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["check_numbers", "parse_numbers", "shorten"]


def parse_numbers(names: Sequence[str]) -> list[int] | None:
    """Return the numbers that names are, such as `0` or `007`; None if some are none."""
    if not names or not all(name.isascii() and name.isdigit() for name in names):
        return None
    return [int(name) for name in names]


def shorten(names: Sequence[str], most: int = 5, counted: bool = True) -> str:
    """Return names in a line, the first ones of many and how many there are."""
    line = ", ".join(names[:most])
    if len(names) <= most:
        return line
    return f"{line}, … ({len(names)})" if counted else f"{line}, …"


def check_numbers(names: Sequence[str], owner: str) -> None:
    """Refuse classes that are named by numbers, but not by the numbers of all classes.

    Args:
        names: Of the classes, numbers in their order.
        owner: What has the names, for the message.

    Raises:
        ValueError: A number between 0 and the highest is missing, or there twice.
    """
    numbers = parse_numbers(names)
    wrong = next((k for k, number in enumerate(numbers or ()) if number != k), None)
    if numbers is None or wrong is None:
        return
    if numbers[wrong] < wrong:
        raise ValueError(
            f"{owner} are named by the numbers of their classes, and {numbers[wrong]} is there "
            f"twice ({names[wrong - 1]!r} and {names[wrong]!r}): join the two"
        )
    raise ValueError(
        f"{owner} are named by the numbers of their classes, which count from 0, and {wrong} is "
        f"missing ({shorten(names)}): add an empty folder of that name, or give all of them names "
        "that are not numbers, such as 'class 1'"
    )
