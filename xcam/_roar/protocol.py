"""The protocol of a ROAR evaluation: its settings, by default or as published."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, cast

from xcam._fit.settings import check_count
from xcam._roar.plan import check_fractions
from xcam._roar.removal import FILLS, MODES, RANKS, UNITS, Mode, Removal

__all__ = ["PRESETS", "Protocol", "parse_shard"]

_DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "fractions": (0.1, 0.3, 0.5, 0.7, 0.9),
        "unit": "pixel",
        "fill": "channel_mean",
        "rank": "signed",
        "target": "predicted",
        "repeats": 5,
        "mask_eval": True,
    }
)
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "paper": {**_DEFAULTS, "unit": "element", "rank": "square"},
        "whitebox": {
            "fractions": (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9),
            "unit": "element",
            "fill": "zero",
            "rank": "signed",
            "target": "label",
            "repeats": 1,
            "mask_eval": False,
        },
    }
)


@dataclass(frozen=True)
class Protocol:
    """What is removed, and which trainings that takes.

    Attributes:
        modes: `"remove"`, `"keep"`, or both.
        fractions: Of the elements, ascending.
        repeats: Trainings of each point.
        target: The class that is explained: `"predicted"` or `"label"`.
        masks_test: Whether validation and test images are masked, too.
        removal: What is removed, and what replaces it.
    """

    modes: tuple[Mode, ...]
    fractions: tuple[float, ...]
    repeats: int
    target: str
    masks_test: bool
    removal: Removal = field(repr=False)

    @classmethod
    def choose(
        cls, preset: str | None, mode: str | Sequence[str], seed: int, **given: object
    ) -> Protocol:
        """Return the protocol of a preset, with what was given in place of its settings.

        Args:
            preset: Its name, or None for the defaults.
            mode: One or both.
            seed: Of the order of equal values.
            **given: Settings by name; None leaves the preset's.

        Raises:
            TypeError: A setting of the wrong kind.
            ValueError: A setting out of its range, or no such preset.
        """
        if preset is not None:
            _check_choice("preset", preset, PRESETS)
        chosen = dict(_DEFAULTS if preset is None else PRESETS[preset])
        chosen |= {name: value for name, value in given.items() if value is not None}
        for name, known in (("unit", UNITS), ("fill", FILLS), ("rank", RANKS)):
            _check_choice(name, chosen[name], known)
        _check_choice("target", chosen["target"], ("predicted", "label"))
        if not isinstance(chosen["mask_eval"], bool):
            raise TypeError(f"mask_eval must be True or False, got {chosen['mask_eval']!r}")
        check_count("repeats", chosen["repeats"])
        check_count("seed", seed, least=0)
        modes = (mode,) if isinstance(mode, str) else tuple(dict.fromkeys(mode))
        for one in modes:
            _check_choice("mode", one, MODES)
        if not modes:
            raise ValueError("mode must be 'remove', 'keep' or both, got none")
        removal = Removal(
            chosen["unit"], chosen["fill"], chosen["rank"], preset == "whitebox", seed
        )
        return cls(
            cast("tuple[Mode, ...]", modes),
            check_fractions(chosen["fractions"]),
            chosen["repeats"],
            chosen["target"],
            chosen["mask_eval"],
            removal,
        )

    def describe(self) -> dict[str, Any]:
        """Return, as JSON, what trainings in one folder must have in common."""
        removal = self.removal
        return {
            "unit": removal.unit,
            "fill": removal.fill,
            "rank": removal.rank,
            "rounding": "up" if removal.rounds_up else "down",
            "seed": removal.seed,
            "mask_eval": self.masks_test,
        }


def parse_shard(shard: str | tuple[int, int] | None) -> tuple[int, int] | None:
    """Return (i, n) of `"i/n"`, from 1/n to n/n.

    Raises:
        ValueError: It is not of this form.
    """
    if shard is None:
        return None
    parts = shard.split("/") if isinstance(shard, str) else list(map(str, shard))
    if len(parts) == 2 and all(part.isdecimal() for part in parts):
        number, count = map(int, parts)
        if 1 <= number <= count:
            return number, count
    raise ValueError(f"shard must be i/n, such as '1/4' for the first of four, got {shard!r}")


def _check_choice(name: str, value: object, known: Collection[str]) -> None:
    if value not in known:
        listed = ", ".join(map(repr, known))
        raise ValueError(f"{name} must be one of {listed}, got {value!r}")
