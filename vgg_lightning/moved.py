"""The names of modules from before the package was laid out in rooms: each goes on being the module that it is today.

>>> import vgg_lightning.errors, vgg_lightning.base.errors
>>> vgg_lightning.errors is vgg_lightning.base.errors
True
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

# Old name -> new one, both below the package. A tuple stands for a package that is none any more, or for a module whose
# names went to several.
MOVED: dict[str, str | tuple[str, ...]] = {
    "arguments": "cli.defaults",
    "callbacks": ("prepare",),
    "callbacks.averaging": "training.averaging",
    "callbacks.chance": "training.metrics",
    "callbacks.checkpoints": ("run.checkpoints.callbacks", "prepare.trainer"),
    "callbacks.class_table": "show.class_table",
    "callbacks.csv_log": "run.loggers.csv",
    "callbacks.finite": "run.guards.finite",
    "callbacks.lean": "run.lightning_private",
    "callbacks.lookahead": "training.averaging",
    "callbacks.position": "run.checkpoints.loop_state",
    "callbacks.progress": "run.progress",
    "callbacks.report": "show.report",
    "callbacks.show": "show",
    "callbacks.show.base": "show.base",
    "callbacks.show.calibration": "show.calibration",
    "callbacks.show.classes": "show.classes",
    "callbacks.show.confusion": "show.confusion",
    "callbacks.show.curves": "show.curves",
    "callbacks.show.drawing": "show.drawing",
    "callbacks.show.filters": "show.filters",
    "callbacks.show.gradcam": "show.gradcam",
    "callbacks.show.histograms": "show.histograms",
    "callbacks.show.layout": "show.layout",
    "callbacks.show.mistakes": "show.mistakes",
    "callbacks.show.projector": "show.projector",
    "callbacks.show.throughput": "show.throughput",
    "callbacks.stop": "run.stop",
    "callbacks.tensorboard": ("run.loggers.tensorboard", "run.loggers.boards"),
    "checkpoints": (),
    "checkpoints.agreement": "loading.agreement",
    "checkpoints.card": "export.card",
    "checkpoints.digest": "run.checkpoints.seal",
    "checkpoints.find": ("run.checkpoints.locate", "cli.defaults"),
    "checkpoints.int8": "export.int8",
    "checkpoints.load": ("loading.load", "classifier", "run.checkpoints.locate"),
    "checkpoints.onnx_file": "export.onnx",
    "checkpoints.options": ("loading.opened", "base.options"),
    "checkpoints.program": "export.program",
    "checkpoints.run_config": "cli.run_config",
    "checkpoints.sharing": ("loading.opened", "export.safetensors", "base.files"),
    "checkpoints.write": "run.checkpoints.io",
    "commands": (),
    "commands.arguments": "cli.network_arguments",
    "commands.checks": "cli.checks",
    "commands.compare": "compare.command",
    "commands.completion": "cli.completion",
    "commands.data": "cli.data",
    "commands.doctor": "cli.doctor",
    "commands.export": "export.command",
    "commands.find": "find.command",
    "commands.find_batch_size": "find.batch_size",
    "commands.find_lr": "find.lr",
    "commands.finder_cli": "find.finder",
    "commands.measure": "compare.measure",
    "commands.own_pictures": "cli.prediction_files",
    "commands.predict": "cli.predict",
    "commands.presets": "cli.presets",
    "commands.render": "base.text",
    "commands.scale": "compare.scale_model",
    "commands.serve": "serve.command",
    "commands.summary": ("cli.summary", "networks.summary_table"),
    "commands.sweep": "sweep.command",
    "configs": "presets",
    "data.catalogue": "data.sources.catalogue",
    "data.debian": "data.sources.debian",
    "data.download": "data.sources.download",
    "data.folders": "data.images.dataset",
    "data.idx": "data.sources.idx",
    "data.local": "data.sources.local",
    "data.picture_files": ("data.images.decode", "data.images.prepare_image"),
    "data.picture_folder": "data.images.folder",
    "data.images.prepare": ("data.images.decode", "data.images.prepare_image"),
    "data.pictures": ("data.images.decode", "data.images.prepare_image"),
    "data.progress": "base.progress",
    "data.store": "data.sources.store",
    "disk": "base.files",
    "errors": "base.errors",
    "fit_options": "cli.fit_options",
    "networks.summary": "networks.cost",
    "parallel": (),
    "parallel.devices": "run.parallel.devices",
    "parallel.launcher": "run.parallel.launcher",
    "parallel.meeting": "run.parallel.rendezvous",
    "parallel.ranks": "base.process",
    "parallel.shard": "run.collectives",
    "parallel.strategies": "run.parallel.strategies",
    "parallel.talk": "run.collectives",
    "parser": "cli.parser",
    "predictions": "training.tta",
    "runs": ("run.folders", "run.loggers.choice", "base.text"),
    "scoring": "training.metrics",
    "seeds": "base.seeds",
    "signals": "run.signals",
    "terminal": "base.progress",
    "training.allocator": "base.machine",
    "training.ranges": "training.options",
    "tta": "training.tta",
    "wording": "cli.messages",
}


class Parts(ModuleType):
    """A module that is none any more: its names are looked up in those that have them now."""

    def __getattr__(self, name: str) -> Any:
        homes = () if name.startswith("__") else MOVED[self.__name__.partition(".")[2]]
        for home in homes:
            module = importlib.import_module(f"vgg_lightning.{home}")
            if hasattr(module, name):
                return getattr(module, name)
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class MovedFinder(MetaPathFinder, Loader):
    """Finds modules by their names in `MOVED`."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> Any:
        """Return how to load a module that has moved, None for every other one."""
        package, _, name = fullname.partition(".")
        if package != "vgg_lightning" or name not in MOVED:
            return None
        return ModuleSpec(fullname, self, is_package=not isinstance(MOVED[name], str))

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Return a module for the names of several; where one has them all, it is replaced at once."""
        return Parts(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Put the module that has the names today in the place of the old one."""
        home = MOVED[module.__name__.partition(".")[2]]
        if isinstance(home, str):
            sys.modules[module.__name__] = importlib.import_module(f"vgg_lightning.{home}")


def install() -> None:
    """Let the old names be found; before the usual finders, which would load a module of a moved package again."""
    sys.meta_path.insert(0, MovedFinder())
