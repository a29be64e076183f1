"""docs/results.md says what the csv files say."""

from benchmarks.results_page import PAGE, TABLES, main, page


def test_the_page_is_up_to_date():
    assert main(["--check"]) == 0, f"{PAGE.name} is older than benchmarks/results: run make results and commit it"


def test_a_table_is_shown_as_far_as_it_is_there(tmp_path):
    assert page(tmp_path).startswith("# Results")
    assert "##" not in page(tmp_path)
    (tmp_path / "presets.csv").write_text("preset,seed,test_acc,new\nquick,0,0.9279,1\nquick,1,,\n")
    (tmp_path / "gpu.csv").write_text("row,examples_per_second,command\na|b,123456.7,make gpu\n")
    (tmp_path / "unknown.csv").write_text("a\n1\n")
    text = page(tmp_path)
    assert "| preset | seed | test accuracy |" in text
    assert "| quick | 0 | 92.79 % |" in text
    assert "1 more rows are planned and not measured" in text
    assert "| a\\|b | 123,457 |" in text
    assert "make gpu |" not in text
    assert text.count("## ") == 2


def test_every_table_is_listed_once():
    files = [shown.file for shown in TABLES]
    assert len(files) == len(set(files))
