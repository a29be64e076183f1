"""The tables of records and of the parts of a recipe, made by tiny runs of the real command line."""

import csv

import pytest

from benchmarks import ablation, record
from benchmarks.ablation import BASE, PARTS, Trial, summary


def read(file):
    with file.open() as stream:
        return list(csv.DictReader(stream))


def test_a_record_keeps_its_metrics_and_its_configuration_and_is_not_run_twice(tmp_path):
    brief = ["--trainer.max_epochs", "1", "--trainer.limit_train_batches", "2", "--trainer.limit_test_batches", "2"]
    args = ["small", "--seeds", "0", "--results", str(tmp_path), "--runs", str(tmp_path / "runs"), *brief]
    assert record.main(args) == 0
    rows = {(row["preset"], row["seed"]): row for row in read(tmp_path / "record.csv")}
    row = rows["small", "0"]
    assert len(rows) == 15
    assert {other["state"] for other in rows.values() if other is not row} == {"not measured"}
    assert 0 <= float(row["test_acc"]) <= 1
    assert 0 <= float(row["test_acc_tta"]) <= 1
    assert int(row["parameters"]) <= 300_000
    assert row["command"].startswith("vgg-lightning fit --config small --seed_everything 0 --trainer.max_epochs 1")
    kept = tmp_path / "record" / "small-0"
    assert read(kept / "metrics.csv")
    assert "vgg_small" in (kept / "config.yaml").read_text()
    assert str(tmp_path) not in (kept / "config.yaml").read_text() + (tmp_path / "record.csv").read_text()
    before = sorted((tmp_path / "runs").rglob("*"))
    assert record.main(args) == 0
    assert sorted((tmp_path / "runs").rglob("*")) == before


def test_ablation_compares_parts_with_the_base(tmp_path):
    size = ["--epochs", "1", "--train_batches", "1", "--seeds", "0"]
    where = ["--results", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert ablation.main([*size, *where, "--rows", "base", "tta flip"]) == 0
    parts = {row["part"]: row for row in read(tmp_path / "ablation.csv")}
    assert parts.keys() == PARTS.keys()
    assert {part for part, row in parts.items() if row["state"] == "measured"} == {"base", "tta flip"}
    runs = {row["part"]: row for row in read(tmp_path / "ablation_runs.csv") if row["state"] == "measured"}
    gain = float(runs["tta flip"]["val_acc_tta"]) - float(runs["base"]["val_acc"])
    assert float(parts["tta flip"]["gain"]) == pytest.approx(gain, abs=1e-4)
    assert ablation.main([*size, *where, "--rows", "no flip", "--train_batches", "2"]) == 0
    found = [(row["part"], row["train_batches"], bool(row["gain"])) for row in read(tmp_path / "ablation.csv")]
    assert found[:3] == [("base", "1", False), ("tta flip", "1", True), ("no flip", "2", False)]  # no base of its size
    assert sorted(part for part, *_ in found) == sorted(PARTS)
    with pytest.raises(SystemExit):
        ablation.main(["--rows", "bace"])


def test_mean_spread_and_gain():
    def row(acc):
        return {"val_acc": acc, "val_acc_tta": "0.5", "epochs": "1", "train_batches": "1", "seconds": "2"}

    base, rows = [row("0.80"), row("0.82")], [row("0.90"), row("0.92"), row("0.94")]
    found = summary("erase", rows, base)
    assert (found["seeds"], found["val_acc_mean"], found["val_acc_spread"], found["gain"]) == (
        *("3", "0.9200", "0.0200", "0.1100"),
    )
    assert summary("tta flip", rows, base)["val_acc_mean"] == "0.5000"
    assert summary(BASE, base, base)["gain"] == ""
    assert summary("sam", [], base)["state"] == "not measured"


def test_each_part_is_made_of_options_that_the_model_has(tmp_path):
    from vgg_lightning import Classifier, FashionMNISTDataModule

    for part in PARTS:
        names = {option for option in Trial(part, 0, 1, 1).run(tmp_path).options if option.startswith("--model.")}
        kinds = {"--model.ratio": int, "--model.poolings": int, "--model.lookahead_steps": int}
        texts = dict(zip(*[iter(Trial(part, 0, 1, 1).run(tmp_path).options)] * 2, strict=True))
        text_options = {"network", "head", "init", "optimizer", "schedule", "tta"}
        values = {}
        for name in names - {"--model.teacher"}:
            text, short = texts[name], name.removeprefix("--model.")
            plain = text if short in text_options else text == "true" if text in ("true", "false") else None
            values[short] = kinds.get(name, float)(text) if plain is None else plain
        Classifier(**values, image_size=28)
        FashionMNISTDataModule(augment=texts["--data.augment"].strip("[]").split(","))
