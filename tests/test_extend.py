"""The user's own network, data set and callback: docs/extend.md line by line, and what is said of mistakes."""

import hashlib
import re
import shlex
import shutil
import sys

import pytest
import torch
import torchvision
from pages import ROOT, blocks_of, lines_of
from small import BRIEF, data_options, launch

from vgg_lightning import Classifier, FashionMNISTDataModule, load_classifier
from vgg_lightning.base.errors import UserError
from vgg_lightning.base.imports import import_options, imported
from vgg_lightning.data.files import DATASETS
from vgg_lightning.networks import NETWORKS, build_network, load_torchvision_weights
from vgg_lightning.prepare import prepare

PAGE = ROOT / "docs/extend.md"
FIT = [
    "fit",
    "--import",
    "mine",
    "--model.network",
    "mine",
    "--data.dataset",
    "stripes",
    "--trainer.accelerator",
    "cpu",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the page's mine.py; what was imported and added is forgotten again."""
    (tmp_path / "mine.py").write_text(blocks_of(PAGE)[0])
    monkeypatch.chdir(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    forget(before)


def forget(modules):
    for name in set(sys.modules) - modules:
        if name in ("mine", "broken", "taken", "bare"):
            del sys.modules[name]
    for table in (NETWORKS, DATASETS):
        for name in table.keys() - table.shipped:
            del table[name]


def commands(text):
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [shlex.split(line)[1:] for block in blocks for line in lines_of(block)]


def test_the_page_works_line_by_line(folder):
    """All commands of the section, in an empty folder with nothing but the files that it shows."""
    section = PAGE.read_text().partition("## Your own network")[2].partition("\n## ")[0]
    (folder / "space.yaml").write_text(re.findall(r"^```yaml\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[0])
    lines = commands(section)
    assert [line[0] for line in lines] == [
        *("summary", "data", "fit", "test", "validate", "predict", "fit", "compare", "export", "sweep"),
    ]
    said = {}
    for line in lines:
        launched = launch(line, folder)
        assert launched.code == 0, (line, launched.out[-600:], launched.err[-600:])
        said.setdefault(line[0], []).append(launched.out)
    first, resumed = said["fit"]
    assert "epoch 1 is done" in first
    assert "--import mine predict --ckpt_path" in first
    assert "epoch 3 is done" in resumed
    assert "epoch 1 is done" not in resumed
    assert "% on 60 held-out images of stripes" in said["test"][0]
    assert "width 8" in said["summary"][0]
    assert re.search(r"training, examples/s +[\d.,]+ +[\d.,]+$", said["compare"][0], re.MULTILINE)
    assert (folder / "contact_sheet.png").is_file()
    best = (folder / "lightning_logs/space/best.yaml").read_text()
    assert re.search(r"options:\n +width: \d", best)
    assert load_classifier(folder / "mine.safetensors").hparams["options"] == {"width": 8}
    assert all(len(line) <= 100 for out in said["sweep"] + said["compare"] for line in out.splitlines())


def test_a_checkpoint_imports_nothing(folder):
    """Not even when a module of that name lies in the current folder; one line says what to give."""
    before = set(sys.modules)
    assert launch([*FIT, *BRIEF, "--trainer.callbacks", "mine.Hello", "--name", "run"], folder).code == 0
    forget(before)
    for command in ("test --ckpt_path", "predict --ckpt_path", "fit --ckpt_path", "export"):
        launched = launch([*command.split(), "lightning_logs/run/version_0"], folder)
        assert launched.code == 2
        *_, line = launched.err.splitlines()
        assert line.endswith(".ckpt holds the network 'mine', which is unknown here: --import the module that adds it")
    with pytest.raises(UserError, match="unknown here: import the module"):
        load_classifier("lightning_logs/run/version_0")
    assert "mine" not in sys.modules


def test_other_processes_import_it_too(folder):
    launched = launch([*FIT, *BRIEF, "--trainer.devices", "2", "--show", "none"], folder)
    assert launched.code == 0, launched.err
    assert "held-out images of stripes" in launched.out


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ("--import absent", "--import absent: there is no absent.py in "),
        ("--import mine.py", "that of mine.py is mine"),
        ("--import", "--import has no value"),
        ("--import broken", "--import broken: broken.py, line 2: ZeroDivisionError: division by zero"),
        ("--import taken", "--import taken: taken.py, line 3: the name 'vgg11' is taken by a network of vgg_lightning"),
        ("--import bare", "network 'bare' does not take image_size"),
        ("--import json", "another module of that name comes before json.py"),
        ("--import mine --model.network mine --model.options.widht 8", "(did you mean width?): mine has width"),
        ("--import mine --model.network mine --model.options.width wide", "mine takes a whole number"),
        ("--import mine --model.network mine --model.ratio 4", "mine has no option 'ratio'"),
        ("--model.options.ratio 4", "--model.options.ratio is unknown (did you mean --model.ratio?)"),
        ("--model.options.depth 4", "vgg11 has none but those of every Classifier"),
        ("--model.network mine", "or --import the module that adds it"),
        ("--data.dataset stripes", "or --import the module that adds it"),
    ],
)
def test_a_mistake_is_one_line(folder, options, line):
    (folder / "broken.py").write_text("x = 0\nx / x\n")
    (folder / "taken.py").write_text("from vgg_lightning.networks import NETWORKS\n\nNETWORKS['vgg11'] = dict\n")
    (folder / "bare.py").write_text(
        "from vgg_lightning.networks import NETWORKS\nNETWORKS['bare'] = lambda in_channels=1, num_classes=10: None\n"
    )
    (folder / "json.py").write_text("")
    launched = launch(["fit", *options.split(), "--trainer.fast_dev_run", "true"], folder)
    assert launched.code == 2
    assert line in launched.err.splitlines()[-1]
    assert not (folder / "lightning_logs").exists()


def test_commands_that_are_printed_name_the_module_while_it_is_imported(folder):
    with imported(["mine"]):
        assert import_options() == ["--import", "mine"]
    assert import_options() == []
    assert str(folder) not in sys.path


def test_options_are_kept_complete_and_fixed_by_a_checkpoint(folder):
    assert launch([*FIT, *BRIEF, "--name", "run"], folder).code == 0
    run = ["--ckpt_path", "lightning_logs/run/version_0", "--import", "mine"]
    assert "    width: 16\n" in (folder / "lightning_logs/run/version_0/config.yaml").read_text()
    refused = launch(["test", *run, "--model.options.width", "8"], folder)
    assert refused.code == 2
    assert "--model.options {'width': 8} contradicts the checkpoint, which has {'width': 16}" in refused.err
    shown = launch([*FIT, "--help"], folder)
    assert re.search(r"^  --model.options.width 16 +option of mine$", shown.out, re.MULTILINE)


def test_a_network_of_the_package_may_have_such_options():
    assert Classifier(network="densenet", image_size=96).hparams["options"] == {"growth_rate": 32}
    narrow = Classifier(network="densenet", image_size=96, options={"growth_rate": 4})
    assert sum(p.numel() for p in narrow.parameters()) < 100_000
    assert Classifier(ratio=32).hparams["options"] is None
    with pytest.raises(UserError, match="is not a table of names"):
        Classifier(options={"ratio": [1]})


def test_an_option_that_vgg_has_too_is_given_in_one_place(folder):
    NETWORKS["dropping"] = lambda in_channels=1, num_classes=10, image_size=28, dropout=0.1: torch.nn.Linear(1, 1)
    assert Classifier(network="dropping").hparams["options"] == {"dropout": 0.1}
    assert Classifier(network="dropping", dropout=0.3).hparams["options"] == {"dropout": 0.3}
    assert Classifier(network="dropping", options={"dropout": 0.5}).hparams["options"] == {"dropout": 0.5}
    with pytest.raises(UserError, match="differ: give one of them"):
        Classifier(network="dropping", dropout=0.3, options={"dropout": 0.5})


class Photographs:
    """A data set of PIL images, as torchvision's are."""

    classes = ("dark", "light")

    def __init__(self, root, train):
        self.train = train

    def __len__(self):
        return 40 if self.train else 10

    def __getitem__(self, i):
        image = torch.full((3, 50, 40), 10, dtype=torch.uint8)
        image[:, 10:40, 10:30] = 100 + 100 * (i % 2)
        return (torchvision.transforms.functional.to_pil_image(image) if i % 3 else image), i % 2


def test_a_data_set_of_images_of_any_size(folder):
    DATASETS["photographs"] = Photographs
    data = FashionMNISTDataModule(dataset="photographs", image_size=28)
    images, labels = data.images("test")
    assert images.shape == (10, 1, 28, 28)
    assert labels.tolist() == [0, 1] * 5
    assert data.class_names == ("dark", "light")
    assert data.hparams["val_size"] == 4


@pytest.mark.parametrize(
    ("item", "text"),
    [
        (lambda i: (torch.zeros(28, 28), 0), "item 0 of Wrong in train is not a pair .*float32"),
        (lambda i: torch.zeros(28, 28, dtype=torch.uint8), "is not a pair"),
        (lambda i: (torch.zeros(28, 28, dtype=torch.uint8), 2), "labels from 2 to 2 in train, and names for 0 to 1"),
        (lambda i: {}[i], "The data set wrong, train: KeyError: 0"),
    ],
)
def test_a_data_set_that_gives_something_else(folder, item, text):
    class Wrong(Photographs):
        def __getitem__(self, i):
            return item(i)

    DATASETS["wrong"] = Wrong
    with pytest.raises(UserError, match=text):
        FashionMNISTDataModule(dataset="wrong").prepare_data()


def test_a_row_of_the_tables_is_checked(folder):
    with pytest.raises(UserError, match="'mnist' is taken"):
        DATASETS["mnist"] = Photographs
    with pytest.raises(UserError, match="needs `classes`"):
        DATASETS["numbers"] = list
    with pytest.raises(UserError, match="option 'width=None' cannot be given"):
        NETWORKS["x"] = lambda in_channels=1, num_classes=10, image_size=28, width=None: None


def test_other_processes_of_a_script_do_not_know_it(folder):
    NETWORKS["linear"] = lambda in_channels=1, num_classes=10, image_size=28: torch.nn.Linear(1, 1)
    DATASETS["photographs"] = Photographs
    with pytest.raises(UserError, match="a network or a data set of your own; start the script with torchrun"):
        prepare(
            {"network": "vgg11", "ratio": 32, "poolings": 3, "image_size": 28},
            {"dataset": "photographs"},
            trainer={"devices": 2, "accelerator": "cpu", "max_epochs": 1},
        )
    assert not list(folder.glob("lightning_logs/*/*"))


def test_a_network_with_a_mistake_of_its_own(folder):
    """It is built, and tried on one image, before anything is written."""
    (folder / "bare.py").write_text(
        "from torch import nn\nfrom vgg_lightning.networks import NETWORKS\n"
        "def broken(in_channels=1, num_classes=10, image_size=28):\n    raise RuntimeError('no such size')\n"
        "def narrow(in_channels=1, num_classes=10, image_size=28):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(784, 3))\n"
        "NETWORKS['broken'], NETWORKS['narrow'] = broken, narrow\n"
    )
    for network, text in (
        ("broken", "error: network 'broken' cannot be built with these options: RuntimeError: no such size"),
        ("narrow", "error: network narrow gives (1, 3) for one image: it has to give (N, 10), a logit for each class"),
    ):
        launched = launch(["fit", "--import", "bare", "--model.network", network, *data_options(), *BRIEF], folder)
        assert (launched.code, launched.err.splitlines()[-1]) == (2, text)
        assert not (folder / "lightning_logs").exists()


# Torchvision's weights.


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Return files with the state dicts of torchvision's vgg11 and vgg11_bn."""
    folder = tmp_path_factory.mktemp("torchvision")
    for name in ("vgg11", "vgg11_bn"):
        weights = torchvision.models.get_model(name, weights=None).state_dict()
        weights["features.0.weight"] += torch.arange(3)[None, :, None, None]
        torch.save(weights, folder / f"{name}.pth")
    return folder


def test_weights_of_torchvision_are_taken_as_far_as_they_fit(theirs, capsys):
    file = theirs / "vgg11_bn.pth"
    model = Classifier(batch_norm=True, head="gap", weights=str(file))
    weights = torch.load(file, weights_only=True)
    summed = weights["features.0.weight"].sum(dim=1, keepdim=True)
    assert torch.equal(model.network.blocks[0][0].weight, summed)
    assert torch.equal(model.network.blocks[4][3].weight, weights["features.25.weight"])
    line = capsys.readouterr().out.replace("\n", "")
    assert (
        "vgg11_bn.pth of torchvision, filters summed over the colours, 48 of 50 tensors; network.head.3.weight" in line
    )


@torch.no_grad()
def test_grey_images_see_what_torchvision_sees(theirs):
    """A network for grey images gives what torchvision's gives of the same image in three channels."""
    weights = torch.load(theirs / "vgg11_bn.pth", weights_only=True)
    colour = load_torchvision_weights(
        build_network("vgg11", in_channels=3, num_classes=1000, batch_norm=True), weights
    ).eval()
    grey = Classifier(
        batch_norm=True, num_classes=1000, image_size=224, channels_last=False, weights=str(theirs / "vgg11_bn.pth")
    ).eval()
    x = torch.rand(1, 1, 224, 224)
    torch.testing.assert_close(grey(x), colour(x.repeat(1, 3, 1, 1)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_norm": True}, "8 layers, the network has 16: use the same depth and batch_norm"),
        ({"ratio": 4}, "no layer of it fits vgg11: they are for ratio 1"),
        ({"network": "lenet", "hidden_units": 4096}, "weights of torchvision's VGG, and lenet is none"),
        ({"batch_norm": True, "norm_after_relu": True}, "norm_after_relu"),
    ],
)
def test_weights_of_torchvision_that_do_not_fit(theirs, options, text):
    with pytest.raises(UserError, match=text):
        Classifier(weights=str(theirs / "vgg11.pth"), **{"hidden_units": 8, **options})


def test_weights_of_torchvision_by_name(theirs, tmp_path, monkeypatch, capsys):
    """Fetched from the address that torchvision has, here one of a file, into the place where torchvision looks."""

    digest = hashlib.sha256((theirs / "vgg11.pth").read_bytes()).hexdigest()[:8]
    name = f"vgg11-{digest}.pth"
    shutil.copy(theirs / "vgg11.pth", theirs / name)

    class Weights:
        url = (theirs / name).as_uri()

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(torchvision.models, "get_model_weights", lambda name: [Weights])
    Classifier(head="gap", weights="torchvision")
    assert (tmp_path / "checkpoints" / name).is_file()
    assert "16 of 18 tensors" in capsys.readouterr().out.replace("\n", "")
    Weights.url = (theirs / "absent-01234567.pth").as_uri()
    with pytest.raises(UserError, match=r"cannot be had: .*fetch it elsewhere, and give weights the file"):
        Classifier(head="gap", weights="torchvision")
    with pytest.raises(UserError, match="torchvision has weights of vgg11"):
        Classifier(network="lenet", weights="torchvision")


def test_a_file_of_weights_is_read_as_one_from_a_stranger(tmp_path):
    class Evil:
        def __reduce__(self):
            return (print, ("run",))

    torch.save({"features.0.weight": Evil()}, tmp_path / "evil.pth")
    torch.save({"features.0.weight": torch.full((64, 3, 3, 3), torch.nan)}, tmp_path / "nan.pth")
    torch.save([torch.zeros(1)], tmp_path / "list.pth")
    for name, text in (("evil", "more than tensors"), ("nan", "NaN or Inf"), ("list", "not a checkpoint")):
        with pytest.raises(UserError, match=text):
            Classifier(weights=str(tmp_path / f"{name}.pth"))


# Remnants.


@pytest.mark.parametrize("network", ["vgg16", "googlenet", "resnet18", "whitened_vgg"])
def test_a_summary_fits_the_screen(network, tmp_path):
    launched = launch(["summary", network], tmp_path)
    assert max(map(len, launched.out.splitlines())) <= 100


def test_a_comparison_of_many_networks_fits_the_screen(tmp_path):
    names = ["vgg11", "vgg13", "vgg16", "vgg19", "resnet18", "lenet_scratch", "googlenet"]
    from vgg_lightning.compare.command import Entry, as_table
    from vgg_lightning.networks.cost import summarize

    text = as_table([Entry(summarize(name)) for name in names], {"batch_size": 16})
    assert max(map(len, text.splitlines())) <= 100
    assert all(f" {name}" in text for name in names)


def test_print_config_says_what_null_is(tmp_path):
    launched = launch(["fit", "--print_config"], tmp_path)
    assert launched.out.startswith("# null: the run fills it in")
    assert "5000,\n# 128 and 10;" in launched.out


def test_a_part_of_sorted_images_is_predicted_with_all_classes(tmp_path):
    DATASETS["sorted"] = type("Sorted", (Photographs,), {"__getitem__": by_class})
    try:
        data = ["--data.dataset", "sorted", "--data.batch_size", "2"]
        network = ["--model.network", "lenet", "--data.image_size", "28", "--name", "run"]
        assert launch(["fit", *data, *network, *BRIEF], tmp_path).code == 0
        run = ["--ckpt_path", "lightning_logs/run/version_0", "--trainer.limit_predict_batches", "2"]
        assert launch(["predict", *run], tmp_path).code == 0
        rows = (tmp_path / "lightning_logs/run/version_0/predictions.csv").read_text().splitlines()[1:]
        found = [(int(row.split(",")[0]), row.split(",")[1]) for row in rows]
        assert len(found) == 4
        assert all(name == ("dark" if i < 5 else "light") for i, name in found)
        assert {name for _, name in found} == {"dark", "light"}
    finally:
        del DATASETS["sorted"]


def by_class(self, i):
    image = torch.zeros(28, 28, dtype=torch.uint8)
    image[i % 7, :] = 200
    return image, int(i >= len(self) // 2)


def test_a_part_of_own_images_is_said(tmp_path):
    from PIL import Image

    (tmp_path / "images").mkdir()
    for i in range(40):
        Image.effect_noise((28, 28), 50).save(tmp_path / "images" / f"{i:02}.png")
    launched = launch(
        [
            "predict",
            "--ckpt_path",
            "reference",
            "--data.predict_path",
            "images",
            "--trainer.limit_predict_batches",
            "1",
        ],
        tmp_path,
    )
    assert launched.code == 0
    assert "the first 32 of 40 images by name, which may be of one class" in launched.out


def test_the_preset_blank_is_for_a_network_without_one(folder):
    shown = launch(["fit", "--import", "mine", "--model.network", "mine", *data_options(), "--print_config"], folder)
    assert "optimizer: adam" in shown.out
    assert "ratio: 1" in shown.out
