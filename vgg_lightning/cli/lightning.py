"""fit, validate, test and predict: parse, prepare, run.

LightningCLI is the parser here, with one fixed model and one fixed data class, so that options stay flat. What it would
build itself is left to `prepare`, which Python, finders and sweeps use as well.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from vgg_lightning import prepare as runs
from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import write_whole
from vgg_lightning.base.imports import import_options
from vgg_lightning.base.text import say
from vgg_lightning.classifier import Classifier
from vgg_lightning.cli import help, predict
from vgg_lightning.cli.defaults import config_name, run_name, with_defaults
from vgg_lightning.cli.fit_options import NAMES, add_fit_options
from vgg_lightning.cli.jsonargparse_private import explained, type_hints
from vgg_lightning.cli.parser import Parser, trainer_hints
from vgg_lightning.cli.run_config import note_as_own
from vgg_lightning.data.datamodule import FashionMNISTDataModule
from vgg_lightning.data.sizes import Sizes
from vgg_lightning.networks import option_type
from vgg_lightning.prepare import TRAINER_DEFAULTS, Asked, Run, prepare
from vgg_lightning.run.checkpoints.locate import RunFinished
from vgg_lightning.run.session import quiet, session, silence
from vgg_lightning.training.limits import check_run
from vgg_lightning.training.options import own_options
from vgg_lightning.training.run_options import FIT, LINKED

__all__ = ["TRAINER_DEFAULTS", "VGGLightningCLI", "main", "quiet", "silence"]

# Of --print_config, where these options have no value yet.
UNSAID = f"""\
# null: the run fills it in, or does without. val_size, batch_size and max_epochs are then {Sizes().val_size},
# {Sizes().batch_size} and {Sizes().max_epochs}; of own data they follow the number of images."""
CLASSES = ("logger", "callbacks", "plugins", "strategy", "profiler")  # options that can name classes
METHODS: dict[str, Callable[[Run], Any]] = {"fit": runs.fit, "validate": runs.validate, "test": runs.test}


def main(args: list[str]) -> int:
    """Run one of Trainer's subcommands: `args` is its name and its options. Return the exit code."""
    subcommand, *options = args
    what, options = help.asked(options)
    with session():
        if what:
            cli = VGGLightningCLI(subcommand, with_defaults(subcommand, options, needs_weights=False))
            print(help.text(subcommand, what, cli.options(), cli.value_of))
            return 0
        try:
            if any(option.startswith("--print_config") for option in options):
                print(UNSAID)  # above what the parser prints
            cli = VGGLightningCLI(subcommand, with_defaults(subcommand, options))
            run = prepare(**cli.arguments())
            if subcommand == "predict":
                return predict.predict(run, cli.config)
            METHODS[subcommand](run)
        except RunFinished as finished:
            say(str(finished))
            return 0
    return 1 if run.problems else 0


def options_of(subcommand: str) -> list[help.Option]:
    """Return all options of one of Trainer's subcommands."""
    return VGGLightningCLI(subcommand, with_defaults(subcommand, [], needs_weights=False)).options()


