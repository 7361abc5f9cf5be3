"""Steps on random frames, run to be measured; they need no data set."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from etadlite.base.devices import resolve_device
from etadlite.base.errors import InputError
from etadlite.config import Settings
from etadlite.data.datasets import Batch
from etadlite.memory.plan import plan
from etadlite.memory.step import Measurement, Rows, measure
from etadlite.model.sequential_encoder import SequentialEncoder
from etadlite.model.system import System
from etadlite.training.loop import make_optimizer
from etadlite.training.step import train_step


def measure_step(settings: Settings) -> Measurement:
    """Run two training steps on random frames or features, and measure the second.

    The encoder's weights are zero, so that no number overflows; memory does not depend on them.

    Args:
        settings: as for `plan`, on a device that is there.

    Raises:
        InputError: as `plan` does; the device is not there; or the step was not finite.
    """
    device = resolve_device(settings.device)
    planned = plan(settings)
    torch.manual_seed(settings.seed)
    precision = "bf16" if planned.bf16 else "fp32"
    settings = settings.model_copy(
        update={"training": settings.training.model_copy(update={"precision": precision})}
    )
    system = System(settings, pretrained=False).to(device).train()
    for parameter in () if system.encoder is None else system.encoder.parameters():
        nn.init.zeros_(parameter)
    optimizer, batch = make_optimizer(system, settings.training), random_batch(settings)
    train_step(system, batch, optimizer, settings)
    if not optimizer.state:
        # So do some kernels of bf16 on CPUs at small sizes, even for zeros.
        raise InputError(
            f"the step was not finite, so there was no update to measure; in {precision} this "
            "torch may err at these sizes: measure with training.precision=fp32 or larger data.crop"
        )
    with measure(system, optimizer, batch.inputs) as measured:
        train_step(system, batch, optimizer, settings)
    return measured


def random_batch(settings: Settings) -> Batch:
    """A batch as a data set gives it: random frames or features, two actions a video."""
    data, batch = settings.data, settings.training.batch_size
    if data.features is None:
        inputs = random_frames(batch, data.snippets, data.frames, data.crop)
    else:
        inputs = torch.randn(batch, settings.detector.in_channels, data.snippets)
    actions = data.snippets * torch.tensor([[0.1, 0.4], [0.5, 0.9]])
    return Batch(
        names=[f"random{n}" for n in range(batch)],
        inputs=inputs,
        actions=[actions] * batch,
        labels=[torch.zeros(2, dtype=torch.long)] * batch,
        grids=[],
        durations=[1.0] * batch,
        seeds=list(range(batch)),
    )


def random_frames(batch: int, snippets: int, frames: int, crop: int) -> Tensor:
    """Uint8 [B, N, 3, F, H, W]."""
    return torch.randint(0, 256, (batch, snippets, 3, frames, crop, crop), dtype=torch.uint8)


def rows_by_length(
    encoder: SequentialEncoder, lengths: Sequence[int], frames: int, crop: int
) -> dict[int, Rows]:
    """Measure the encoder's three passes on one video of each length N, without a detector."""
    found = {}
    for snippets in lengths:
        video = random_frames(1, snippets, frames, crop)
        encoder(video).square().sum().backward()
        with measure(encoder, None, video) as measured:
            encoder(video).square().sum().backward()
        found[snippets] = measured.rows
        encoder.zero_grad()
    return found
