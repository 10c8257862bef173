"""The Pillow door: encoded pictures -> pixels -> tensors.

The head of a picture is read first: format and number of pixels are checked before anything is
decoded, so that a bomb (a small file of billions of pixels) costs nothing.
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from functions.errors import InvalidRequest

from . import payloads
from .parsers import Size
from .payloads import Array

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


class Reader:
    """From what a request holds to pixels of the configured size and channels."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._max_bytes: int = values["max_bytes"]
        self._max_pixels: int = values["max_pixels"]
        self._max_request_pixels: int = values["max_request_pixels"]
        self._formats = [name.upper() for name in values["formats"]]
        self._mode = _MODES[values["channels"]]
        self._background: str = values["background"]
        self._orient: bool = values["orient"]
        self._resize: Size = values["resize"]
        self._crop: Size = values["crop"]
        self._resampling = _RESAMPLING[values["interpolation"]]
        # Pillow has a limit of its own, for the process: ours decides, and is looked at first.
        if Image.MAX_IMAGE_PIXELS is not None:
            Image.MAX_IMAGE_PIXELS = max(Image.MAX_IMAGE_PIXELS, self._max_pixels)

    def of_values(self, values: Sequence[Any]) -> list[Array]:
        """Pixels of base64 texts or raw bytes, one after the other, so that at most one picture is
        in memory at its full size. Raises InvalidRequest."""
        decoded = kept = 0
        found = []
        for index, value in enumerate(values):
            picture = self._of_value(value, "the image" if len(values) == 1 else f"image {index}")
            pixels = self._sized(picture)
            decoded += picture.width * picture.height
            kept += pixels.shape[0] * pixels.shape[1]
            self._check_request(max(decoded, kept))
            found.append(pixels)
        return found

    def _check_request(self, pixels: int) -> None:
        if pixels > self._max_request_pixels:
            raise InvalidRequest(
                f"the images of the request have together more than {self._max_request_pixels}"
                " pixels: send several requests"
            )

    def _of_value(self, value: Any, where: str) -> Image.Image:
        """A decoded picture. Raises InvalidRequest."""
        raw = payloads.encoded_bytes(value, where, self._max_bytes)
        try:
            picture = Image.open(io.BytesIO(raw), formats=self._formats)
        except (Image.DecompressionBombError, Image.DecompressionBombWarning):
            raise self._too_large(where) from None
        except Exception as error:  # decoders raise what they like on broken heads
            raise InvalidRequest(
                f"{where} is no picture of a known format ({', '.join(self._formats)}):"
                f" {_reason(error)}"
            ) from None
        if picture.width * picture.height > self._max_pixels:
            raise self._too_large(where, f"{picture.width}x{picture.height}")
        try:
            picture.load()
            return self._in_mode(picture)
        except InvalidRequest:
            raise
        except Exception as error:  # decoders raise what they like on broken contents
            raise InvalidRequest(f"{where} is broken: {_reason(error)}") from None

    def of_array(self, array: Array, limit: int) -> list[Array]:
        """Pixels that the caller has decoded: UINT8 [h, w], [h, w, c] or [n, h, w, c]. Raises
        InvalidRequest."""
        if array.dtype != np.uint8:
            raise InvalidRequest(
                f"pixels must be UINT8 (or send encoded pictures as BYTES), not {array.dtype}"
            )
        if array.ndim == 2:
            array = array[:, :, None]
        stacked = array[None] if array.ndim == 3 else array
        if stacked.ndim != 4 or stacked.shape[3] not in (1, 3, 4) or not stacked.size:
            raise InvalidRequest(
                f"pixels must have shape [n, height, width, channels] with 1, 3 or 4 channels, not"
                f" {list(array.shape)}"
            )
        count, height, width, channels = stacked.shape
        if count > limit:
            raise InvalidRequest(f"the request holds {count} images, more than {limit}")
        if height * width > self._max_pixels:
            raise self._too_large("an image", f"{width}x{height}")
        self._check_request(count * height * width)
        squeezed = stacked[..., 0] if channels == 1 else stacked
        pictures = (self._in_mode(Image.fromarray(np.ascontiguousarray(one))) for one in squeezed)
        found = [self._sized(picture) for picture in pictures]
        self._check_request(sum(pixels.shape[0] * pixels.shape[1] for pixels in found))
        return found

    def _sized(self, picture: Image.Image) -> Array:
        """Pixels of the configured size: (height, width, channels), 0 to 255. Raises
        InvalidRequest."""
        if self._resize:
            picture = picture.resize(self._target(picture), self._resampling)
        if self._crop:
            height = self._crop.side or self._crop.height
            width = self._crop.side or self._crop.width
            if picture.height < height or picture.width < width:
                raise InvalidRequest(
                    f"an image of {picture.width}x{picture.height} pixels is smaller than the"
                    f" {width}x{height} that are cut out: send a larger one, or configure resize"
                )
            left, top = round((picture.width - width) / 2), round((picture.height - height) / 2)
            picture = picture.crop((left, top, left + width, top + height))
        pixels = np.asarray(picture)
        return pixels[:, :, None] if pixels.ndim == 2 else pixels

    def _target(self, picture: Image.Image) -> tuple[int, int]:
        """(width, height) after resizing. Raises InvalidRequest."""
        if not self._resize.side:
            return self._resize.width, self._resize.height
        side = self._resize.side
        short, long = sorted(picture.size)
        longer = int(side * long / short)
        if side * longer > self._max_pixels:
            raise self._too_large("the resized image", f"{side}x{longer}")
        return (side, longer) if picture.width <= picture.height else (longer, side)

    def _in_mode(self, picture: Image.Image) -> Image.Image:
        if self._orient:
            picture = ImageOps.exif_transpose(picture)
        if picture.mode == "F":
            raise InvalidRequest("pictures of floating-point pixels are not read: send 8-bit ones")
        if picture.mode.startswith("I"):  # 16 bits a pixel: convert() would cut instead of scaling
            wide = np.asarray(picture).astype(np.int64)
            picture = Image.fromarray((wide >> 8 if wide.max() > 255 else wide).astype(np.uint8))
        if self._background and self._mode != "RGBA" and picture.has_transparency_data:
            front = picture.convert("RGBA")
            back = Image.new("RGBA", front.size, self._background)
            picture = Image.alpha_composite(back, front)
        return picture if picture.mode == self._mode else picture.convert(self._mode)

    def _too_large(self, where: str, size: str = "") -> InvalidRequest:
        shown = f" ({size})" if size else ""
        return InvalidRequest(
            f"{where} has more than {self._max_pixels} pixels{shown}: send a smaller one"
        )