class VGGLightningCLI(LightningCLI):
    """The parser of one subcommand, and what it has read.

    Args:
        subcommand: "fit", "validate", "test" or "predict".
        args: its options.

    Attributes:
        parser: of the subcommand.
        config: the options.
    """

    def __init__(self, subcommand: str, args: list[str]) -> None:
        self.stage = subcommand  # `subcommand` is an attribute of LightningCLI
        self.command = [subcommand, *args, *import_options()]
        trainer_hints()
        description = (inspect.getdoc(getattr(L.Trainer, subcommand)) or "").partition("\n")[0]
        super().__init__(
            Classifier,
            FashionMNISTDataModule,
            save_config_callback=None,  # config.yaml is written once the run folder is there
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_kwargs={
                "prog": f"{Path(sys.argv[0]).name} [options] {subcommand}",
                "description": description,
                "allow_abbrev": False,
            },
            parser_class=Parser,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,  # keeps hyperparameters plain values
            args=args,
            run=False,
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add the options of a run, and link what model and data must agree on."""
        for target, source in LINKED.items():
            parser.link_arguments(source, target)
        parser.set_defaults({"model.num_classes": None})  # it follows the data
        if self.stage == "predict":
            predict.add_options(parser)
        if self.stage == "fit":
            add_fit_options(parser)
        skip: set[str | int] = {"model", "datamodule", "dataloaders", "train_dataloaders", "val_dataloaders"}
        skip |= {"weights_only", "return_predictions"}
        parser.add_method_arguments(L.Trainer, self.stage, skip=skip)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse `args` without Lightning's warning that sys.argv is there too."""
        self.config = parser.parse_args(args)
        if self.stage == "fit" and self.config.resume:
            raise UserError("resume in a configuration does nothing, which is for every run alike: type --resume")
        check_run(self.config)  # the seed, before Lightning sets it
        predict.check_options(self.stage, self.config)

    def instantiate_classes(self) -> None:
        """Build nothing: `prepare` does."""

    def arguments(self, config: Any = None) -> dict[str, Any]:
        """Return the options as arguments of `prepare`; classes that the Trainer's options name are built.

        Args:
            config: what the parser has read; by default the options of the command line.
        """
        config = self.config if config is None else config
        trainer = config.clone()
        for group in ("model", "data"):
            del trainer[group]
        return {
            "model": config.model.as_dict(),
            "data": config.data.as_dict(),
            "stage": self.stage,
            "trainer": self._built(trainer),
            "seed": config.seed_everything,
            "ckpt_path": config.ckpt_path,
            "asked": Asked(self.command, self._default_name(), self._save_config),
            **{name: config[name] for name in NAMES if self.stage == "fit"},
        }

    def _built(self, config: Any) -> dict[str, Any]:
        """Return the options of the Trainer, with the classes that they name built."""
        try:
            return dict(self.parser.instantiate_classes(config, instantiate_groups=False).trainer)
        except (ValueError, TypeError, ImportError) as error:
            causes: list[BaseException] = [error]
            while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
                causes.append(cause)
            missing = next((e for e in causes if isinstance(e, ImportError)), causes[-1])
            named = next((name for name in CLASSES if getattr(config.trainer.get(name), "class_path", None)), "")
            what = f"--trainer.{named} {config.trainer[named].class_path.rpartition('.')[2]}" if named else "--trainer"
            raise UserError(f"{what} cannot be built: {' '.join(str(missing).split())[:200]}") from error

    def options(self) -> list[help.Option]:
        """Return all options of the subcommand, those of its network behind the others of the model."""
        hints, network = type_hints(self.parser), self.config.model.network
        found = [help.Option(name, about, hints[name]) for name, about in explained(self.parser).items()]
        own = [help.Option(name, f"option of {network}", hint) for name, hint in self.network_options().items()]
        after = 1 + max(i for i, option in enumerate(found) if option.name.startswith("model."))
        return [*found[:after], *own, *found[after:]]

    def network_options(self) -> dict[str, Any]:
        """Return the options of the network that have no argument of the Classifier, with their types."""
        network = self.config.model.network
        return {f"model.options.{name}": option_type(network, name) for name in own_options(self.config.model)}

    def value_of(self, name: str) -> Any:
        """Return the value of an option, as far as one can type it."""
        if name == "config":
            return ", ".join(config_name(Path(str(path))) for path in self.config.config or [] if path)
        if name.startswith("model.options."):
            return own_options(self.config.model)[name.removeprefix("model.options.")]
        value = None if name in ("resume", "print_config", "model.options") else self.config.get(name)
        if value is None and name in ("data.val_size", "data.batch_size", "trainer.max_epochs"):
            with contextlib.suppress(UserError):  # there are no images to count
                return getattr(runs.sizes_of(self.config.data, self.config.trainer)[0], name.partition(".")[2])
        return value

    def _default_name(self) -> str:
        files = [Path(str(path)) for path in self.config.config or [] if path]
        return run_name(files) if files else str(self.config.model.network)

    def _save_config(self, file: Path, used: dict[str, Any]) -> None:
        config = self.config.clone()
        for name in (name for name, row in FIT.items() if row.launch):
            config.pop(name, None)  # a recipe for a new run, not a way on with this one
        for name, value in used.items():
            config[name] = value
        write_whole(file, self.parser.dump(config, skip_none=False))
        note_as_own(file)
