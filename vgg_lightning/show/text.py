"""The tab TEXT: the configuration of a run, and what its network costs, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L

from vgg_lightning.base.files import read_regular
from vgg_lightning.networks.cost import summarize
from vgg_lightning.networks.summary_table import as_markdown
from vgg_lightning.show.base import Show
from vgg_lightning.training.losses import loss_in_words
from vgg_lightning.training.options import network_arguments

LARGEST = 1_000_000  # bytes of a configuration


class Text(Show):
    """Writes config.yaml, the summary of the network and a word on the loss, once."""

    tensorboard_alone = True

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write them, unless a launch before has."""
        if not trainer.ckpt_path:
            self.attempt(trainer, lambda board, step: self._show(board, trainer, pl_module))

    def _show(self, board: Any, trainer: L.Trainer, model: Any) -> None:
        file = Path(board.log_dir) / "config.yaml"
        if file.is_file():
            board.add_text("run/configuration", f"```yaml\n{read_regular(file, LARGEST).decode()}\n```", 0)
        if words := loss_in_words(model.hparams):
            board.add_text("run/loss", words, 0)
        size = getattr(getattr(trainer, "datamodule", None), "hparams", {}).get("batch_size", 1)
        cost = summarize(batch_size=size, **network_arguments(model.hparams))
        board.add_text("run/network", as_markdown(cost), 0)
