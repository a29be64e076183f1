"""Two steps of a full vgg19 under FSDP, as one of the processes that torchrun has started: python large.py FOLDER."""

import resource
import sys
from pathlib import Path

import lightning as L
import torch

from vgg_lightning import Classifier
from vgg_lightning.run.checkpoints.io import VerifiedCheckpointIO
from vgg_lightning.run.parallel.strategies import Sharded


def main(folder):
    torch.manual_seed(0)
    model = Classifier("vgg19", in_channels=3, num_classes=1000, image_size=224, lr=0.01)
    model.class_names = [str(i) for i in range(1000)]
    pictures = torch.utils.data.TensorDataset(torch.rand(4, 3, 224, 224), torch.arange(4))
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = L.Trainer(
        accelerator="cpu",
        devices=2,
        strategy=Sharded([], dict, None, parts=2),
        max_steps=2,
        default_root_dir=folder,
        plugins=[VerifiedCheckpointIO()],
        **quiet,
    )
    trainer.fit(model, torch.utils.data.DataLoader(pictures, batch_size=1))
    assert trainer.global_step == 2
    held = sum(p.to_local().numel() for p in model.parameters())
    trainer.save_checkpoint(Path(folder) / "large.ckpt")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    print(f"rank {trainer.global_rank} holds {held:,} numbers, peak memory {peak:.1f} GB")


if __name__ == "__main__":
    main(sys.argv[1])
