"""Measure whether the map of `--show gradcam` localises: `python -m benchmarks.localise`.

Of 500 validation images of the reference run, the hottest fifth of the garment's pixels is painted black, and the
probability of the predicted class is measured before and after; then the same with a random fifth, five times. A map
says something if the first lowers the probability more. `ratio` is how many times as much. The rows, one for each
method and each fineness of the map, go into results/localise.csv.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import processor
from benchmarks.runner import RESULTS, in_words
from benchmarks.table import Table
from vgg_lightning import FashionMNISTDataModule, load_classifier
from vgg_lightning.base.versions import versions
from vgg_lightning.show.gradcam import SMALLEST_MAP, layer_cam, without_frame

COLUMNS = ("method", "smallest_map", "images", "drop", "drop_random", "ratio", "shown", "device", "versions", "command")
SHARE = 0.2  # of the garment's pixels that is masked
DARK = 20  # up to which a pixel is background
RANDOM = 5  # random masks
METHODS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {  # from map and gradient (N, C, h, w) to heat (N, 1, h, w)
    "Grad-CAM": lambda x, g: (g.mean(dim=(2, 3), keepdim=True) * x).sum(dim=1, keepdim=True),
    "HiResCAM": lambda x, g: (g * x).sum(dim=1, keepdim=True),
    "Layer-CAM": lambda x, g: (F.relu(g) * x).sum(dim=1, keepdim=True),
}
MAPS = (4, 8, 16, 32)


def heat_of(method: str, model: Any, x: Tensor, smallest: int) -> Tensor:
    """Return heat (N, H, W) by another method than the one that is shown, from the same map."""
    maps: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4 and min(output.shape[2:]) >= smallest:
            maps[:] = [output]

    handles = [module.register_forward_hook(keep) for module in model.modules()]
    logits = model(x.requires_grad_())
    for handle in handles:
        handle.remove()
    (gradient,) = torch.autograd.grad(logits.max(dim=1).values.sum(), maps[0])
    heat = F.relu(METHODS[method](maps[0], gradient))
    return F.interpolate(heat, size=x.shape[2:], mode="bilinear", align_corners=False)[:, 0].detach()


def hottest(heat: Tensor, garment: Tensor) -> Tensor:
    """Return which pixels are the hottest `SHARE` of the garment: bool (N, 28, 28)."""
    ranks = heat.masked_fill(~garment, -torch.inf).flatten(1).argsort(dim=1, descending=True).argsort(dim=1)
    counts = (SHARE * garment.flatten(1).sum(dim=1)).round()
    return (ranks < counts[:, None]).view_as(garment)


def main(args: list[str] | None = None) -> None:
    """Measure every method, print and keep what each gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=500)
    count = parser.parse_args(args).images
    model, data = load_classifier("reference"), FashionMNISTDataModule()
    data.prepare_data()
    data.setup("fit")
    images = data.images("val")[0][:count]
    garment = images[:, 0] > DARK

    def probability(mask: Tensor | None = None) -> Tensor:
        masked = images if mask is None else images.masked_fill(mask[:, None], 0)
        return model.predict(masked[:, 0]).probabilities.gather(1, predicted[:, None])[:, 0]

    predicted = model.predict(images[:, 0]).probabilities.argmax(dim=1)
    whole = probability()
    random = torch.Generator().manual_seed(0)
    masks = [hottest(torch.rand(garment.shape, generator=random), garment) for _ in range(RANDOM)]
    by_chance = float(torch.stack([whole - probability(mask) for mask in masks]).mean())
    table = Table(RESULTS / "localise.csv", COLUMNS, ("method", "smallest_map"))
    for smallest in MAPS:
        for method in METHODS:
            shown = method == "Layer-CAM" and smallest == SMALLEST_MAP
            x = model.preprocess(images)
            parts = x.split(100)
            heat = [layer_cam(model, x)[1] if shown else heat_of(method, model, x, smallest) for x in parts]
            mapped = torch.from_numpy(without_frame(torch.cat(heat).numpy(), 28).copy())
            drop = float((whole - probability(hottest(mapped, garment))).mean())
            figures = {"drop": f"{drop:.4f}", "drop_random": f"{by_chance:.4f}", "ratio": f"{drop / by_chance:.2f}"}
            place = {
                "device": processor(),
                "versions": in_words(versions()),
                "command": "python -m benchmarks.localise",
            }
            key = {"method": method, "smallest_map": str(smallest), "images": str(count)}
            table.put([{**key, **figures, "shown": "yes" if shown else "", **place}])
            print(f"{method:<10} maps from {smallest:>2}: {drop / by_chance:.2f} times the drop of a random fifth")


if __name__ == "__main__":
    main()
