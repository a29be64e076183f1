"""The features of some images for TensorBoard's PROJECTOR, which shows them as a point cloud."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from vgg_lightning.base.text import printable
from vgg_lightning.show.base import Show, some_images

COUNT = 300
MOST_DIMENSIONS = 32  # kept of the features: those in which the images differ most


class Projector(Show):
    """Writes features, class, prediction and a small image of some validation images at the end of a run."""

    tensorboard_alone = True

    def on_fit_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Write them, with the weights of the end of the run."""
        if trainer.enable_validation:
            self.attempt(trainer, lambda board, step: self._show(board, step, trainer, pl_module))

    @torch.no_grad()
    def _show(self, board: SummaryWriter, step: int, trainer: L.Trainer, model: Any) -> None:
        images, labels = some_images(trainer, COUNT)
        if not len(labels):
            return
        was_training = model.training
        model.eval()
        features, logits = features_of(model, model.preprocess(images.to(model.device)))
        model.train(was_training)
        names = [printable(name) for name in model.class_names]
        _remove_links(Path(board.log_dir), f"{step + 1:05}/features")
        rows = [
            [names[y], names[p], "yes" if y == p else "no"]
            for y, p in zip(labels.tolist(), logits.argmax(dim=1).tolist(), strict=True)
        ]
        board.add_embedding(
            compressed(features),
            metadata=rows,
            label_img=images / 255,
            global_step=step + 1,
            tag="features",
            metadata_header=["class", "predicted", "right"],
        )


def _remove_links(folder: Path, inner: str) -> None:
    """Remove links where TensorBoard is about to write, lest it write to what they point to."""
    for place in (folder / inner).parent, folder / inner:
        if place.is_symlink():
            place.unlink()
    for name in ("metadata.tsv", "sprite.png", "tensors.tsv"):
        (folder / inner / name).unlink(missing_ok=True)
    (folder / "projector_config.pbtxt").unlink(missing_ok=True)


def features_of(model: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return what goes into the last Linear layer (N, features), and the logits (N, num_classes), both float32.

    A network without a Linear layer has its logits for features.
    """
    inputs: list[Tensor] = []
    handles = [
        layer.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
        for layer in model.modules()
        if isinstance(layer, nn.Linear)
    ]
    try:
        logits = model(x).float().cpu()
    finally:
        for handle in handles:
            handle.remove()
    return (inputs[-1].flatten(1).float().cpu() if inputs else logits), logits


def compressed(features: Tensor, dimensions: int = MOST_DIMENSIONS) -> Any:
    """Return the principal components of features (N, D), at most `dimensions`, in three digits: float64 (N, d)."""
    centred = features.double() - features.double().mean(dim=0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    components = centred @ directions[:dimensions].T
    return (components / components.std().clamp(min=1e-12)).numpy().round(3)
