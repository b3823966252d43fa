"""Probe image decoding and resizing: compare a test image with the expected pixels.

Pillow 10.0, 11.0, 12.0 and 13.0, with libjpeg-turbo 2.1.5 to 3.2.0, agree on the expected digests.
Pillow-SIMD 12.1.1 decodes to the same pixels, but resizes differently.
"""

import base64
import io
from hashlib import sha256

from PIL import Image, features

from sdabench.tools.doctor.probe import Probe
from sdabench.tools.doctor.requirements import imported_version

# 37 x 29 pixels of three rotated gradients, with 4:2:0 chroma: it also tests the decoder's upsampling.
JPEG = base64.b64decode(
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAA0JCgsKCA0LCgsODg0PEyAVExISEyccHhcgLikxMC4pLSwzOko+MzZGNywtQFdB"
    "RkxOUlNSMj5aYVpQYEpRUk//2wBDAQ4ODhMREyYVFSZPNS01T09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09PT09P"
    "T09PT09PT09PT09PT0//wAARCAAdACUDASIAAhEBAxEB/8QAGgAAAgMBAQAAAAAAAAAAAAAAAAUCBgcDBP/EACcQAAEEAgED"
    "AgcAAAAAAAAAAAEAAgMEESExBQYSIrETI1FSYWKR/8QAGAEAAwEBAAAAAAAAAAAAAAAAAwUGBAf/xAAiEQACAgICAAcAAAAA"
    "AAAAAAABAgADBBEFIRIUIjFxkaH/2gAMAwEAAhEDEQA/AM8r1vN2SNJ1WgwAAFCtBxpNa0HGluovSkaX3hcnG3J14ARgjIXW"
    "Tt6jcGXwhj/uZpe2tBxpNa0HGkV8xbF8LdiJbaWQ7U6lOl7JPl8qyQ39mZ9kLRYoPShKWx+/TaQPgGB83kjrf4Jn1aDjSa1o"
    "ONJPFNJEfS7P4IynPS7nx5RG6MA/UFKXusUbnRsnAbRMaVoONJrWg40uVaMaTJoEcZcBwCUB+QKjZk9fjbOpWO5uvTdPuR1K"
    "TgHMbmU4zs8D+e6FVrUrrVmSxKcvkcXFCYplWKoHX0JRUcJjpWFZQTP/2Q=="
)
JPEG_PIXELS = "71b4c01b921712b369f2e36984fbc51808545280b9a39a5ecde1f2ffa5827c09"
RESIZED_PIXELS = "118051c132fa83ec3c0e68d22d561665d17edf57c64719380589eb397ed92eab"
FEW_FLIP = "Single predictions can flip: top-1 changes, usually by less than 0.1 points."


def probes() -> list[Probe]:
    return [probe_decoder(decoded_digest()), probe_resizing(resized_digest())]


def decoded_digest() -> str:
    """Return the sha256 of the RGB pixels that Pillow decodes from :data:`JPEG`, or the error message."""
    try:
        return sha256(Image.open(io.BytesIO(JPEG)).convert("RGB").tobytes()).hexdigest()
    except OSError as error:  # Pillow was built without a JPEG decoder
        return str(error)


def resized_digest() -> str:
    """Return the sha256 of a test image of 61 x 43 pixels after a resize as in evaluation."""
    pixels = bytes(index * index * 7 % 251 for index in range(61 * 43 * 3))
    image = Image.frombytes("RGB", (61, 43), pixels)
    return sha256(image.resize((23, 17), Image.Resampling.BILINEAR).tobytes()).hexdigest()


def probe_decoder(digest: str) -> Probe:
    turbo = features.version("libjpeg_turbo")
    name = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}, not libjpeg-turbo"
    if digest == JPEG_PIXELS:
        return Probe("JPEG decoder", "ok", f"{name}, pixels of a test image as expected")
    if not features.check("jpg"):
        consequence = "Images of ImageNet and COCO cannot be read."
        return Probe("JPEG decoder", "problem", "none", consequence, "pip install Pillow")
    return Probe(
        "JPEG decoder", "warning", f"{name}, pixels of a test image differ from libjpeg-turbo's",
        FEW_FLIP, "pip install --only-binary :all: --force-reinstall Pillow",
        affects_accuracy=True,
    )  # fmt: skip


def probe_resizing(digest: str) -> Probe:
    if digest == RESIZED_PIXELS:
        return Probe("resizing", "ok", "bilinear with antialiasing, pixels of a test image as expected")
    return Probe(
        "resizing", "warning",
        f"Pillow {imported_version('Pillow')}, pixels of a test image differ from Pillow's",
        FEW_FLIP, "pip uninstall --yes Pillow-SIMD && pip install --force-reinstall Pillow",
        affects_accuracy=True,
    )  # fmt: skip
