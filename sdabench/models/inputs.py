"""What every network expects of its input. Free of torch."""

Triple = tuple[float, float, float]
MEAN: Triple = (0.485, 0.456, 0.406)  # of ImageNet's pixels in 0 to 1, red, green, blue
STD: Triple = (0.229, 0.224, 0.225)


def resized(height: int, width: int, short: int, long: int) -> tuple[int, int]:
    """A detector's (height, width) in pixels: the short side ``short``, but the long one at most ``long``."""
    scale = min(short / min(height, width), long / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))
