"""Read checkpoint files safely: verified first, then opened as plain values and tensors only.

What one launch of a program reads of one file it reads once: within `one_launch`, a file that was verified is not
verified again, and what was read for the options is handed on to the Trainer, which loads by path.
"""

from __future__ import annotations

import hashlib
import math
import pickletools
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vgg_lightning.base.errors import UserError
from vgg_lightning.base.files import open_regular
from vgg_lightning.base.machine import widest_float
from vgg_lightning.run.checkpoints.seal import verify

PARTS = 1_000_000  # values that any file may stand for, each counted as often as it is reached; else one for each byte
MOST_REPEATED = 16  # times that the tensors may stand for what the file holds
SMALL = 1 << 28  # bytes that they may stand for in any case
DEEPEST = 60  # tables and lists within each other
LARGEST = 256  # bits of a whole number: random states have up to 128
STEPS = 2**53  # more than any run counts
COUNTS = {"ready", "started", "processed", "completed"}  # what Lightning's loops count
TRAINED = ("state_dict", "current_model_state", "averaging_state", "optimizer_states")  # a NaN or Inf would spread

INFINITE = "infinite_buffers"  # the key of the names of buffers that may be infinite

Checkpoint = dict[str, Any]
Stamp = tuple[str, int, int, int]


@dataclass
class ReadFile:
    """A checkpoint file that has been read.

    Attributes:
        file: the file.
        checkpoint: what is in it.
    """

    file: Path
    checkpoint: Checkpoint


@dataclass
class _Launch:
    """What a launch knows of files.

    Attributes:
        sound: those that were verified, with the SHA-256 of a sealed one.
        for_trainer: what was read of the one that the Trainer will load.
    """

    sound: dict[Stamp, str | None] = field(default_factory=dict)
    for_trainer: tuple[Stamp, ReadFile] | None = None


_launch: _Launch | None = None


@contextmanager
def one_launch() -> Iterator[None]:
    """Let what is read within it be read once."""
    global _launch
    before, _launch = _launch, _Launch()
    try:
        yield
    finally:
        _launch = before


def hand_on(found: ReadFile) -> None:
    """Keep what was read until the Trainer loads that file, or the launch ends."""
    if _launch:
        _launch.for_trainer = _stamp(found.file), found


def handed_on(file: Path) -> ReadFile | None:
    """Return what was read of a file, if it was kept for the Trainer and the file is still the same."""
    kept = _launch and _launch.for_trainer
    return kept[1] if kept and file.is_file() and kept[0] == _stamp(file) else None


def take(file: Path) -> Checkpoint:
    """Return what was read of a file, which is not kept any longer; read it if that has not been done."""
    kept = handed_on(file)
    if _launch:
        _launch.for_trainer = None
    return kept.checkpoint if kept else read_checkpoint(file, options=False)


def look_over(file: Path) -> None:
    """See that a file is a sound checkpoint, for who reads it himself; what was kept for the Trainer is let go.

    Raises:
        UserError: if it is damaged.
    """
    if _launch:
        _launch.for_trainer = None
    _check_archive(file)
    _check_sound(file)


def damage(file: Path) -> str | None:
    """Return what is wrong with a checkpoint file, as `seal.damage_of`; within a launch it is verified once.

    Raises:
        OSError: if it cannot be read.
    """
    stamp = _stamp(file)
    if _launch and stamp in _launch.sound:
        return None
    wrong, digest = verify(file)
    if _launch and not wrong:
        _launch.sound[stamp] = digest
    return wrong


def sha256_of(file: Path) -> str:
    """Return the SHA-256 of a file, which is known of a sealed one that was verified in this launch."""
    known = _launch.sound.get(_stamp(file)) if _launch else None
    return known or hashlib.sha256(file.read_bytes()).hexdigest()


