"""One figure: ours, what it is compared with, and whether it holds its bar."""

import statistics
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass
class Row:
    """`bar` is for `ratio` where there is another, else for `ours`. At most, unless
    `at_least`."""

    name: str
    unit: str
    samples: list[float]
    bar: float | None
    other_samples: list[float] = field(default_factory=list)
    other_is: str = ""
    at_least: bool = False
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def ours(self) -> float:
        return statistics.median(self.samples)

    @property
    def other(self) -> float | None:
        return statistics.median(self.other_samples) if self.other_samples else None

    @property
    def ratio(self) -> float | None:
        return self.ours / self.other if self.other else None

    @property
    def holds(self) -> bool | None:
        if self.bar is None:
            return None
        if self.other_is and self.ratio is None:
            return False  # the peer was not measured: the row fails
        value = self.ours if self.ratio is None else self.ratio
        return value >= self.bar if self.at_least else value <= self.bar

    def as_dict(self) -> dict[str, Any]:
        return {
            **asdict(self),
            "ours": self.ours,
            "other": self.other,
            "ratio": self.ratio,
            "holds": self.holds,
        }

    def as_line(self) -> str:
        def spread(samples: list[float]) -> str:
            return ", ".join(map(number, samples)) or "-"

        def number(value: float | None) -> str:
            return "-" if value is None else f"{value:,.4g}"

        bar = (
            "-"
            if self.bar is None
            else f"{'>=' if self.at_least else '<='} {self.bar:g}"
        )
        holds = {True: "yes", False: "**no**", None: "-"}[self.holds]
        return (
            f"| {self.name} | {self.unit} | {number(self.ours)} | {number(self.other)} "
            f"| {self.other_is or '-'} | {number(self.ratio)} | {bar} | {holds} "
            f"| {spread(self.samples)} | {spread(self.other_samples)} |"
        )


HEADER = (
    "| name | unit | ours | other | other is | ratio | bar | holds | samples | "
    "the other's |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
)
