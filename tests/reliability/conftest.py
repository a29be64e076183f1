import harness
import pytest
import torch


@pytest.fixture(params=[False, pytest.param(True, marks=pytest.mark.slow)], ids=["sample", "campaign"])
def long(request):
    """Whether to run the whole campaign and to record it, or a sample."""
    return request.param


@pytest.fixture(scope="session")
def server():
    torch.set_num_threads(1)
    server = harness.Server()
    yield server
    server.process.stdin.close()
    server.process.wait()


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    return harness.make_data(tmp_path_factory.mktemp("data") / "idx")


@pytest.fixture(scope="session")
def options(data):
    """The options of a run to break, without those of its network."""
    return ["--data.data_dir", str(data), *harness.OPTIONS]


@pytest.fixture(scope="session")
def finished(server, options, tmp_path_factory):
    """The folder of a run that nothing has broken."""
    folder = tmp_path_factory.mktemp("finished")
    code = server.run(folder, "fit", *harness.NETWORK, *options)
    assert code == 0, harness.output(folder)
    return harness.only_run(folder)


@pytest.fixture(scope="session")
def unbroken(finished):
    """What it leaves behind."""
    return harness.everything(finished)
