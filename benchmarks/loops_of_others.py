"""The training loops that `benchmarks.loops` compares with, written anew as their users write them."""

import time
from collections.abc import Callable
from pathlib import Path

import albumentations
import cv2
import lightning
import numpy as np
import pandas as pd
import torch
import torchvision
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from benchmarks.loops import BATCH, MODEL, SIZE, WORKERS

Tick = Callable[[int], bool]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class Photos(Dataset):
    """Photos read when they are asked for, scaled by their short side and cut to their centre.

    `augment` makes an augmented image and points of them; items are (3, S, S) float32 images, (2 K,) points in their
    pixels, and the scale from a photo's pixels to them.
    """

    def __init__(self, data: Path, names: pd.Index, table: pd.DataFrame, augment=None):
        self.folder, self.names, self.augment = data / "train/images", names, augment
        self.points = table.loc[names].to_numpy(np.float32).reshape(len(names), table.shape[1] // 2, 2)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        photo = cv2.imread(str(self.folder / self.names[index]), cv2.IMREAD_COLOR_RGB)
        assert photo is not None
        height, width = photo.shape[:2]
        scale = SIZE / min(height, width)
        photo = cv2.resize(photo, (round(width * scale), round(height * scale)), interpolation=cv2.INTER_AREA)
        left, top = (photo.shape[1] - SIZE) // 2, (photo.shape[0] - SIZE) // 2
        image = photo[top : top + SIZE, left : left + SIZE]
        points = self.points[index] * scale - np.array([left, top], np.float32)
        if self.augment:
            made = self.augment(image=image, keypoints=points)
            image, points = made["image"], np.asarray(made["keypoints"], np.float32)
        tensor = torchvision.transforms.functional.to_tensor(image)
        tensor = torchvision.transforms.functional.normalize(tensor, MEAN, STD)
        return tensor, torch.from_numpy(points.reshape(-1)), np.float32(scale)


def read(data: Path, held_out: Path | None, augment=None) -> tuple[Photos, Photos]:
    """The photos to train on and those that are held out."""
    table = pd.read_csv(data / "train/landmarks.csv", sep="\t", index_col=0)
    names = held_out.read_text().split() if held_out else []
    others = table.index[~table.index.isin(names)]
    return Photos(data, others, table, augment), Photos(data, pd.Index(names), table)


def loader_of(photos: Photos, *, shuffle: bool = True) -> DataLoader:
    return DataLoader(photos, BATCH, shuffle=shuffle, drop_last=shuffle, num_workers=WORKERS, persistent_workers=True)


def network_of(photos: Photos) -> nn.Module:
    """ResNet18 whose last layer gives points, and starts at their mean."""
    network = torchvision.models.get_model(MODEL)
    network.fc = nn.Linear(network.fc.in_features, 2 * photos.points.shape[1])
    return network


def augmentation() -> albumentations.Compose:
    return albumentations.Compose(
        [
            albumentations.Affine(rotate=(-25, 25), scale=(0.85, 1.2), translate_percent=(-0.08, 0.08), p=1),
            albumentations.RandomBrightnessContrast(0.1, 0.3, p=1),
        ],
        keypoint_params=albumentations.KeypointParams("xy", remove_invisible=False),
    )


def train_organisers(data: Path, tick: Tick, *, gpu: bool, held_out: Path | None = None):
    """Adam, mean squared error, float32, the loss read at each step. Returns the network and the held-out photos."""
    device = torch.device("cuda" if gpu else "cpu")
    photos, others = read(data, held_out)
    network = network_of(photos).to(device)
    optimiser = torch.optim.Adam(network.parameters(), lr=1e-3, amsgrad=True)
    losses: list[float] = []
    while True:
        for images, points, _ in loader_of(photos):
            loss = functional.mse_loss(network(images.to(device)), points.to(device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.cpu().item())
            if tick(len(images)):
                return network, others


class Ordinary(nn.Module):
    """Points as offsets from the middle, in halves of the image, in channels last."""

    def __init__(self, photos: Photos):
        super().__init__()
        self.network = network_of(photos).to(memory_format=torch.channels_last)

    def forward(self, images):
        found = self.network(images.contiguous(memory_format=torch.channels_last))
        return SIZE / 2 * (1 + found.float())


def cosine(optimiser: torch.optim.Optimizer, share: Callable[[], float]) -> torch.optim.lr_scheduler.LambdaLR:
    return torch.optim.lr_scheduler.LambdaLR(optimiser, lambda _: 0.5 + 0.5 * np.cos(np.pi * min(1.0, share())))


def train_ordinary(
    data: Path, tick: Tick, *, gpu: bool, held_out: Path | None = None, share: Callable[[], float] = lambda: 0.0
):
    """AdamW, SmoothL1, autocast, cosine. share: of the training that is done."""
    device = torch.device("cuda" if gpu else "cpu")
    photos, others = read(data, held_out, augmentation())
    network = Ordinary(photos).to(device)
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)
    schedule = cosine(optimiser, share)
    loader = loader_of(photos)
    while True:
        for images, points, _ in loader:
            with torch.autocast(device.type, torch.bfloat16):
                found = network(images.to(device, non_blocking=True))
            loss = functional.smooth_l1_loss(found, points.to(device, non_blocking=True))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            if tick(len(images)):
                return network, others


class Module(lightning.LightningModule):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def training_step(self, batch, _):
        images, points, _ = batch
        loss = functional.smooth_l1_loss(self.network(images), points)
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        optimiser = torch.optim.AdamW(self.parameters(), lr=1e-3, fused=True)
        return [optimiser], [{"scheduler": cosine(optimiser, lambda: 0.0), "interval": "step"}]


class Stop(lightning.Callback):
    def __init__(self, tick: Tick):
        self.tick = tick

    def on_train_batch_end(self, trainer, module, outputs, batch, index):
        if self.tick(len(batch[0])):
            trainer.should_stop = True


def train_lightning(data: Path, tick: Tick, *, gpu: bool):
    """The ordinary loop's parts under lightning's trainer."""
    photos, _ = read(data, None, augmentation())
    trainer = lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        precision="bf16-mixed",
        max_epochs=-1,
        min_epochs=0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        gradient_clip_val=None,
        callbacks=[Stop(tick)],
    )
    trainer.fit(Module(Ordinary(photos)), loader_of(photos))


def train_and_score(name: str, data: Path, held_out: Path, *, seconds: float, gpu: bool) -> float:
    """The MSE in squared pixels of the held-out photos after so many seconds of training."""
    begun = time.perf_counter()

    def share() -> float:
        return (time.perf_counter() - begun) / seconds

    def tick(_: int) -> bool:
        return share() >= 1

    if name == "organisers":
        network, others = train_organisers(data, tick, gpu=gpu, held_out=held_out)
    else:
        network, others = train_ordinary(data, tick, gpu=gpu, held_out=held_out, share=share)
    network.eval()
    device, errors = next(network.parameters()).device, []
    with torch.no_grad():
        for images, points, scales in loader_of(others, shuffle=False):
            found = network(images.to(device)).float().cpu().view(len(images), -1, 2)
            off = (found - points.view_as(found)) / scales[:, None, None]
            errors.append(off.square().mean((1, 2)))
    return float(torch.cat(errors).mean())
