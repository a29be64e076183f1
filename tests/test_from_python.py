"""Python gives what the command line gives, or refuses in one line: with Lightning's Trainer alone."""

import copy
import io
import pickle
import sys
from pathlib import Path

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import GradientAccumulationScheduler
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

sys.path.insert(0, str(Path(__file__).parent / "reliability"))
from small import data_folder, launch

from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
from vgg_lightning import prepare as runs
from vgg_lightning.base.errors import UserError

MODEL = {"network": "lenet", "image_size": 28, "optimizer": "adam", "lr": 0.003}
DEEP = {"network": "vgg11", "ratio": 64, "head": "batchnorm", "hidden_units": 16, "batch_norm": True}
NAMES = list("abcdefghij")


def data(**options):
    own = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16, "image_size": 28}
    return FashionMNISTDataModule(**{**own, **options})


def trainer(**options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    brief = {"max_epochs": 1, "accelerator": "cpu", "enable_checkpointing": False, "num_sanity_val_steps": 0}
    return L.Trainer(**{**quiet, **brief, **options})


def loader(images, labels, batch_size=16):
    return DataLoader(TensorDataset(images, labels), batch_size=batch_size)


def weights(model):
    return [value.clone() for value in model.state_dict().values()]


def same(first, second):
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def fitted(file, model=None, module=None):
    L.seed_everything(0)
    model, module, fits = model or Classifier(**MODEL), module or data(), trainer(limit_train_batches=10)
    fits.fit(model, module)
    fits.save_checkpoint(file)
    return model


def one_line(error):
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """A run whose images are not normalized, and whose classes have names."""
    file = tmp_path_factory.mktemp("plain") / "plain.ckpt"
    fitted(file, module=data(normalize=False, classes=NAMES))
    return file


# A checkpoint that was opened is the model that was trained.


@pytest.mark.parametrize("door", [load_classifier, Classifier.load_from_checkpoint])
def test_fit_trains_batchnorm_and_dropout_of_a_model_from_a_checkpoint(tmp_path, door):
    fitted(tmp_path / "x.ckpt", Classifier(**DEEP, image_size=32), data(image_size=32))
    model = door(tmp_path / "x.ckpt")
    before = [value.clone() for name, value in model.state_dict().items() if "running_mean" in name]
    trainer(limit_train_batches=2).fit(model, data(image_size=32))
    after = [value for name, value in model.state_dict().items() if "running_mean" in name]
    assert before
    assert not any(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_a_part_that_its_user_keeps_in_evaluation_stays_there(tmp_path):
    model = Classifier(**DEEP, image_size=32)
    model.network.blocks.eval()
    before = [value.clone() for value in model.network.blocks.buffers()]
    trainer(limit_train_batches=2).fit(model, data(image_size=32))
    assert same(before, list(model.network.blocks.buffers()))


def test_a_models_own_preprocessing_is_never_replaced(plain, capsys):
    own, module = load_classifier(plain), data(classes=NAMES)  # normalized
    (right,) = trainer().test(load_classifier(plain), data(classes=NAMES, normalize=False), verbose=False)
    images = data().images("test")[0]
    before = own.predict(images).probabilities
    capsys.readouterr()
    (result,) = trainer().test(own, module, verbose=False)
    assert result == right
    assert torch.equal(own.predict(images).probabilities, before)
    (line,) = capsys.readouterr().err.strip().splitlines()[-1:]
    assert line == (
        "images are not normalized, as those that the model was trained on; "
        "the data alone has them normalized by mean 0.1997 and std 0.2166"
    )
    assert module.hparams["normalize"] is False


def test_what_is_saved_after_a_second_training_is_how_it_was_trained(plain, tmp_path):
    model = fitted(tmp_path / "x.ckpt", load_classifier(plain), data(classes=NAMES))
    again = load_classifier(tmp_path / "x.ckpt")
    images = data().images("test")[0]
    assert not again.preprocess.normalize
    assert torch.equal(model.eval().predict(images).probabilities, again.predict(images).probabilities)


def test_data_of_other_classes_is_tested_by_no_model(plain):
    for module in (data(classes=NAMES[::-1]), data(classes=[f"{name}s" for name in NAMES])):
        model = load_classifier(plain)
        with pytest.raises(UserError, match=r"the model was trained on a, b, c, \.\.\.") as error:
            trainer().test(model, module)
        assert one_line(error)
        assert list(model.class_names) == NAMES


def test_other_classes_can_be_learnt_and_are_named(plain, capsys, tmp_path):
    fitted(tmp_path / "x.ckpt", load_classifier(plain), data(classes=NAMES[::-1]))
    assert load_classifier(tmp_path / "x.ckpt").class_names == NAMES[::-1]
    assert "the classes of the data are j, i, h, ..., the model was trained on a, b, c, ..." in capsys.readouterr().err


def test_an_open_file_gives_preprocessing_and_names_too(plain):
    with plain.open("rb") as stream:
        model = Classifier.load_from_checkpoint(stream)
    assert not model.preprocess.normalize
    assert list(model.class_names) == NAMES


def test_a_resumed_fit_keeps_the_statistics_of_the_checkpoint(tmp_path):
    fitted(tmp_path / "x.ckpt", module=data(mean=0.5, std=0.4, augment=["cutout"]))
    model, module = Classifier(**MODEL), data(augment=["cutout"])
    trainer(max_epochs=2, limit_train_batches=10).fit(model, module, ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    unbroken, whole = Classifier(**MODEL), data(mean=0.5, std=0.4, augment=["cutout"])
    trainer(max_epochs=2, limit_train_batches=10).fit(unbroken, whole, ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    assert (module.hparams["mean"], module.hparams["std"]) == (model.preprocess.mean, model.preprocess.std)
    assert (model.preprocess.mean, model.preprocess.std) == (0.5, 0.4)
    assert same(weights(model), weights(unbroken))


def test_the_command_line_tests_as_python_does(plain, tmp_path):
    options = ["--data.dataset", "idx", "--data.data_dir", str(data_folder()), "--trainer.accelerator", "cpu"]
    launched = launch(["test", "--ckpt_path", str(plain), *options], tmp_path)
    (result,) = trainer().test(load_classifier(plain), data(classes=NAMES), verbose=False)
    assert f"test accuracy  {100 * result['test_acc']:.2f} %" in launched.out, launched.err


# Plain loaders.


def test_a_plain_loader_of_uint8_images_is_prepared_as_predict_does(plain):
    model = load_classifier(plain)
    images, labels = data().images("test")
    batches = trainer().predict(model, loader(images, labels))
    assert torch.allclose(torch.cat([p for p, _ in batches]), model.predict(images).probabilities, atol=1e-6)
    (ours,) = trainer().test(load_classifier(plain), data(classes=NAMES, normalize=False), verbose=False)
    (theirs,) = trainer().test(model, loader(images, labels), verbose=False)
    assert theirs == pytest.approx(ours, abs=1e-6)


def test_the_loader_of_a_data_module_works_without_it(plain):
    module = data(normalize=False)
    module.prepare_data()
    module.setup("test")
    (ours,) = trainer().test(load_classifier(plain), data(classes=NAMES, normalize=False), verbose=False)
    assert trainer().test(load_classifier(plain), module.test_dataloader(), verbose=False) == [ours]


def test_what_a_loader_without_its_data_module_leaves_out_is_said_once(capsys):
    module = data(augment=["flip", "shift:1"], normalize=False)
    module.prepare_data()
    module.setup("fit")
    trainer(max_epochs=2, limit_train_batches=2).fit(Classifier(**MODEL), module.train_dataloader())
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "without its data module" in line]
    assert "a loader without its data module: its augmentation (flip, shift:1) is left out and images are" in line
    assert "normalized by mean 0.286 and std 0.353, where its own are not normalized; give the data module" in line
    trainer(limit_train_batches=2).fit(Classifier(**MODEL), data(augment=["flip"]))
    assert "without" not in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["fit", "test", "predict"])
def test_images_that_do_not_look_prepared_are_named_and_others_are_not(capsys, verb):
    images, labels = data().pictures("test")
    model, brief = Classifier(**MODEL), dict.fromkeys([f"limit_{each}_batches" for each in ("train", "test")], 2)
    images[0, 0, 0, 0] = 255
    for values, said in ((images.float() / 255, "from 0 to 1"), (images.float(), "from 0 to 255"), (None, "")):
        batches = loader(model.preprocess(images) if values is None else values, labels)
        getattr(trainer(**brief), verb)(model, batches)
        notes = [line for line in capsys.readouterr().err.splitlines() if "the loader's images" in line]
        assert len(notes) == bool(said)
        assert not said or f"numbers {said}, are taken as they are; uint8 images would be scaled to 0..1" in notes[0]


def test_classes_of_a_plain_loader_are_numbers_and_the_file_opens(tmp_path):
    images, labels = data().images("train")
    for classes in (10, 26):
        model, fits = Classifier(**MODEL, num_classes=classes), trainer(max_epochs=1)
        fits.fit(model, loader(images.float() / 255, labels), loader(images.float() / 255, labels))
        fits.save_checkpoint(tmp_path / "x.ckpt")
        again = load_classifier(tmp_path / "x.ckpt")
        assert list(again.class_names) == [str(label) for label in range(classes)]
        assert set(again.predict(images[:4]).names) <= set(again.class_names)


def test_images_without_labels_are_predicted_and_nothing_else(plain):
    images = data().images("test")[0].float() / 255
    model = load_classifier(plain)
    for unlabelled in (DataLoader(TensorDataset(images), batch_size=2), DataLoader(list(images), batch_size=2)):
        probabilities, labels = trainer().predict(model, unlabelled)[0]
        assert probabilities.shape == (2, 10)
        assert labels.tolist() == [-1, -1]
        with pytest.raises(UserError, match="images without labels: give pairs"):
            trainer().test(model, unlabelled)


def test_batches_that_do_not_fit_are_refused_in_one_line():
    x, y = torch.rand(8, 1, 28, 28), torch.arange(8)
    wrong = {
        "labels from 3 to 10, the model takes 0 to 9": (x, y + 3),
        r"images of the shape \(8, 1, 32, 32\), the model takes \(N, 1, 28, 28\)": (torch.rand(8, 1, 32, 32), y),
        r"labels of the shape \(8,\) and type torch.float32": (x, y.float()),
        r"8 images and labels of the shape \(8, 3\)": (x, torch.rand(8, 3)),
    }
    for message, batch in wrong.items():
        with pytest.raises(UserError, match=message) as error:
            trainer().fit(Classifier(**MODEL), loader(*batch))
        assert one_line(error)
    with pytest.raises(UserError, match="batches of the type dict: give pairs"):
        trainer().fit(Classifier(**MODEL), DataLoader([{"image": x[0], "label": 1}]))
    trainer().fit(Classifier(**MODEL), loader(x, y.to(torch.uint8)))


def test_a_whitened_network_refuses_data_that_it_cannot_look_at():
    model = Classifier(network="whitened_vgg")
    with pytest.raises(UserError, match="whitened_vgg takes its first filters from the images of a"):
        trainer().fit(model, loader(torch.rand(8, 1, 32, 32), torch.arange(8)))


# Several fits in one process.


def test_a_second_fit_does_not_depend_on_what_was_fitted_before(tmp_path):
    module, cut = data(), trainer(max_steps=3)
    cut.fit(Classifier(**MODEL), module)
    cut.save_checkpoint(tmp_path / "x.ckpt")
    trainer(max_epochs=1).fit(Classifier(**MODEL), module, ckpt_path=tmp_path / "x.ckpt", weights_only=True)
    L.seed_everything(1)
    model = Classifier(**MODEL)
    other = copy.deepcopy(model)
    trainer(limit_train_batches=5).fit(model, module)
    trainer(limit_train_batches=5).fit(other, data())
    assert same(weights(model), weights(other))


def test_a_model_can_be_fitted_again_and_a_trainer_that_has_ended_says_so():
    model, module, first = Classifier(**MODEL), data(), trainer(limit_train_batches=2)
    first.fit(model, module)
    before = weights(model)
    trainer(limit_train_batches=2).fit(model, module)
    assert not same(before, weights(model))
    for most, ended in {"1 epoch": first, "2 steps": trainer(max_epochs=-1, max_steps=2)}.items():
        if ended is not first:
            ended.fit(model, module)
        with pytest.raises(UserError, match=f"this Trainer has trained its {most} already: make another one"):
            ended.fit(model, module)


# Trainers and processes from elsewhere.


@pytest.mark.parametrize(
    "options",
    [
        {"barebones": True, **dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary"))},
        {"fast_dev_run": True},
        {"overfit_batches": 2},
        {"inference_mode": False},
        {"max_epochs": None, "max_steps": 3},
        {"callbacks": [GradientAccumulationScheduler({0: 2})]},
    ],
    ids=["barebones", "fast_dev_run", "overfit_batches", "inference_mode", "max_steps", "scheduler"],
)
def test_a_trainer_from_elsewhere_trains_and_tests(options):
    if options.get("barebones"):
        options = {**options, "enable_checkpointing": None, "num_sanity_val_steps": None, "limit_train_batches": 2}
    model, module, fits = Classifier(**MODEL, ema_decay=0.9), data(), trainer(**options)
    before = weights(model)
    fits.fit(model, module)
    assert fits.global_step > 0
    assert not same(before, weights(model))
    fits.test(model, module, verbose=False)


def test_sharpness_aware_minimization_refuses_a_scheduler_of_accumulation():
    with pytest.raises(UserError, match="sam_rho takes whole batches: leave accumulate_grad_batches out"):
        trainer(callbacks=[GradientAccumulationScheduler({2: 4})]).fit(Classifier(**MODEL, sam_rho=0.1), data())


def test_models_data_and_batches_can_be_copied_and_sent_to_other_processes():
    model, module = Classifier(**MODEL, ema_decay=0.9), data()
    trainer(limit_train_batches=2).fit(model, module)
    images = data().images("test")[0]
    expected = model.eval().predict(images).probabilities
    stream = io.BytesIO()
    torch.save(model, stream)
    stream.seek(0)
    copies = (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.load(stream, weights_only=False))
    for copied in copies:
        assert torch.equal(copied.predict(images).probabilities, expected)
    for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert copied.trainer is None
        batch, other = (next(iter(found.train_dataloader())) for found in (module, copied))
        assert torch.equal(copy.deepcopy(batch).images, pickle.loads(pickle.dumps(other)).images)


# Subclasses.


class Mine(Classifier):
    """A classifier with an option of its own."""

    def __init__(self, *, extra: int = 1, **options):
        super().__init__(**options)
        self.extra = extra


class Longer(Classifier):
    """A classifier with a layer behind its network, and one beside it."""

    def __init__(self, *, width: int = 5, **options):
        super().__init__(**options)
        self.beside = nn.Linear(width, 2)

    def build(self):
        return nn.Sequential(super().build(), nn.Linear(10, self.hparams["num_classes"]))


class MyData(FashionMNISTDataModule):
    """Data with an option of its own."""

    def __init__(self, *, other: str = "", **options):
        super().__init__(**options)
        self.other = other


def test_subclasses_open_again_with_their_own_options(tmp_path):
    own = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16, "image_size": 28}
    fitted(tmp_path / "x.ckpt", Mine(extra=3, **MODEL), MyData(other="so", classes=NAMES, **own))
    again = Mine.load_from_checkpoint(tmp_path / "x.ckpt")
    assert (again.extra, again.hparams["network"], list(again.class_names)) == (3, "lenet", NAMES)
    assert again.preprocess.mean == 0.1997
    with pytest.raises(UserError, match="Classifier has no option 'extra': if a class of your own has saved it"):
        load_classifier(tmp_path / "x.ckpt")


def test_a_subclass_with_layers_of_its_own_trains_tests_resumes_and_opens_again(tmp_path, capsys):
    options = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16, "image_size": 28}
    place = {"default_root_dir": str(tmp_path), "accelerator": "cpu", "limit_train_batches": 3}

    def run(epochs, folder=None):
        model = Longer(width=4, **MODEL)
        trainer = {**place, "max_epochs": epochs}
        return runs.fit(runs.prepare(model, options, trainer=trainer, name="longer", ckpt_path=folder)), model

    first, _ = run(1)
    folder = tmp_path / "lightning_logs" / "longer" / "version_0"
    assert f'Longer.load_from_checkpoint("{folder.as_posix()}")' in capsys.readouterr().out.partition("next:")[2]
    second, model = run(2, folder)
    assert (first["epochs"], second["epochs"]) == (1, 2)
    again = Longer.load_from_checkpoint(folder)  # the best, which fit has tested
    weights = model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in again.state_dict().items())
    assert again.beside.weight.shape == (2, 4)
    with pytest.raises(UserError, match="if a class of your own has saved it, use its load_from_checkpoint"):
        load_classifier(folder)
    saved = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    saved["hyper_parameters"]["num_classes"] = 11
    torch.save(saved, tmp_path / "other.ckpt")
    with pytest.raises(UserError, match=r"network\.0\.\S+ has the shape"):
        Longer.load_from_checkpoint(tmp_path / "other.ckpt")


