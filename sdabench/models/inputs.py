"""Normalization and size of model inputs. Free of torch."""

Triple = tuple[float, float, float]
MEAN: Triple = (0.485, 0.456, 0.406)  # of ImageNet's pixels from 0 to 1, in RGB
STD: Triple = (0.229, 0.224, 0.225)


def resized_shape(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """Return a detector's (height, width): scale to the short side, but at most to the long side."""
    scale = min(short / min(height, width), long / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
