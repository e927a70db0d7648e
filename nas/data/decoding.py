"""Files of images become arrays of one size: the base of the data sets that are made of such files.

A data set lists its images and their classes. Here they are looked at, decoded once, and kept in
memory, or in a file of the cache folder where they are too large for that.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import shutil
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL
from PIL import ExifTags, Image, ImageOps

from nas.core.dataset import Examples, SearchSplits, files_stamp
from nas.core.errors import ConfigError, DataError, one_line, printable
from nas.core.files import cache_path, if_abandoned, write_json_atomically
from nas.core.host import try_lock, usable_cores, usable_memory
from nas.core.pixels import PixelArray, PixelFile, StoredPixels
from nas.core.records import decoding, read_json
from nas.data import Labels, StratifiedDataset
from nas.tasks.classification import Classification

T = TypeVar("T")

FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "PCX",
    "PNG",
    "PPM",
    "QOI",
    "SGI",
    "SUN",
    "TGA",
    "TIFF",
    "WEBP",
)
"""Pillow's names of the formats whose files are taken for images."""

LARGEST_SIDE = 224
"""Largest height and width, in pixels, that is chosen for images of different sizes."""

# Of classes, broken files and reasons to pass files over, how many are named in one line.
NAMED = 5

# Images that a thread looks at or decodes before it asks for more.
_CHUNK = 32

# Of the rules by which images are decoded; files of another version are not taken.
_VERSION = 1

_GREY = {"1", "L", "LA", "La"}

# Values of the EXIF orientation that exchange height and width.
_TURNED = {5, 6, 7, 8}


class EmbeddedImage(ABC):
    """An encoded image within a file; as text it says which one."""

    @abstractmethod
    def read(self) -> bytes:
        """Return what a file of the image would hold.

        Raises:
            DataError: It cannot be read.
        """

    @abstractmethod
    def __str__(self) -> str: ...


Item = Path | EmbeddedImage
"""An encoded image."""

Pool = tuple[Sequence[Item], Labels]
"""Images and their labels `(n,)`."""


@dataclass(frozen=True)
class Listing:
    """The images of a data set, none of them opened.

    Attributes:
        task: What is predicted.
        splits: Images of `train`, `validation` and `test`.
        files: All files that they are read from.
        note: How many images there are of which classes, for people.
    """

    task: Classification
    splits: Mapping[str, Pool]
    files: Collection[Path]
    note: str


@dataclass(frozen=True)
class _Form:
    """What all images are made into.

    Attributes:
        size: Height and width.
        channels: 1 or 3.
        resized: Whether an image of another size is resized; else it is refused.
        notes: What people should know of it.
    """

    size: tuple[int, int]
    channels: int
    resized: bool
    notes: tuple[str, ...]

    def shape(self, images: int) -> tuple[int, int, int, int]:
        return images, self.channels, *self.size


@dataclass(frozen=True)
class _Header:
    """What the header of an image says: height and width as it is shown, and its colours."""

    size: tuple[int, int]
    grey: bool
    transparent: bool


