"""RefCOCO in its published layouts."""

import pickle

import pytest
from refcoco import CUP, DISH, filled, write_refs, write_rows

from llava_aurora.data.sources.masks.referring import read_referred
from llava_aurora.errors import AuroraError


def test_rows_of_lmms_lab(tmp_path):
    cup, dish = read_referred(write_rows(tmp_path))
    assert cup.phrases == ("left cup", "white cup")
    assert (cup.split, cup.image_name, dish.image_name) == ("val", *["COCO_train2014_000000000009.jpg"] * 2)
    assert cup.id != dish.id
    assert (cup.mask() == filled(CUP)).all()
    assert (dish.mask() == filled(DISH)).all()
    assert dish.image.open().size == (40, 30)


@pytest.mark.parametrize(
    ("name", "protocol"), [("refs(unc).p", 0), ("refs(umd).p", 2), ("refs.json", 0), ("grefs(unc).json", 0)]
)
def test_references_beside_instances(tmp_path, name, protocol):
    folder = write_refs(tmp_path, name, protocol=protocol)
    for source in (folder, folder / name):
        cup, both, dog = read_referred(source)
        assert (cup.phrases, cup.split, cup.id) == (("left cup",), "testA", "7")
        assert cup.image == folder / "COCO_train2014_000000000009.jpg"
        assert (cup.mask() == filled(CUP)).all()
        assert (both.mask() == filled(CUP) | filled(DISH)).all()
        assert not dog.mask().any()


class Harmful:
    def __reduce__(self):
        return (print, ("run",))


def test_a_pickle_that_names_a_class_or_function_runs_nothing(tmp_path, capsys):
    folder = write_refs(tmp_path, sentences=[Harmful()])
    with pytest.raises(AuroraError, match=r"refs\(unc\).p: it names __builtin__.print, .* save it as JSON"):
        list(read_referred(folder))
    assert not capsys.readouterr().out
    (folder / "refs(unc).p").write_bytes(pickle.dumps([1])[:-2])
    with pytest.raises(AuroraError, match="save it as JSON"):
        list(read_referred(folder))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"image_id": 5}, r"reference 0: lacks 5"),
        ({"ann_id": 5}, r"reference 0: lacks 5"),
        ({"sentences": []}, "reference 0: has no phrase"),
        ({"sentences": [{"sent": " "}]}, "reference 0: has no phrase"),
        ({"segment": [4.0, 5.0, 54.0, 5.0, 14.0, 15.0]}, "reference 0: an outline leaves its image"),
    ],
)
def test_errors_name_file_and_reference(tmp_path, parts, said):
    with pytest.raises(AuroraError, match=said):
        next(read_referred(write_refs(tmp_path, **parts))).mask()


def test_a_row_without_phrase_and_a_folder_with_two_files_are_named(tmp_path):
    with pytest.raises(AuroraError, match="row 1 of row group 0: has no phrase"):
        list(read_referred(write_rows(tmp_path / "rows", answer=[""])))
    folder = write_refs(tmp_path / "refs")
    write_refs(tmp_path / "refs", "refs.json")
    with pytest.raises(AuroraError, match=r"holds refs\(unc\).p, refs.json; name one of them"):
        list(read_referred(folder))
