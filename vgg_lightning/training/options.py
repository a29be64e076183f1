"""The options of a Classifier: one row for each argument of its `__init__`, in their order."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any

from vgg_lightning.base.errors import UserError, nearest, option
from vgg_lightning.base.options import BELOW_ONE, COUNT, NOT_NEGATIVE, POSITIVE, SHARE, Option, Range, check, fits
from vgg_lightning.networks import DROPOUT, GIVEN, is_own, is_whitened, network_options
from vgg_lightning.training.compiling import COMPILE_MODES
from vgg_lightning.training.optimizers import OPTIMIZERS
from vgg_lightning.training.schedules import SCHEDULES
from vgg_lightning.training.tta import VIEWS

NetworkOptions = dict[str, bool | int | float | str]
NO_FSDP = Range(lambda value: not value, "is not possible with fsdp: use 0, or ddp")

OPTIONS: dict[str, Option] = {
    "network": Option(
        resumed="kept",
        fsdp=Range(lambda name: not is_whitened(name), "is not possible with fsdp, nor large enough for it: use ddp"),
    ),
    "ratio": Option(COUNT, resumed="kept"),
    "hidden_units": Option(COUNT, resumed="kept"),
    "batch_norm": Option(resumed="kept"),
    "norm_after_relu": Option(resumed="kept"),
    "head": Option(resumed="kept"),
    "dropout": Option(DROPOUT),
    "poolings": Option(COUNT, resumed="kept"),
    "options": Option(resumed="kept"),
    "in_channels": Option(COUNT, resumed="kept"),
    "num_classes": Option(COUNT, resumed="kept"),
    "image_size": Option(COUNT, resumed="kept", follows="data.image_size"),
    "init": Option(resumed="ignored"),
    "optimizer": Option(
        choices=OPTIMIZERS,
        resumed="refused",
        fsdp=Range(lambda name: name != "muon", "needs whole matrices, which fsdp does not have: use sgd, or ddp"),
    ),
    "lr": Option(POSITIVE),
    "momentum": Option(BELOW_ONE),
    "nesterov": Option(),
    "weight_decay": Option(NOT_NEGATIVE),
    "bias_lr_factor": Option(POSITIVE),
    "schedule": Option(choices=SCHEDULES),
    "schedule_end": Option(SHARE),
    "warmup_epochs": Option(NOT_NEGATIVE),
    "label_smoothing": Option(BELOW_ONE),
    "ema_decay": Option(BELOW_ONE, fsdp=NO_FSDP),
    "lookahead_steps": Option(NOT_NEGATIVE, fsdp=NO_FSDP),
    "sam_rho": Option(NOT_NEGATIVE, fsdp=NO_FSDP),
    "teacher": Option(place=True),
    "distill": Option(SHARE),
    "distill_temperature": Option(POSITIVE),
    "tta": Option(choices=VIEWS),
    "weights": Option(place=True, resumed="ignored"),
    "channels_last": Option(),
    "compile": Option(choices=COMPILE_MODES),
}
PLACES = [name for name, row in OPTIONS.items() if row.place]
# Options of the networks with VGG's defaults, which change nothing: what differs is handed to the builder.
NETWORK_OPTIONS = {name: default for name, default in network_options("vgg11").items() if name not in GIVEN}


def network_arguments(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `build_network` among the options of a Classifier.

    Raises:
        UserError: if `options` names what is an option of the Classifier itself, or what the network does not have.
    """
    network, more = options["network"], _given(options)
    changed = {name: options[name] for name, default in NETWORK_OPTIONS.items() if options[name] != default}
    for name in more:
        place, has = option(f"model.options.{name}"), _options_of(network)
        if name in GIVEN or (name in NETWORK_OPTIONS and not is_own(network)):
            raise UserError(f"{place} is unknown (did you mean {option(f'model.{name}')}?)")
        if name not in has:
            all_of = f"has {', '.join(has)}" if has else "has none but those of every Classifier"
            raise UserError(f"{place} is unknown{nearest(name, has)}: {network} {all_of}")
        if changed.get(name, more[name]) != more[name]:
            raise UserError(f"{option(f'model.{name}')} and {place} differ: give one of them")
    return {"name": network, **{name: options[name] for name in GIVEN}, **changed, **more}


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that a network has beside those of a Classifier, complete: as given, or their defaults."""
    has = _options_of(options["network"])
    flat = {
        name: options[name] for name in has.keys() & NETWORK_OPTIONS.keys() if options[name] != NETWORK_OPTIONS[name]
    }
    return {**has, **flat, **_given(options)}


def _given(options: Mapping[str, Any]) -> dict[str, Any]:
    found = options.get("options") or {}  # checkpoints of before have none
    if not fits(found, NetworkOptions):
        raise UserError(f"{option('model.options')} {found!r} is not a table of names with plain values")
    return dict(found)


def _options_of(network: str) -> dict[str, Any]:
    """Return the options of a network that no Classifier has, with their defaults; of the user's own, all."""
    shared = GIVEN if is_own(network) else (*GIVEN, *NETWORK_OPTIONS)
    return {name: default for name, default in network_options(network).items() if name not in shared}


def settle_options(options: MutableMapping[Any, Any]) -> None:
    """Check options, and complete those of the network, so that a checkpoint keeps all. Raises UserError."""
    check_options(options)
    options["options"] = own_options(options) or None


def check_options(options: Mapping[str, Any]) -> None:
    """Raise UserError for the first option that is not finite, out of its range or no choice."""
    check("model", OPTIONS, options)


check_ranges = check_options