class Pixels:
    """From pixels to the predictor's tensor: numbers, order of axes, datatype."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        channels = values["channels"]
        self._bgr = values["order"] == "bgr"
        self._invert: bool = values["invert"]
        self._layout: str = values["layout"]
        self._datatype: str = values["dtype"]
        mean = np.broadcast_to(np.array(values["mean"] or (0.0,), np.float64), (channels,))
        std = np.broadcast_to(np.array(values["std"] or (1.0,), np.float64), (channels,))
        # ((x * scale) - mean) / std, as one multiplication and one addition.
        factor, offset = values["scale"] / std, -mean / std
        self._plain = bool((factor == 1).all() and (offset == 0).all())
        wide = np.float64 if self._datatype == "FP64" else np.float32
        self._factor, self._offset = factor.astype(wide), offset.astype(wide)

    def to_tensor(self, batch: Array) -> Array:
        """(n, height, width, channels) of uint8 -> the configured layout and datatype."""
        if self._invert:
            batch = 255 - batch
        if self._bgr:
            batch = batch[..., [2, 1, 0, *range(3, batch.shape[3])]]
        if not self._plain:
            batch = batch * self._factor + self._offset
        if self._layout == "nchw":
            batch = batch.transpose(0, 3, 1, 2)
        elif self._layout == "nhw":
            batch = batch[..., 0]
        elif self._layout == "flat":
            batch = batch.reshape(len(batch), -1)
        return payloads.as_datatype(batch, self._datatype)


def _reason(error: Exception) -> str:
    """What a decoder says, without the address of our buffer."""
    text = str(error)
    return "its head is unknown" if "BytesIO" in text or not text else text[:200]
