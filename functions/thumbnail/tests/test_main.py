import io

from PIL import Image


def stored(picture, kind, **how):
    file = io.BytesIO()
    picture.save(file, kind, **how)
    return file.getvalue()


def thumbnail(function, data):
    outcome = function.call(function.event(data, "image.uploaded"))
    assert outcome.error == ""
    return Image.open(io.BytesIO(outcome.outputs[0].data))


def test_it_fits_into_a_square_and_keeps_its_shape_and_format(function):
    for kind in ("JPEG", "PNG", "WEBP"):
        small = thumbnail(function, stored(Image.new("RGB", (480, 320), "red"), kind))
        assert (small.size, small.format) == ((128, 85), kind)
        assert small.getpixel((5, 5))[0] > 250


def test_what_is_small_stays_as_large_as_it_is(function):
    assert thumbnail(function, stored(Image.new("L", (40, 30)), "PNG")).size == (40, 30)


def test_a_photograph_taken_sideways_stands_upright(function):
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turned by a quarter
    picture = stored(Image.new("RGB", (480, 320)), "JPEG", exif=exif)
    assert thumbnail(function, picture).size == (85, 128)


def test_a_file_of_several_pictures_is_its_first(function):
    two = [Image.new("RGB", (480, 320), colour) for colour in ("red", "blue")]
    small = thumbnail(function, stored(two[0], "MPO", save_all=True, append_images=two[1:]))
    assert (small.format, small.getpixel((5, 5))[0] > 250) == ("JPEG", True)


def test_no_byte_flipped_is_a_traceback(function):
    whole = stored(Image.new("RGB", (64, 48), "red"), "PNG")
    for at in range(len(whole)):
        broken = whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :]
        outcome = function.call(function.event(broken))
        assert outcome.status in ("ok", "reject"), (at, outcome.error)
