"""What became of each epoch: rows of a CSV file, curves on a TensorBoard."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from xcam._fit.sums import Means, runner_up

__all__ = ["Board", "board", "csv"]


def csv(history: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows of a training as a table, a line an epoch."""
    import pandas as pd

    content: str = pd.DataFrame(history).to_csv(index=False)
    return content.encode()


class Board:
    """Curves of a training on a TensorBoard.

    Args:
        writer: Of the curves; None draws none.
        k: Of the second accuracy, see `runner_up`.
    """

    def __init__(self, writer: Any, k: int) -> None:  # noqa: ANN401 - of a package that may lack
        self.writer, self.k = writer, k

    def step(self, means: Means, number: int, lr: float) -> None:
        """Adds what the steps since the last time gave, at a number of steps."""
        values = {"loss": means.loss, "top1": means.top1, f"top{self.k}": means.topk, "lr": lr}
        self._add("step", values, number)

    def epoch(self, row: Mapping[str, Any], number: int) -> None:
        """Adds a row of the log, at a number of steps."""
        self._add("epoch", {key: value for key, value in row.items() if key != "epoch"}, number)
        if self.writer is not None:
            self.writer.flush()

    def _add(self, part: str, values: Mapping[str, float], number: int) -> None:
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(f"{part}/{name}", value, number)


@contextmanager
def board(path: str | Path | None, classes: int, steps: int) -> Iterator[Board]:
    """A TensorBoard to draw on within the block.

    Args:
        path: The folder of the curves; None draws none.
        classes: Their number.
        steps: How many are done; what a training that was killed drew beyond them is dropped.

    Raises:
        ImportError: TensorBoard is not installed; the message has the command.
    """
    if path is None:
        yield Board(None, runner_up(classes))
        return
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("board_path needs TensorBoard: pip install 'xcam[train]'") from error
    with SummaryWriter(str(path), purge_step=steps + 1) as writer:
        yield Board(writer, runner_up(classes))