class Elsewhere(L.LightningDataModule):
    """A data module that is not this project's."""

    def __init__(self, mean=(0.5,), folder="x"):
        super().__init__()
        self.save_hyperparameters()

    def train_dataloader(self):
        images, labels = data().images("train")
        return loader(images, labels)


def test_a_data_module_from_elsewhere_is_trained_with_and_the_file_opens(tmp_path):
    model = fitted(tmp_path / "x.ckpt", module=Elsewhere())
    images = data().images("test")[0]
    again = load_classifier(tmp_path / "x.ckpt")
    assert torch.equal(again.predict(images).probabilities, model.eval().predict(images).probabilities)


def test_a_prepared_run_takes_subclasses_too_and_resumes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    own = {"dataset": "idx", "data_dir": str(data_folder()), "val_size": 64, "batch_size": 16, "image_size": 28}
    options = {"accelerator": "cpu", "limit_train_batches": 2, "enable_progress_bar": False}
    for epochs in (1, 2):
        ckpt_path = tmp_path / "lightning_logs/lenet/version_0" if epochs == 2 else None
        parts = Mine(extra=2, **MODEL), MyData(other="so", **own)
        run = runs.prepare(*parts, trainer={**options, "max_epochs": epochs}, ckpt_path=ckpt_path, show="none")
        assert runs.fit(run)["steps"] == 2 * epochs