def read_checkpoint(file: Path, options: bool = True, bare: bool = False) -> Checkpoint:
    """Read a checkpoint: every checksum in it verified, tensors and plain values only.

    Args:
        file: to read.
        options: whether the options of its model must be in it.
        bare: whether a table of names and tensors will do, which is then the only thing in it: its weights.

    Raises:
        UserError: if the file is damaged, is no checkpoint with weights and options, or holds what no run can use.
    """
    _check_archive(file)
    _check_sound(file)
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    except Exception as error:  # whatever a hostile file makes the reader do wrong
        raise UserError(f"{file} is refused: it holds more than tensors and plain values, or is damaged") from error
    if bare and isinstance(checkpoint, dict) and "state_dict" not in checkpoint:
        weights = {k: v.detach() if type(v) is torch.nn.Parameter else v for k, v in checkpoint.items()}
        checkpoint = {"state_dict": weights, "hyper_parameters": {}}
    needed = {"state_dict", *(["hyper_parameters"] if options else [])}
    if not isinstance(checkpoint, dict) or not needed <= checkpoint.keys():
        raise UserError(f"{file} is not a checkpoint of vgg_lightning: it has no weights or no options")
    weights = checkpoint["state_dict"]
    if not isinstance(weights, dict) or not all(
        type(k) is str and type(v) is torch.Tensor and v.layout == torch.strided for k, v in weights.items()
    ):
        raise UserError(f"{file} is refused: its weights are not a table of names and tensors")
    try:
        fault = fault_of(checkpoint, file.stat().st_size)
    except Exception as error:  # torch has kinds of numbers that nothing can be asked of
        raise UserError(f"{file} is refused: it has tensors that cannot be looked at") from error
    if fault:
        raise UserError(f"{file} is refused: {fault}")
    return checkpoint


def _stamp(file: Path) -> Stamp:
    found = file.stat()
    return str(file.resolve()), found.st_ino, found.st_size, found.st_mtime_ns


def _check_sound(file: Path) -> None:
    try:
        wrong = damage(file)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    if wrong:
        raise UserError(f"{file} is damaged or no checkpoint: {wrong}; use another one")


def _check_archive(file: Path) -> None:
    """Refuse a small file that unpacks to a huge one."""
    try:
        with open_regular(file) as stream, zipfile.ZipFile(stream) as archive:
            parts = archive.infolist()
            if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
                raise UserError(f"{file} is refused: a checkpoint is not compressed")
            if sum(part.file_size for part in parts) > file.stat().st_size:
                raise UserError(f"{file} is refused: its parts are larger than the file")
            for part in parts:
                if part.filename.lower().endswith("data.pkl"):
                    _check_tuples(archive.read(part), file)
    except OSError as error:
        raise UserError(f"cannot read the checkpoint {file}: {error.strerror or error}") from error
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{file} is not a checkpoint, or is damaged: use another one") from error


