"""Decoding an image file: the one way for evaluation, training and verification. Free of torch."""

import io

from PIL import Image, UnidentifiedImageError


def decode_bytes(data: bytes, size: tuple[int, int] | None = None) -> Image.Image | str:
    """The image of a file's bytes in RGB, wholly decoded, or what is wrong with it.

    Pillow's libjpeg conceals bytes that are damaged in the middle of a JPEG file: only a digest shows them.

    Args:
        size: (width, height) in pixels that the annotations speak of, where there are some.

    Returns:
        The image, or the reason as the rest of a sentence that begins with the file's path.
    """
    if not data:
        return "is empty"
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
        if image.mode != "RGB":  # else it would be a copy
            image = image.convert("RGB")
    except UnidentifiedImageError:
        return "is no image"
    except Exception as error:  # whatever a decoder raises, it is about these bytes
        return f"cannot be decoded ({error or type(error).__name__})"
    if size not in (None, image.size):
        assert size is not None
        return f"has {image.width}x{image.height} pixels, and its annotations say {size[0]}x{size[1]}"
    return image
