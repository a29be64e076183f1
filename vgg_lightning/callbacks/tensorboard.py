"""The TensorBoard logger of a run: hyperparameters beside the final metrics, each step once."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only
from torch.utils.tensorboard.summary import hparams as hparams_summary

HPARAMS_METRICS = ("val_acc", "val_loss", "test_acc", "test_loss")


class RunTensorBoard(TensorBoardLogger):
    """TensorBoardLogger whose HPARAMS tab shows the metrics that the run logs, in place of a -1.

    Args:
        step: the run goes on here; TensorBoard drops what was logged at this step and later.
        kwargs: of TensorBoardLogger.
    """

    def __init__(self, step: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs, default_hp_metric=False, log_graph=step is None, purge_step=step)

    @rank_zero_only
    def log_hyperparams(self, params: Any, metrics: Any = None, step: int | None = None) -> None:
        """Write the hyperparameters, and the names of the metrics whose curves are their result."""
        super().log_hyperparams(params, metrics, step)
        plain = {k: v for k, v in dict(params).items() if isinstance(v, str | int | float | bool)}
        for summary in hparams_summary(plain, dict.fromkeys(HPARAMS_METRICS, 0.0)):  # type: ignore[no-untyped-call]
            self.experiment._get_file_writer().add_summary(summary)