@dataclass(frozen=True, kw_only=True)
class EncodedImages(StratifiedDataset):
    """Base of the data sets that are made of encoded images (JPEG, PNG, ...).

    Transparent images are laid on white; palettes and CMYK become RGB; photos are turned upright
    as their EXIF orientation says; of an animation the first image counts. Images of 16 bits per
    channel are refused.

    Attributes:
        path: The folder, or the file that lists the images.
        image_size: Pixels of height and width, one number or `[HEIGHT,WIDTH]`, to which the
            shorter side is scaled and the centre cropped; if not given, images of one common size
            keep it, and images of different sizes are made square, with the median of their
            shorter sides as the side, at most 224.
        grayscale: Whether images have one channel instead of three; if not given, they have one
            where all of them are grey.
        memory_share: Share of the memory that this process may use above which the decoded images
            of the three splits are kept in a file of the cache folder, from which every batch is
            read; with 0 they always are.
        follow_links: Whether to read files outside of the data set's folder, as in a folder of
            links that you made; refused in one that came from somebody else.
        mirrors: Whether an image that is mirrored left to right shows the same; set it to false
            where left and right matter, as in text or digits.
    """

    path: str
    image_size: Any = None
    grayscale: bool | None = None
    memory_share: float = 0.25
    follow_links: bool = False
    mirrors: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        size, sides = self.image_size, self._sides()
        whole = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
        if size is not None and not (len(sides) == 2 and whole and min(sides) > 0):
            expected = "a positive number of pixels, or two, [HEIGHT,WIDTH]"
            raise ConfigError("data.image_size", size, expected)
        if not self.memory_share >= 0:
            raise ConfigError("data.memory_share", self.memory_share, "a share, 0 or more")

    @abstractmethod
    def listing(self) -> Listing:
        """List the images and labels of every split, without opening an image.

        Raises:
            DataError: The data is not as expected; names the file.
        """

    def search_splits(self) -> SearchSplits:
        (train, validation), notes = self._load("train", "validation")
        return SearchSplits(train, validation, notes)

    def test_split(self) -> Examples:
        return self._load("test")[0][0]

    def stamp(self) -> str:
        return files_stamp(self, self.listing().files)

    def listed(
        self,
        pools: Mapping[str, Pool],
        class_names: Sequence[str],
        files: Collection[Path] | None = None,
        note: str = "",
    ) -> Listing:
        """Return the listing of pools of images; see `StratifiedDataset.three_way`.

        Args:
            pools: Images by the split that they are for.
            class_names: Name of every class.
            files: All files that are read; the images themselves if not given.
            note: Put behind the line that says how many images there are.
        """
        if "train" not in pools:
            got = ", ".join(pools) or "none"
            raise DataError(f"{shown(self._root)}: got images of the splits {got}, expected train")
        labels = {name: labels for name, (_, labels) in pools.items()}
        splits = {}
        for split, (pool, at) in self.three_way(labels, class_names, str(self._root)).items():
            items = pools[pool][0]
            splits[split] = ([items[i] for i in at], labels[pool][at])
        counts = np.bincount(np.concatenate(list(labels.values())), minlength=len(class_names))
        if files is None:
            files = [
                item for items, _ in pools.values() for item in items if isinstance(item, Path)
            ]
        line = f"{shown(self._root)}: {_read_line(class_names, counts.tolist())}{note}"
        return Listing(Classification(class_names=tuple(class_names)), splits, files, line)

    @property
    def _root(self) -> Path:
        return Path(self.path).expanduser()

    def _sides(self) -> tuple[int, ...]:
        size = self.image_size
        return tuple(size) if isinstance(size, list | tuple) else (size, size)

    def _load(self, *names: str) -> tuple[list[Examples], tuple[str, ...]]:
        """Decode splits; if that fails, the test split as well, to name all broken files."""
        listing = self.listing()
        # Before the files are read: what changes afterwards then has another stamp.
        same = (_VERSION, PIL.__version__, replace(self, memory_share=0.0, mirrors=True))
        cache = cache_path("images") / files_stamp(same, listing.files)
        record = cache.with_suffix(".json")
        form = _recorded(record) if record.is_file() else self._form(listing)
        images = sum(len(items) for items, _ in listing.splits.values())
        size, memory = math.prod(form.shape(images)), usable_memory()
        notes, stored = (listing.note, *form.notes), size > self.memory_share * memory
        if stored:
            notes += (
                f"{shown(self._root)}: decoded images take {_gb(size)}, more than"
                f" data.memory_share={self.memory_share:g} of {_gb(memory)} of memory; they are"
                f" read from files in {shown(cache.parent)}",
            )
        loaded, broken = [], list[str]()
        for name in names:
            items, labels = listing.splits[name]
            pixels, objections = (
                _in_file(items, form, cache.with_name(f"{cache.name}-{name}.u8"))
                if stored
                else _in_memory(items, form)
            )
            loaded.append(Examples(pixels, labels, listing.task))
            broken += objections
        if broken:
            if "test" not in names:
                broken += _decode(listing.splits["test"][0], form, lambda *_: None)
            raise DataError(_broken_line(broken))
        if stored:
            write_json_atomically(record, asdict(form))
        return loaded, notes

    def _form(self, listing: Listing) -> _Form:
        """Choose the size and the channels of all images by their headers."""
        items = [item for items, _ in listing.splits.values() for item in items]

        def look(first: int) -> list[_Header]:
            found = []
            for item in items[first : first + _CHUNK]:
                # One that is broken is named when it is decoded.
                with contextlib.suppress(DataError):
                    found.append(_read_header(item))
            return found

        headers = [header for found in _on_all_cores(look, len(items)) for header in found]
        sizes = Counter(header.size for header in headers)
        several, chosen = len(sizes) > 1, ""
        if self.image_size is not None:
            height, width = self._sides()
        elif several:
            sides = sorted(min(header.size) for header in headers)
            height = width = min(sides[(len(sides) - 1) // 2], LARGEST_SIDE)
            chosen = (
                f" (the median of the shorter sides, at most {LARGEST_SIDE}; data.image_size"
                " chooses another size)"
            )
        else:
            height, width = next(iter(sizes), (1, 1))
        notes = []
        if resized := sizes.total() - sizes[height, width]:
            notes.append(
                f"{resized} of {len(items)} images are resized to {width}x{height} pixels{chosen}:"
                " the shorter side is scaled, then the centre is cropped"
            )
        if transparent := sum(header.transparent for header in headers):
            notes.append(f"{transparent} images have an alpha channel: they are laid on white")
        grey, alike = self.grayscale, bool(headers) and all(header.grey for header in headers)
        if grey is None and alike:
            notes.append("all images are grey and have one channel; data.grayscale=false gives 3")
        channels = 1 if (alike if grey is None else grey) else 3
        lines = tuple(f"{shown(self._root)}: {note}" for note in notes)
        return _Form((height, width), channels, several or self.image_size is not None, lines)


def _recorded(record: Path) -> _Form:
    """Return what `_form` has chosen in an earlier run."""
    fix = "delete it and run the same command again"
    kinds = {"size": list, "channels": int, "resized": bool, "notes": list}
    found = read_json(record, kinds, fix)
    with decoding(record, fix):
        height, width = found["size"]
        return _Form((height, width), found["channels"], found["resized"], tuple(found["notes"]))


def _in_memory(items: Sequence[Item], form: _Form) -> tuple[PixelArray, list[str]]:
    """Decode images into an array; return it, and what is wrong with those that fail."""
    pixels = np.empty(form.shape(len(items)), np.uint8)

    def keep(first: int, images: PixelArray) -> None:
        pixels[first : first + len(images)] = images

    return pixels, _decode(items, form, keep)


def _in_file(items: Sequence[Item], form: _Form, path: Path) -> tuple[StoredPixels, list[str]]:
    """Decode images into a file, unless that was done; see `_in_memory`.

    The file has its name only when it is complete.
    """
    file = PixelFile(path, form.shape(len(items)))
    stored = StoredPixels.of(file)
    if path.is_file() and path.stat().st_size == file.size:
        return stored, []
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for left in path.parent.glob(".*.part"):
            if_abandoned(left, Path.unlink)
        with part.open("wb") as opened:
            descriptor = opened.fileno()
            try_lock(descriptor)
            # At once, so that a disk that is too small does not end a decoding of hours.
            os.posix_fallocate(descriptor, 0, file.size)
            each = file.size // len(items)

            def keep(first: int, images: PixelArray) -> None:
                left, offset = images.data.cast("B"), first * each
                while left:
                    count = os.pwrite(descriptor, left, offset)
                    left, offset = left[count:], offset + count

            broken = _decode(items, form, keep)
            os.fsync(descriptor)
        if not broken:
            part.replace(path)
    except OSError as error:
        folder = next(at for at in path.parents if at.is_dir())
        free = shutil.disk_usage(folder).free
        raise DataError(
            f"{shown(path.parent)}: {_gb(file.size)} of decoded images cannot be written"
            f" ({error.strerror}; {_gb(free)} are free), expected a folder with so much space;"
            " free it, set XDG_CACHE_HOME to a folder on another disk, or a smaller"
            " data.image_size"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    return stored, broken


def _decode(
    items: Sequence[Item], form: _Form, keep: Callable[[int, PixelArray], None]
) -> list[str]:
    """Decode images on all cores; return what is wrong with those that fail.

    Args:
        items: The images.
        form: What they are made into.
        keep: Is given the number of the first of some images, and these; from several threads.
    """

    def decode(first: int) -> list[str]:
        some = items[first : first + _CHUNK]
        images, broken = np.zeros(form.shape(len(some)), np.uint8), []
        for image, item in zip(images, some, strict=True):
            try:
                image[:] = np.atleast_3d(_pixels(item, form)).transpose(2, 0, 1)
            except DataError as error:
                broken.append(str(error))
        keep(first, images)
        return broken

    return [line for lines in _on_all_cores(decode, len(items)) for line in lines]


def _on_all_cores(work: Callable[[int], T], images: int) -> list[T]:
    """Call `work` with the number of the first image of every chunk."""
    with warnings.catch_warnings(), ThreadPoolExecutor(usable_cores()) as pool:
        # What a decoder warns of, it either copes with or fails at.
        warnings.simplefilter("ignore")
        return list(pool.map(work, range(0, images, _CHUNK)))


@contextlib.contextmanager
def _opened(item: Item) -> Iterator[Image.Image]:
    """Open an image; whatever fails in the block is a `DataError` that names it."""
    # Opening a pipe would wait for ever.
    if isinstance(item, Path) and not item.is_file():
        raise DataError(f"{shown(item)}: cannot be read (a broken link or no regular file)")
    try:
        # By its content, a file may be of a format that Pillow starts other programs for.
        file = item if isinstance(item, Path) else io.BytesIO(item.read())
        with Image.open(file, formats=FORMATS) as image:
            yield image
    except DataError:
        raise
    except Exception as error:
        # A broken file may fail a decoder in any way.
        raise DataError(f"{shown(item)}: cannot be read ({one_line(error)})") from error


def _read_header(item: Item) -> _Header:
    with _opened(item) as image:
        # That of a PNG would decode it, to look for an orientation behind the pixels.
        turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation) in _TURNED
        size = image.size if turned else (image.height, image.width)
        return _Header(size, image.mode in _GREY, image.has_transparency_data)


def _pixels(item: Item, form: _Form) -> PixelArray:
    """Decode one image, `(height, width)` or `(height, width, 3)`."""
    with _opened(item) as opened:
        image: Image.Image = opened
        # Pillow clips such values to 255 instead of scaling them.
        if image.mode in ("I", "F") or image.mode.startswith("I;"):
            raise DataError(f"{shown(item)}: got pixel mode {image.mode!r}")
        ImageOps.exif_transpose(image, in_place=True)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        image = image.convert("L" if form.channels == 1 else "RGB")
        height, width = form.size
        if form.resized:
            image = ImageOps.fit(image, (width, height))
        elif image.size != (width, height):
            line = f"got {image.width}x{image.height} pixels where its header says {width}x{height}"
            raise DataError(f"{shown(item)}: {line}")
        return np.asarray(image)


def shown(item: Item) -> str:
    """Return which image it is as text that can be printed, also if its name is not UTF-8."""
    name = os.fsencode(item) if isinstance(item, Path) else str(item).encode(errors="replace")
    return printable(name.decode(errors="backslashreplace"))


def check_inside(path: Path, own: Path | None) -> None:
    """Check that a path does not lead out of the folder `own`; `None` allows it.

    Raises:
        DataError: It does.
    """
    target = Path(os.path.realpath(path))  # unlike `resolve` it takes a link to itself
    if own is not None and not target.is_relative_to(own):
        raise DataError(
            f"{shown(path)}: leads out of {own}, to {shown(target)}; copy the images into it, or"
            " set data.follow_links=true where you made the links"
        )


def numbered(labels: Sequence[str]) -> tuple[tuple[str, ...], Labels]:
    """Return the names of the classes, sorted, and the class of every label.

    Names that are all whole numbers are sorted as numbers.
    """
    names = sorted(set(labels))
    if all(name.isdecimal() for name in names):
        names.sort(key=int)
    number = {name: at for at, name in enumerate(names)}
    return tuple(names), np.array([number[label] for label in labels], np.int64)


def _gb(size: float) -> str:
    return f"{size / 1e9:.3g} GB"


def _broken_line(broken: Sequence[str]) -> str:
    named, expected = "; ".join(broken[:NAMED]), "expected intact images of 8 bits per channel"
    if len(broken) == 1:
        return f"{named}; {expected}: replace or remove it"
    rest = f"; and {len(broken) - NAMED} more" if len(broken) > NAMED else ""
    return f"{len(broken)} images cannot be used: {named}{rest}; {expected}: replace or remove them"


def _read_line(class_names: Sequence[str], counts: Sequence[int]) -> str:
    order = range(len(counts))
    if len(counts) <= NAMED:
        classes = ", ".join(f"{class_names[i]} {counts[i]}" for i in order)
    elif len(set(counts)) == 1:
        classes = f"{len(counts)} classes of {counts[0]} each"
    else:
        few, many = min(order, key=counts.__getitem__), max(order, key=counts.__getitem__)
        classes = (
            f"{len(counts)} classes, from {class_names[few]} {counts[few]}"
            f" to {class_names[many]} {counts[many]}"
        )
    return f"{sum(counts)} images ({classes})"
