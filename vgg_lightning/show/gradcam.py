"""Layer-CAM, a kind of Grad-CAM: which part of an image is evidence for the predicted class."""

from __future__ import annotations

from typing import Any

import lightning as L
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vgg_lightning.run.loggers.boards import Board
from vgg_lightning.show.base import Answers, ValidationShow, some_images
from vgg_lightning.show.drawing import BAD, GOOD, HEAT, Array, add_picture, colours, enlarged, gallery

COUNT, COLUMNS, SIDE = 20, 5, 56
SMALLEST_MAP = 8  # positions: a coarser map does not localise at 32 x 32 (benchmarks/localise.py)


class GradCAM(ValidationShow):
    """Lays over a fixed set of validation images what speaks for the predicted class."""

    def show(self, board: Board, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write the image `val_pictures/gradcam`."""
        images, labels = some_images(trainer, COUNT)
        with torch.inference_mode(False), torch.enable_grad():
            logits, heat = layer_cam(model, model.preprocess(images.to(model.device)))
        confidence, predicted = logits.softmax(dim=1).max(dim=1)
        captions = [
            ((f"{model.class_names[p]}", GOOD if p == y else BAD), (f"{100 * c:.1f} %", GOOD if p == y else BAD))
            for p, y, c in zip(predicted.tolist(), labels.tolist(), confidence.tolist(), strict=True)
        ]
        pictures = [overlay(image, h) for image, h in zip(images[:, 0].numpy(), heat.numpy(), strict=True)]
        order = [i for row in (0, 1) for i in range(row, len(pictures), 2)]  # one of every class, then another
        title, remark = "what speaks for the predicted class", "bright: much; red names are mistakes"
        page = gallery(title, remark, [pictures[i] for i in order], [captions[i] for i in order], COLUMNS)
        add_picture(board, "val_pictures/gradcam", page, step)


def layer_cam(model: nn.Module, x: Tensor, smallest: int = SMALLEST_MAP) -> tuple[Tensor, Tensor]:
    """Return logits (N, num_classes), and heat from 0 to 1 (N, H, W) for the class with the largest one.

    Grad-CAM (Selvaraju et al., https://arxiv.org/abs/1610.02391) adds the channels of a map, each weighted by the mean
    gradient of the class's logit, and cuts off what is below zero. Layer-CAM (Jiang et al., "LayerCAM: Exploring
    Hierarchical Class Activation Maps for Localization", https://doi.org/10.1109/TIP.2021.3089943) weights each
    position by its own gradient, where that is positive, and so can use maps that are finer than the last one. The map
    is the last one in the network that has at least `smallest` positions in height and width.

    Args:
        model: in evaluation.
        x: preprocessed images (N, C, H, W).
        smallest: positions.
    """
    maps: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= smallest:
            maps[:] = [output]

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    try:
        logits = model(x.requires_grad_())
    finally:
        for handle in handles:
            handle.remove()
    best = logits.max(dim=1).values.sum()  # an image's logit depends on that image alone
    (gradient,) = torch.autograd.grad(best, maps[0])
    heat = F.relu((F.relu(gradient) * maps[0]).sum(dim=1, keepdim=True).float())
    heat = F.interpolate(heat, size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    heat = heat / heat.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    return logits.detach().float().cpu(), heat.detach().cpu()


grad_cam = layer_cam  # its name when it was another method


def without_frame(heat: Array, side: int) -> Array:
    """Return heat (..., H, W) without the black frame that the network sees about an image of `side` pixels.

    An image of 28 x 28 gets one at up to 32 x 32; larger sizes enlarge it.
    """
    frame = (heat.shape[-1] - side) // 2 if heat.shape[-1] <= 32 else 0
    return heat[..., frame : heat.shape[-2] - frame, frame : heat.shape[-1] - frame]


def overlay(image: Array, heat: Array, side: int = SIDE) -> Image.Image:
    """Return a uint8 image (28, 28) in the colours of its heat (H, W)."""
    heat = without_frame(heat, len(image))
    picture = np.asarray(enlarged(image, side), dtype=np.float64)
    warm = Image.fromarray((255 * heat).astype(np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    mixed = 0.5 * picture + 0.5 * colours(np.asarray(warm) / 255, HEAT)
    return Image.fromarray(mixed.astype(np.uint8))
