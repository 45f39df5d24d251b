"""Image files as 8-bit tensors: decoded on demand, kept under a byte budget, decoded ahead.

`ImageFiles` is the `ImageSource` of every scene that lies in a folder. Pixels are stored as found:
sRGB, straight alpha, no EXIF rotation (camera poses refer to the stored pixels). Reduced images are
area averages; colours are weighted by their alpha, so that hidden colours never leak into edges.
"""

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from lumigraph.core.errors import DataError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")

_MODE_OF_CHANNELS = {1: "L", 3: "RGB", 4: "RGBA"}
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# Pillow reports a broken file by any of these, depending on the format and on where it breaks.


def image_header(path: Path) -> tuple[int, int, bool]:
    """Width, height and whether there is an alpha channel, read without decoding the pixels."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            has_alpha = image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info
    except FileNotFoundError:
        raise DataError(
            f"{path}: image not found; restore it or remove it from the scene"
        ) from None
    except (UnidentifiedImageError, *_DECODE_ERRORS) as error:
        raise DataError(_broken(path, error)) from None
    return width, height, has_alpha


def decode_image(path: Path, channels: int) -> np.ndarray:
    """Pixels (height, width, channels) uint8 of one file; channels is 1, 3 or 4."""
    try:
        with Image.open(path) as image:
            image.load()
            grey16 = image.mode.startswith("I")
            eight_bits = _to_eight_bits(image) if grey16 else image
            pixels = np.array(eight_bits.convert(_MODE_OF_CHANNELS[channels]))
            return pixels.reshape(image.height, image.width, channels)
    except FileNotFoundError:
        raise DataError(
            f"{path}: image not found; restore it or remove it from the scene"
        ) from None
    except (UnidentifiedImageError, *_DECODE_ERRORS) as error:
        raise DataError(_broken(path, error)) from None


def reduced_size(width: int, height: int, scale: float) -> tuple[int, int]:
    """Size after `image_scale`, rounded to whole pixels; 0 where nothing would be left."""
    return int(width * scale + 0.5), int(height * scale + 0.5)


def area_average(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Reduce (h, w, 1|3|4) uint8 pixels to (height, width, same) by the mean over each area.

    With four channels the colours are averaged after multiplication by alpha and divided again, so
    the result is straight alpha as well; where alpha is zero the colour is zero.

    Example:
        >>> edge = np.array([[[200, 0, 0, 255], [0, 99, 0, 0]]], dtype=np.uint8)
        >>> area_average(edge, 1, 1).tolist()
        [[[200, 0, 0, 128]]]
    """
    if pixels.shape[1] == width and pixels.shape[0] == height:
        return pixels
    if pixels.shape[2] == 3 and pixels.shape[1] % width == 0 and pixels.shape[0] % height == 0:
        # Whole blocks of opaque pixels: the same mean, ten times faster.
        blocks = (pixels.shape[1] // width, pixels.shape[0] // height)
        return np.array(Image.fromarray(pixels).reduce(blocks))
    values = pixels.astype(np.float64)
    if values.shape[2] == 4:
        values[..., :3] *= values[..., 3:] / 255.0
    reduced = _average_columns(_average_rows(values, height), width)
    if reduced.shape[2] == 4:
        reduced[..., :3] *= 255.0 / np.maximum(reduced[..., 3:], 1e-3)
    return np.clip(np.floor(reduced + 0.5), 0.0, 255.0).astype(np.uint8)


class ImageFiles:
    """Images of a scene, decoded on demand; safe to call from several threads.

    Args:
        paths: One file per image.
        sizes: Width and height of each file; read from the file headers when None.
        names: What `name` says; None tells the files apart by the ends of their paths.
        scale: Factor on both sides in (0, 1]; see `reduced_size`.
        channels: 3 (colour), 4 (colour and alpha) or 1 (masks) for every image.
        budget_bytes: Decoded images kept at most; the least recently used ones go first.
        ahead: Images decoded in the background when images are read in order.

    Example:
        >>> ImageFiles([]).cached_bytes
        0
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        sizes: Sequence[tuple[int, int]] | None = None,
        names: Sequence[str] | None = None,
        scale: float = 1.0,
        channels: int = 3,
        budget_bytes: int = 1 << 30,
        ahead: int = 2,
    ) -> None:
        self._paths = tuple(Path(path) for path in paths)
        found = sizes if sizes is not None else [image_header(path)[:2] for path in self._paths]
        self._sizes = tuple(reduced_size(width, height, scale) for width, height in found)
        for path, (width, height) in zip(self._paths, self._sizes, strict=True):
            if width < 1 or height < 1:
                raise DataError(
                    f"{path}: image_scale {scale} leaves {width}x{height} pixels; use a larger one"
                )
        self._names = _telling_names(self._paths) if names is None else list(names)
        self._channels = channels
        self._budget_bytes = budget_bytes
        self._ahead = ahead
        self._lock = threading.Lock()
        self._cache: OrderedDict[int, Tensor] = OrderedDict()
        self._cached_bytes = 0
        self._pending: dict[int, Future[Tensor]] = {}
        self._workers: ThreadPoolExecutor | None = None
        self._next_in_order = 0

    def __len__(self) -> int:
        return len(self._paths)

    @property
    def cached_bytes(self) -> int:
        """Bytes of decoded images held at the moment."""
        return self._cached_bytes

    def name(self, index: int) -> str:
        """The name given; or the file's with its folder, as in 'train/r_0.png', or with more
        folders where that would not tell the images apart."""
        return self._names[self._checked(index)]

    def path(self, index: int) -> Path:
        """The file of an image."""
        return self._paths[self._checked(index)]

    def size(self, index: int) -> tuple[int, int]:
        """Width and height of an image as `load` returns it."""
        return self._sizes[self._checked(index)]

    def load(self, index: int) -> Tensor:
        """Pixels (height, width, channels) uint8; shared with the cache, so do not write to it."""
        index = self._checked(index)
        with self._lock:
            in_order = index == self._next_in_order
            self._next_in_order = index + 1
            image = self._cache.get(index)
            if image is not None:
                self._cache.move_to_end(index)
            pending = self._pending.get(index)
            if pending is not None and pending.cancel():
                # Not started yet: decoding here is sooner than waiting behind other files.
                del self._pending[index]
                pending = None
        if in_order:
            self.prefetch(range(index + 1, min(index + 1 + self._ahead, len(self))))
        if image is not None:
            return image
        return pending.result() if pending is not None else self._decode(index)

    def prefetch(self, indices: Iterable[int]) -> None:
        """Start decoding these images in the background, as far as the budget can hold them."""
        expected_bytes = 0
        for index in map(self._checked, indices):
            width, height = self._sizes[index]
            expected_bytes += width * height * self._channels
            with self._lock:
                if expected_bytes > self._budget_bytes:
                    return
                if index in self._cache or index in self._pending:
                    continue
                if self._workers is None:
                    self._workers = ThreadPoolExecutor(1, thread_name_prefix="decode-ahead")
                self._pending[index] = self._workers.submit(self._decode, index)

    def close(self) -> None:
        """Stop decoding ahead and forget the decoded images; loading works afterwards too."""
        with self._lock:
            workers, self._workers = self._workers, None
            self._cache.clear()
            self._cached_bytes = 0
            self._pending.clear()
        if workers is not None:
            workers.shutdown(wait=True, cancel_futures=True)

    def _decode(self, index: int) -> Tensor:
        try:
            pixels = decode_image(self._paths[index], self._channels)
            image = torch.from_numpy(area_average(pixels, *self._sizes[index]))
        except BaseException:
            with self._lock:
                self._pending.pop(index, None)
            raise
        with self._lock:
            self._pending.pop(index, None)
            self._keep(index, image)
        return image

    def _keep(self, index: int, image: Tensor) -> None:
        """Put an image into the cache and drop the oldest ones; the lock is held."""
        size = image.numel()
        if size > self._budget_bytes or index in self._cache:
            return
        self._cache[index] = image
        self._cached_bytes += size
        while self._cached_bytes > self._budget_bytes:
            _, oldest = self._cache.popitem(last=False)
            self._cached_bytes -= oldest.numel()

    def _checked(self, index: int) -> int:
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        return index % len(self)


def _telling_names(paths: Sequence[Path]) -> list[str]:
    """The last parts of each path, as many as make all of them different; two at least."""
    unique = len(set(paths))
    deepest = max((len(path.parts) for path in paths), default=2)
    for count in range(2, deepest + 1):
        names = ["/".join(path.parts[-count:]) for path in paths]
        if len(set(names)) == unique:
            return names
    return [str(path) for path in paths]


def _average_rows(values: np.ndarray, count: int) -> np.ndarray:
    """Mean over `count` equal parts of the first axis; rows on an edge count by their share.

    Differences of the running sum, so the cost does not depend on the factor.
    """
    edges = np.linspace(0.0, len(values), count + 1)
    whole = np.minimum(edges.astype(np.int64), len(values) - 1)
    share = (edges - whole).reshape(-1, *[1] * (values.ndim - 1))
    running = np.cumsum(values, axis=0)
    sums = running[whole] - values[whole] * (1.0 - share)
    return np.diff(sums, axis=0) * (count / len(values))


def _average_columns(values: np.ndarray, count: int) -> np.ndarray:
    return _average_rows(values.swapaxes(0, 1), count).swapaxes(0, 1)


class MaskFiles:
    """Masks of a scene: the `MapSource` over one-channel `ImageFiles`."""

    def __init__(self, files: ImageFiles) -> None:
        self._files = files

    def __len__(self) -> int:
        return len(self._files)

    def load(self, index: int) -> Tensor:
        """(H, W) bool, True where the file is brighter than half."""
        return self._files.load(index)[..., 0] > 127


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """16-bit grey to 8-bit; Pillow's own conversion would clip instead of scale."""
    values = np.asarray(image).astype(np.float64)
    return Image.fromarray(np.clip(np.floor(values / 257.0 + 0.5), 0, 255).astype(np.uint8))


def _broken(path: Path, error: BaseException) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path}: cannot be decoded ({reason}); copy or export this image again or remove it"
