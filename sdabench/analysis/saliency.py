"""Grad-CAM overlays: where the last stage of a classifier supports the class that it predicts.

Source: Selvaraju et al., "Grad-CAM", ICCV 2017, computed by the package grad-cam.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from PIL import Image

from sdabench.analysis.measure import Settings, prepared
from sdabench.analysis.subjects import Subject
from sdabench.data.description import Preprocessing
from sdabench.errors import UsageError
from sdabench.files import atomic_write
from sdabench.registry.sources import file_name

INSTALL = "Grad-CAM needs the package grad-cam; pip install 'sdabench[insight]'"


def check_grad_cam(subjects: Sequence[Subject]) -> None:
    """Check that overlays can be made of these networks.

    Raises:
        UsageError: grad-cam is not installed, or a network is a detector or has no images.
    """
    try:
        import pytorch_grad_cam  # noqa: F401
    except ImportError:
        raise UsageError(INSTALL) from None
    for subject in subjects:
        if subject.job is None:
            raise UsageError("Grad-CAM needs images; add --data")
        if subject.job.spec.task == "detection":
            raise UsageError(f"Grad-CAM is for classifiers, and '{subject.model}' is a detector")


def write_overlays(
    subjects: Sequence[Subject],
    settings: Settings,
    folder: Path,
    number: int,
    device: str = "cpu",
    advance: Callable[[int], None] = lambda images: None,
) -> list[Path]:
    """Write an overlay of the first images for each network, as PNG files; return their paths.

    A name starts with the number of the image, so that the networks are side by side.

    Raises:
        UsageError: see :func:`check_grad_cam`.
    """
    check_grad_cam(subjects)
    from pytorch_grad_cam import GradCAM
    from pytorch_grad_cam.utils.image import show_cam_on_image

    paths = []
    for subject in subjects:
        assert subject.job is not None
        network, trunk, images, _ = prepared(subject, settings, torch.device(device), lambda done: None)
        preprocessing: Preprocessing = subject.job.spec.protocol.preprocessing
        mean, std = torch.tensor(preprocessing.mean), torch.tensor(preprocessing.std)
        last = trunk.get_submodule(trunk.feature_info[-1]["module"])
        index = 0
        with GradCAM(model=network, target_layers=[last]) as grad_cam:
            for batch in images.batches(min(number, images.number), 1):
                heat = grad_cam(input_tensor=batch, targets=None)[0]  # of the predicted class
                pixels = (batch[0].cpu().permute(1, 2, 0) * std + mean).clamp(0, 1)
                overlay = show_cam_on_image(pixels.numpy(), heat, use_rgb=True)
                name = f"{index:03d}-{file_name(subject.model)}-{subject.state}-{subject.run}.png"
                with atomic_write(folder / name, "name another --output") as file:
                    Image.fromarray(overlay).save(file, "PNG")
                paths.append(folder / name)
                index += 1
                advance(1)
    return paths
