"""The filters of the first layer, and their outputs for an image."""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from vgg_lightning.run.loggers.boards import Board
from vgg_lightning.show.base import Answers, ValidationShow, some_images
from vgg_lightning.show.drawing import GREY, SIGNED, WIDTH, Page, add_picture, colours, enlarged

MOST, COLUMNS, SIDE, GAP = 32, 8, 36, 6
PICTURE = -1  # which of the images: the last one, an ankle boot


class FirstLayer(ValidationShow):
    """Draws each filter of the first convolution, and below it its answer to one validation image."""

    def show(self, board: Board, step: int, trainer: L.Trainer, model: Any, answers: Answers) -> None:
        """Write the image `val_pictures/first_layer`."""
        layer = next((m for m in model.network.modules() if isinstance(m, nn.Conv2d)), None)
        if layer is None:
            return
        image = some_images(trainer, 10)[0][PICTURE:]
        maps: list[Tensor] = []
        handle = layer.register_forward_hook(lambda module, args, output: maps.append(output))
        try:
            model(model.preprocess(image.to(model.device)))
        finally:
            handle.remove()
        filters = layer.weight.detach().sum(dim=1)  # over the channels, which hold the same grey image
        page = _draw(filters.float().cpu()[:MOST], maps[0][0].detach().float().cpu()[:MOST], image[0, 0])
        add_picture(board, "val_pictures/first_layer", page.picture, step)


def _draw(filters: Tensor, maps: Tensor, image: Tensor) -> Page:
    rows = -(-len(filters) // COLUMNS)
    pitch, pair = SIDE + GAP, 2 * SIDE + 3 * GAP
    page = Page(WIDTH, 54 + SIDE + rows * pair + 6, "filters of the first layer, and their answers")
    page.paste(enlarged(image.numpy(), SIDE), (10, 36))
    page.text((16 + SIDE, 45), "below each filter its answer to this image", size=12, anchor="lm", ink=GREY)
    page.text((16 + SIDE, 61), "red is positive, blue is negative", size=12, anchor="lm", ink=GREY)
    for i, (weights, answer) in enumerate(zip(filters, maps, strict=True)):
        x, y = 10 + i % COLUMNS * pitch, 46 + SIDE + i // COLUMNS * pair
        page.paste(_signed(weights, weights.abs().max()), (x, y))
        page.paste(_signed(answer, maps.abs().amax()), (x, y + SIDE + GAP // 2))
    return page


def _signed(values: Tensor, largest: Tensor) -> Any:
    shares = 0.5 + 0.5 * values / torch.clamp(largest, min=1e-12)
    picture = enlarged(colours(shares.numpy(), SIGNED), SIDE)
    return picture.resize((SIDE, SIDE)) if picture.size != (SIDE, SIDE) else picture
