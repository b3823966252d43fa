"""Whether an image file becomes the pixels that it becomes elsewhere. Free of torch.

The expected digests are those on which Pillow 10.0, 11.0, 12.0 and 13.0, with libjpeg-turbo 2.1.5 to 3.2.0,
agree. Pillow-SIMD 12.1.1 decodes the same, and resizes otherwise.
"""

import base64
import io
from hashlib import sha256

from PIL import Image, features

from sdabench.tools.doctor.probe import Check
from sdabench.tools.doctor.versions import imported

# 37 x 29 pixels of three turned gradients, with 4:2:0 chroma, so that a decoder's upsampling shows too.
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
FEW_FLIP = "Single images can flip, and top-1 moves, usually by less than 0.1."


def checks() -> list[Check]:
    return [of_decoder(digest_of_decoded()), of_resizing(digest_of_resized())]


def digest_of_decoded() -> str:
    """The sha256 of the RGB pixels that this decoder makes of :data:`JPEG`; an error's words if it cannot."""
    try:
        return sha256(Image.open(io.BytesIO(JPEG)).convert("RGB").tobytes()).hexdigest()
    except OSError as error:  # a Pillow without any JPEG decoder
        return str(error)


def digest_of_resized() -> str:
    """The sha256 of an image of 61 x 43 pixels, made smaller as the evaluation does it."""
    pixels = bytes(index * index * 7 % 251 for index in range(61 * 43 * 3))
    image = Image.frombytes("RGB", (61, 43), pixels)
    return sha256(image.resize((23, 17), Image.Resampling.BILINEAR).tobytes()).hexdigest()


def of_decoder(digest: str) -> Check:
    turbo = features.version("libjpeg_turbo")
    name = f"libjpeg-turbo {turbo}" if turbo else f"libjpeg {features.version('jpg')}, not libjpeg-turbo"
    if digest == JPEG_PIXELS:
        return Check("JPEG decoder", "ok", f"{name}, its pixels are as expected")
    if not features.check("jpg"):
        return Check(
            "JPEG decoder",
            "problem",
            "none",
            "No image of ImageNet or COCO can be read.",
            "pip install Pillow",
        )
    return Check(
        "JPEG decoder", "warning", f"{name}, which makes other pixels of a small image than libjpeg-turbo",
        FEW_FLIP, "Install Pillow as a wheel: pip install --force-reinstall Pillow",
        moves_accuracy=True,
    )  # fmt: skip


def of_resizing(digest: str) -> Check:
    name = f"Pillow {imported('Pillow')}"
    if digest == RESIZED_PIXELS:
        return Check("resizing", "ok", "bilinear with antialiasing, its pixels are as expected")
    return Check(
        "resizing", "warning", f"{name}, which makes other pixels of a small image than Pillow does",
        FEW_FLIP, "pip uninstall Pillow-SIMD, then pip install --force-reinstall Pillow",
        moves_accuracy=True,
    )  # fmt: skip
