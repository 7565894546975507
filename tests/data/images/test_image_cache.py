"""A cache of images gives what was put in, for the image as it is now, and never takes more room than it may."""

import multiprocessing
import warnings

import numpy as np
import pytest

from llava_aurora.data.images.image_cache import ImageCache
from llava_aurora.errors import AuroraError

SHAPE = (3, 40, 50)
ENTRY = 8192  # 6,040 bytes in blocks of 4,096


def image(seed):
    return np.random.default_rng(seed).integers(0, 256, SHAPE, dtype=np.uint8)


def refuse():
    raise AssertionError("it should have been in the cache")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "images of epochs"


@pytest.fixture
def paths(tmp_path):
    made = [tmp_path / f"{number}.jpg" for number in range(6)]
    for number, path in enumerate(made):
        path.write_text(str(number))
    return made


@pytest.fixture
def cache(folder):
    return ImageCache(folder, limit=10 * ENTRY, settings="336")


def entries(folder):
    return sorted(folder.rglob("*.img"))


def bytes_in(folder):
    return sum(-(-entry.stat().st_size // 4096) * 4096 for entry in entries(folder))


def test_an_image_is_made_once_and_the_same_ever_after(cache, folder, paths):
    for _ in range(2):
        for number, path in enumerate(paths):
            assert np.array_equal(cache.get(path, lambda number=number: image(number)), image(number))
    again = ImageCache(folder, limit=10 * ENTRY, settings="336")
    for number, path in enumerate(paths):
        found = again.get(path, refuse)
        assert found.dtype == np.uint8
        assert np.array_equal(found, image(number))
    assert int((folder / "used").read_text()) == bytes_in(folder) == 6 * ENTRY


def test_other_settings_see_none_of_it(cache, folder, paths):
    cache.get(paths[0], lambda: image(0))
    other = ImageCache(folder, limit=10 * ENTRY, settings="224")
    assert np.array_equal(other.get(paths[0], lambda: image(1)), image(1))
    assert np.array_equal(cache.get(paths[0], refuse), image(0))


def test_a_changed_image_takes_the_place_of_its_earlier_state(cache, folder, paths):
    cache.get(paths[0], lambda: image(0))
    paths[0].write_text("longer than before")
    assert np.array_equal(cache.get(paths[0], lambda: image(1)), image(1))
    assert np.array_equal(cache.get(paths[0], refuse), image(1))
    assert len(entries(folder)) == 1
    assert int((folder / "used").read_text()) == ENTRY


def flipped(content, position):
    return content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:20],
        lambda content: content[:-1],
        lambda content: content + b"x",
        lambda content: b"gzip" + content[4:],
        lambda content: flipped(content, 26),
        lambda content: flipped(content, 37),
        lambda content: flipped(content, 3000),
    ],
    ids=["empty", "header", "short", "long", "magic", "shape", "checksum", "value"],
)
def test_a_damaged_entry_is_noticed_and_written_anew(cache, folder, paths, damage):
    cache.get(paths[0], lambda: image(0))
    (entry,) = entries(folder)
    entry.write_bytes(damage(entry.read_bytes()))
    assert np.array_equal(cache.get(paths[0], lambda: image(0)), image(0))
    assert np.array_equal(cache.get(paths[0], refuse), image(0))


def test_a_full_cache_takes_no_more_and_says_so_once(folder, paths):
    cache = ImageCache(folder, limit=2 * ENTRY + 100, settings="336")
    with warnings.catch_warnings(record=True) as told:
        for _ in range(2):
            for number, path in enumerate(paths):
                assert np.array_equal(cache.get(path, lambda number=number: image(number)), image(number))
    (full,) = told
    assert "the image cache is full" in str(full.message)
    assert bytes_in(folder) == 2 * ENTRY
    larger = ImageCache(folder, limit=3 * ENTRY, settings="224")  # those of other settings count as well
    larger.get(paths[0], lambda: image(0))
    assert bytes_in(folder) == 3 * ENTRY


def test_what_a_killed_process_left_is_cleared_and_counted_anew(cache, folder, paths):
    cache.get(paths[0], lambda: image(0))
    (entry,) = entries(folder)
    unfinished = entry.with_name(".half-of-one.img")
    unfinished.write_bytes(b"x" * 5000)
    (folder / "used").write_text("")
    cache.get(paths[1], lambda: image(1))
    assert not unfinished.exists()
    assert int((folder / "used").read_text()) == bytes_in(folder) == 2 * ENTRY


def test_a_folder_that_takes_nothing_more_does_not_stop_the_run(cache, folder, paths, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("llava_aurora.files.os.replace", full)
    with pytest.warns(UserWarning, match="takes no more images: .*disk full"):
        assert np.array_equal(cache.get(paths[0], lambda: image(0)), image(0))
    assert np.array_equal(cache.get(paths[1], lambda: image(1)), image(1))
    assert not [path for path in folder.rglob("*") if path.suffix == ".img"]


def test_a_folder_that_cannot_be_made_and_a_limit_of_nothing_are_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(AuroraError, match=r"cannot write images there \(--image_cache\)"):
        ImageCache(tmp_path / "file" / "cache", limit=1, settings="")
    with pytest.raises(AuroraError, match=r"0 bytes \(--image_cache_gb\) is too small"):
        ImageCache(tmp_path, limit=0, settings="")


def _rank(folder, paths, limit, out):
    cache = ImageCache(folder, limit=limit, settings="336")
    right = all(
        np.array_equal(cache.get(path, lambda number=number: image(number)), image(number))
        for _ in range(3)
        for number, path in enumerate(paths)
    )
    out.put((right, bytes_in(folder) <= limit))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("room", [4, 10])
def test_ranks_that_write_at_the_same_time_agree_and_keep_to_the_limit(folder, paths, room):
    context = multiprocessing.get_context("fork")
    out = context.Queue()
    ranks = [context.Process(target=_rank, args=(folder, paths, room * ENTRY, out)) for _ in range(4)]
    for rank in ranks:
        rank.start()
    assert [out.get(timeout=60) for _ in ranks] == [(True, True)] * 4
    for rank in ranks:
        rank.join()
    assert len(entries(folder)) == min(room, len(paths))
    assert not list(folder.rglob(".*"))
