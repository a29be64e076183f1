"""What campaigns compare is read as it was written."""

import harness
from torch.utils.tensorboard import SummaryWriter


def test_files_of_events_of_one_second_are_read_in_the_order_in_which_they_were_written(tmp_path):
    for step in range(12):  # the names count to 11, and 10 sorts before 2
        writer = SummaryWriter(tmp_path)
        writer.add_scalar("loss", step, step)
        writer.close()
    assert harness.scalars(tmp_path) == {"loss": [(step, step) for step in range(12)]}