def _check_tuples(pickled: bytes, file: Path) -> None:
    """Refuse tuples that hold others many times over, before they are built: to hash one as a key would not end.

    The pickle is followed with the number of parts that each value stands for instead of the values.
    """
    stack: list[int] = []
    marks: list[int] = []
    memo: dict[Any, int] = {}
    most = max(len(pickled), PARTS)
    for code, argument, _ in pickletools.genops(pickled):
        if code.name == "MARK":
            marks.append(len(stack))
        elif code.name in ("BINPUT", "LONG_BINPUT", "PUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif code.name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[argument])
        elif code.name == "DUP":
            stack.append(stack[-1])
        else:
            before = [kind.name for kind in code.stack_before]
            begin = marks.pop() if "mark" in before else len(stack) - len(before)
            taken = stack[begin:]
            del stack[begin:]
            if "mark" in before and before.index("mark"):  # what a list or table is extended in
                del stack[len(stack) - before.index("mark") :]
            keeps = code.name.startswith(("TUPLE", "REDUCE", "NEWOBJ"))
            stack += [1 + sum(taken) if keeps else 1] * len(code.stack_after)
            if stack and stack[-1] > most:
                raise UserError(f"{file} is refused: a tuple in it stands for far more than its file holds")


# What a checkpoint holds, looked at before anything uses it: bounded, plain, finite, and as far as a run can be.
#
# A small file can stand for more than a memory holds, since a list may hold itself many times over, and a tensor may
# repeat one number; so it is measured first, each part once, before it is walked in full.


def fault_of(checkpoint: Mapping[str, Any], size: int) -> str:
    """Return what is wrong with the contents of a checkpoint, in words that follow "it is refused: ", or nothing.

    Args:
        checkpoint: as it was read.
        size: bytes of its file.
    """
    try:
        _Measure(max(size, PARTS), max(MOST_REPEATED * size, SMALL)).all_of(checkpoint, "it", 0)
        for name in ("global_step", "epoch"):
            if name in checkpoint and not _is_count(checkpoint[name]):
                return f"{name} is not a number of {name.removeprefix('global_')}s"
        _check_loops(checkpoint.get("loops"))
        _check_schedulers(checkpoint.get("lr_schedulers"))
    except ValueError as error:
        return str(error)
    for number in _numbers(checkpoint.get("optimizer_states")):
        if math.isnan(number):
            return "optimizer_states has a NaN"
    tensors = {where: tensor for key in TRAINED for where, tensor in named_tensors(checkpoint.get(key), key)}
    masks = {f"{key}.{name}" for key in TRAINED[:2] for name in infinite_in(checkpoint)}
    if wrong := first_non_finite(tensors, masks):
        return f"{wrong} has a NaN or Inf"
    return ""


def infinite_in(checkpoint: Mapping[str, Any]) -> list[str]:
    """Return the names of the buffers that a checkpoint says were infinite before the training, such as masks.

    Whoever builds the model holds them against its own, with `foreign_infinite`.
    """
    found = checkpoint.get(INFINITE)
    return [name for name in found if type(name) is str] if isinstance(found, list) else []


def infinite_buffers(module: nn.Module) -> list[str]:
    """Return the names of the buffers of a module that have an Inf and no NaN, as a mask of attention has."""
    return [name for name, buffer in module.named_buffers() if _is_mask(buffer)]


def foreign_infinite(checkpoint: Mapping[str, Any], known: Collection[str]) -> str:
    """Return what a checkpoint calls an infinite buffer and a model has not as one, or nothing.

    Args:
        checkpoint: as it was read.
        known: names of the model's infinite buffers when it was new, of `infinite_buffers`.
    """
    named = [name for name in infinite_in(checkpoint) if name not in known]
    if "state_dict" not in checkpoint:  # FSDP has given the weights to the processes before callbacks are asked
        return named[0] if named else ""
    weights = checkpoint["state_dict"]
    own = {name: weights[name] for name in named if name in weights}
    return first_non_finite({name: tensor for name, tensor in own.items() if tensor.is_floating_point()})


class _Measure:
    """Adds up what a structure stands for, each part of it looked at once.

    Args:
        parts: values that it may stand for.
        size: bytes that its tensors may stand for.
    """

    def __init__(self, parts: int, size: int) -> None:
        self.parts, self.size = parts, size
        self._known: dict[int, tuple[int, int] | None] = {}  # by identity; None while it is being measured

    def all_of(self, value: Any, where: str, depth: int) -> tuple[int, int]:
        """Return the number of parts and the bytes of tensors. Raises ValueError if that is too much."""
        if isinstance(value, Tensor):
            return 1, self._bytes(value, where)
        if isinstance(value, int) and value.bit_length() > LARGEST:
            raise ValueError(f"{where} has a number of more than {LARGEST} bits")
        if not isinstance(value, dict | list | tuple | set | frozenset):
            return 1, 0
        if id(value) not in self._known:
            if depth > DEEPEST:
                raise ValueError(f"{where} is nested more than {DEEPEST} deep")
            self._known[id(value)] = None
            self._known[id(value)] = self._sum(value, where, depth)
        known = self._known[id(value)]
        if known is None:
            raise ValueError(f"{where} holds itself")
        return known

    def _sum(self, value: Any, where: str, depth: int) -> tuple[int, int]:
        parts, total = 1, 0
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            inner = where if depth else str(key)[:60]
            for each in (key, part):
                more, size = self.all_of(each, inner, depth + 1)
                parts, total = parts + more, total + size
        if parts > 2 * self.parts or total > self.size:
            raise ValueError(f"{where} stands for far more than its file holds")
        return parts, total

    def _bytes(self, tensor: Tensor, where: str) -> int:
        if tensor.is_meta or tensor.is_quantized:
            raise ValueError(f"{where} has a tensor {'without values' if tensor.is_meta else 'that is quantised'}")
        return tensor.numel() * tensor.element_size()


def _check_loops(loops: Any) -> None:
    """Raise ValueError if the counts of loops are none. The depth of the structure has been looked at."""
    if isinstance(loops, dict):
        if loops and loops.keys() <= COUNTS and not all(map(_is_count, loops.values())):
            raise ValueError("it does not say how far its run was")
        loops = list(loops.values())
    for part in loops if isinstance(loops, list | tuple) else ():
        _check_loops(part)


def _check_schedulers(states: Any) -> None:
    """Raise ValueError if schedules do not say where they are: -1 is before the first step."""
    for state in states if isinstance(states, list) else ():
        at: Any = state.get("last_epoch", 0) if isinstance(state, dict) else None
        if type(at) not in (int, float) or not -1 <= at < STEPS:
            raise ValueError("it does not say where its schedule of the learning rate is")


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < STEPS


def _numbers(value: Any) -> Iterator[float]:
    if isinstance(value, float):
        yield value
    elif isinstance(value, dict | list | tuple):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _numbers(part)


def named_tensors(value: Any, where: str) -> Iterator[tuple[str, Tensor]]:
    """Yield the tensors of numbers with a fraction in a structure, each with the way to it as its name."""
    if isinstance(value, Tensor):
        if value.is_floating_point() or value.is_complex():
            yield where, value
    elif isinstance(value, dict | list | tuple):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from named_tensors(part, f"{where}.{str(key)[:80]}")


def first_non_finite(tensors: Mapping[str, Tensor], masks: Collection[str] = ()) -> str:
    """Return the name of the first tensor with a NaN or Inf, or nothing.

    Args:
        tensors: by name.
        masks: names of those that may have an Inf.
    """
    for name in masks:
        if name in tensors and bool(_real(tensors[name]).isnan().any()):
            return name
    tensors = {name: tensor for name, tensor in tensors.items() if name not in masks} if masks else tensors
    # A sum is finite if all of its parts are, or overflows; only then each tensor is looked at.
    sums: dict[torch.device, list[Tensor]] = {}
    for tensor in tensors.values():
        sums.setdefault(tensor.device, []).append(_real(tensor).sum(dtype=widest_float(tensor.device)))
    if all(bool(torch.stack(each).sum().isfinite()) for each in sums.values()):
        return ""
    return next((name for name, tensor in tensors.items() if not bool(_real(tensor).isfinite().all())), "")


def _is_mask(tensor: Tensor) -> bool:
    if not tensor.is_floating_point() or tensor.is_meta:
        return False
    real = _real(tensor)
    return bool(real.isinf().any()) and not bool(real.isnan().any())


def _real(tensor: Tensor) -> Tensor:
    """Return a tensor that can be added up."""
    if tensor.is_complex():
        return torch.view_as_real(tensor.resolve_conj())
    tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
    return tensor.float() if tensor.element_size() == 1 else tensor  # 8-bit floats have no sum
