"""A cache of decoded and resized images on disk, for runs that show each image many times.

    FOLDER/used                   bytes in use, increased before an entry is written
    FOLDER/lock                   held while an entry is written, never while one is read
    FOLDER/SETTINGS/ab/cdef….img  one file an image; SETTINGS is a hash of how images were processed

An entry starts with a header: state of the image file it was made from, shape, checksum. An entry that does not agree
with its header (image changed, file damaged) is written anew. Any number of ranks, workers and runs may share a folder.
Nothing is evicted: epochs cycle through all images, so evicting the oldest entry would leave no hits at all. When the
cache is full, the remaining images are decoded each time.
"""

import hashlib
import math
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from llava_aurora.errors import AuroraError
from llava_aurora.files import atomic_file

# Format and version, state of the image file, (channels, height, width); then a checksum of these and the values.
_HEADER, _CHECKSUM = struct.Struct("<8s16s3I"), struct.Struct("<I")
_MAGIC = b"AURIMG01"
_BLOCK = 4096  # what file systems round up to


class ImageCache:
    """Images as uint8 (channels, H, W) in a folder. No file is kept open.

    Args:
        folder: created if it does not exist.
        limit: bytes that all entries in the folder may take, those of other settings included.
        settings: how images are processed; entries of other settings are not read.
    Raises AuroraError if the folder cannot be written, or the limit is not positive.
    """

    def __init__(self, folder: str | Path, *, limit: int, settings: str) -> None:
        if limit <= 0:
            raise AuroraError(f"an image cache of {limit} bytes (--image_cache_gb) is too small")
        self.folder, self.limit = Path(folder).absolute(), limit
        self._entries = self.folder / _digest(settings)
        self._writes = True
        try:
            self._entries.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise AuroraError(f"{self.folder}: cannot write images there (--image_cache): {error.strerror}") from error

    def get(self, path: Path, make: Callable[[], np.ndarray]) -> np.ndarray:
        """The entry of an image; if there is none, the result of `make`, which is stored if there is room.

        Args:
            make: returns uint8 (channels, H, W).
        Raises OSError if there is no such file. And what `make` raises.
        """
        state = path.stat()
        of = bytes.fromhex(_digest(f"{state.st_size} {state.st_mtime_ns} {path}"))
        name = _digest(str(path))
        entry = self._entries / name[:2] / f"{name[2:]}.img"
        image = _read(entry, of)
        if image is None:
            image = make()
            header, values = _HEADER.pack(_MAGIC, of, *image.shape), image.tobytes()
            self._keep(entry, header + _CHECKSUM.pack(zlib.crc32(values, zlib.crc32(header))) + values)
        return image

    def _keep(self, entry: Path, content: bytes) -> None:
        if not self._writes:
            return
        size = _rounded(len(content))
        try:
            with FileLock(self.folder / "lock"):
                used = self._used()
                if used + size > self.limit:
                    self._stop(
                        f"{self.folder}: the image cache is full ({used / 1e9:.1f} GB); other images are decoded each"
                        " time. More room: --image_cache_gb; images of other runs go when the folder is deleted"
                    )
                    return
                older = _rounded(entry.stat().st_size) if entry.exists() else 0
                self._set_used(used + size)  # first, so that a process killed while writing leaves the count too high
                with atomic_file(entry) as temporary:
                    temporary.write_bytes(content)
                self._set_used(used + size - older)
        except (OSError, AuroraError) as error:
            self._stop(f"{self.folder}: the image cache takes no more images: {error}")

    def _stop(self, message: str) -> None:
        self._writes = False
        warnings.warn(message, stacklevel=4)

    def _used(self) -> int:
        try:
            return int((self.folder / "used").read_text())
        except (FileNotFoundError, ValueError):
            # No other process writes while this one holds the lock: unfinished files are those of killed processes.
            for unfinished in self.folder.rglob(".*.img"):
                unfinished.unlink()
            return sum(_rounded(entry.stat().st_size) for entry in self.folder.rglob("*.img"))

    def _set_used(self, used: int) -> None:
        (self.folder / "used").write_text(f"{used:020d}")


def _read(entry: Path, of: bytes) -> np.ndarray | None:
    """The image of an entry, read-only; None if it is missing, damaged, or of another state of the image file."""
    try:
        content = entry.read_bytes()
        magic, found, *shape = _HEADER.unpack_from(content)
        (checksum,) = _CHECKSUM.unpack_from(content, _HEADER.size)
    except (OSError, struct.error):
        return None
    values = memoryview(content)[_HEADER.size + _CHECKSUM.size :]
    if (magic, found, len(values)) != (_MAGIC, of, math.prod(shape)):
        return None
    if zlib.crc32(values, zlib.crc32(content[: _HEADER.size])) != checksum:
        return None
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _rounded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
