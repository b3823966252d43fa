"""Decode image files with Pillow, for evaluation, training and verification. Free of torch."""

import io

from PIL import Image, UnidentifiedImageError


def decode_bytes(data: bytes, size: tuple[int, int] | None = None) -> Image.Image | str:
    """Decode a file's bytes to an RGB image.

    Pillow conceals bytes that are damaged in the middle of a JPEG file; only a digest reveals them.

    Args:
        size: (width, height) in pixels according to the annotations.

    Returns:
        The image, or an error message that continues a sentence beginning with the file's path.
    """
    if not data:
        return "is empty"
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
        if image.mode != "RGB":  # a conversion would copy the image
            image = image.convert("RGB")
    except UnidentifiedImageError:
        return "is not an image"
    except Exception as error:  # decoders raise many types
        return f"cannot be decoded ({error or type(error).__name__})"
    if size not in (None, image.size):
        assert size is not None
        return f"has {image.width}x{image.height} pixels, but its annotations say {size[0]}x{size[1]}"
    return image
