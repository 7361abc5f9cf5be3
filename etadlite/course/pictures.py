"""Pictures that are small enough for a notebook with outputs."""

import io

import numpy as np
from IPython.display import Image
from PIL import Image as Pillow


def small(picture: np.ndarray, alt: str) -> Image:
    """Return a picture for display: the smaller of a PNG of 256 colours and a JPEG.

    Charts become PNG, frames of videos JPEG.

    Args:
        picture: uint8 [H, W, 3].
        alt: what the picture shows, in words.
    """
    image = Pillow.fromarray(picture)
    files = {}
    for kind, made, options in (
        ("png", image.quantize(256, dither=Pillow.Dither.NONE), {}),
        ("jpeg", image, {"quality": 75}),
    ):
        file = io.BytesIO()
        made.save(file, kind, optimize=True, **options)
        files[kind] = file.getvalue()
    kind = min(files, key=lambda kind: len(files[kind]))
    return Image(files[kind], format=kind, alt=alt)
