"""Make pictures small: bytes in, bytes out."""

import io

from PIL import Image, ImageOps

from funcrt import Event, Reject

FORMATS = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
SIDE = 128
MOST_PIXELS = 24_000_000
"""96 MB once decoded. A file of a few hundred bytes can claim any size."""
Image.MAX_IMAGE_PIXELS = None  # Pillow only warns up to twice its limit; `opened` has its own


def handler(event: Event) -> Event:
    """A thumbnail in the format of the picture; what is no picture is given up at once."""
    picture = opened(event.data or b"")
    kind = "JPEG" if picture.format == "MPO" else str(picture.format)  # several in one, of phones
    try:
        picture.thumbnail((SIDE, SIDE))
        upright = ImageOps.exif_transpose(picture)
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises of broken data
        raise Reject(f"the picture cannot be decoded: {error}") from error
    made = io.BytesIO()
    upright.save(made, kind)
    return Event.create("image.resized", made.getvalue(), FORMATS[kind], subject=event.subject)


def opened(data: bytes) -> Image.Image:
    """The picture with its head read and nothing decoded."""
    try:
        picture = Image.open(io.BytesIO(data), formats=list(FORMATS))
    except (OSError, SyntaxError, ValueError) as error:
        raise Reject(f"{len(data)} bytes that are no {', '.join(FORMATS)} picture") from error
    if picture.width * picture.height > MOST_PIXELS:
        raise Reject(
            f"{picture.width} x {picture.height} pixels; at most {MOST_PIXELS} are decoded"
        )
    return picture
