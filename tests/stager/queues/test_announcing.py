"""Groups as datasets, for both cameras: by their files or as one, with the ids that a queue asks for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from manifests.cameras import load
from manifests.reading import read_manifest
from stager.config import FolderQueue
from stager.queues.announcing import Announced, Dataset, Group, announce, problem
from stager.queues.errors import Undeliverable
from tests.stager.site import document

CFHT = [f"D1/raw/v793310-fr/s00/c{ccd:02d}-a{amp}.fits" for ccd in (9, 10) for amp in (0, 1)]
IMSIM = [
    f"ImSim/raw/v85470982-fy/E00{snap}/R23/S00/imsim_85470982_R23_S00_C0{c}_E00{snap}.fits.gz"
    for snap in (0, 1)
    for c in (0, 1)
]
Announce = Callable[..., Announced]


@pytest.fixture
def announced(tmp_path: Path) -> Announce:
    """What a group of these paths announces on a queue with these settings."""

    def announced(
        paths: list[str],
        *,
        camera: str | None = "cfht_megacam",
        group: dict[str, Any] | None = None,
        excluded: list[dict[str, Any]] | None = None,
        accept: str = "",
        kind: str = "copy",
        given: dict[str, Any] | None = None,
        **queue: Any,
    ) -> Announced:
        (tmp_path / "bad.txt").write_text(accept)
        said: dict[str, Any] = {"name": "m", "kind": kind, "dataset": "d", "source": "a:in/**", "destination": "b:out"}
        said |= {"camera": camera} if camera else {}
        said |= {"accept": {"except": "bad.txt"}} if accept else {}
        said |= {"ids": given} if given else {}
        (tmp_path / "m.toml").write_text(document(said))
        manifest = read_manifest(tmp_path / "m.toml")
        data = {"group": group or {}, "excluded": excluded or []}
        settings = FolderQueue.model_validate({"folder": "/x"} | queue)
        return announce(
            settings, Group(data, manifest, load(camera) if camera else None, [(one, one) for one in paths])
        )

    return announced


def test_each_file_is_a_dataset_by_the_ids_of_its_path(announced: Announce) -> None:
    found = announced(CFHT)
    assert found.datasets[0] == Dataset(
        "raw", {"field": "D1", "visit": 793310, "filter": "r", "snap": 0, "ccd": 9, "amp": 0}
    )
    assert len(found.datasets) == 4
    assert found.remark == ""


def test_the_ids_are_those_asked_for_in_their_order_and_under_their_other_names(announced: Announce) -> None:
    (first, *_) = announced(CFHT, ids=["visit", "filter", "ccd", "amp"]).datasets
    assert list(first.ids.items()) == [("visit", 793310), ("filter", "r"), ("ccd", 9), ("amp", 0)]
    (first, *_) = announced(
        IMSIM, camera="lsst_imsim", ids={"visit": "visit", "sensor": "ccd", "snap": "exposure"}
    ).datasets
    assert list(first.ids.items()) == [("visit", 85470982), ("ccd", "0,0"), ("exposure", 0)]


def test_files_that_are_one_dataset_announce_it_once(announced: Announce) -> None:
    assert [one.ids for one in announced(CFHT, ids=["visit", "ccd"]).datasets] == [
        {"visit": 793310, "ccd": 9},
        {"visit": 793310, "ccd": 10},
    ]
    twins = [IMSIM[0], IMSIM[0].removesuffix(".gz")]
    assert len(announced(twins, camera="lsst_imsim").datasets) == 1


def test_the_ids_of_imsim_come_as_in_the_lists_of_2010(announced: Announce) -> None:
    assert list(announced(IMSIM, camera="lsst_imsim").datasets[1].ids.items()) == [
        ("visit", 85470982), ("filter", "y"), ("snap", 0), ("raft", "2,3"), ("sensor", "0,0"), ("channel", "0,1")
    ]  # fmt: skip


def test_a_group_is_one_dataset_by_its_own_ids(announced: Announce) -> None:
    group = {"visit": 85470982, "raft": "2,3", "sensor": "0,0"}
    found = announced(IMSIM, camera="lsst_imsim", group=group, datasets="group")
    assert found.datasets == [Dataset("raw", group)]
    wider = announced(IMSIM, camera="lsst_imsim", group=group, datasets="group", ids=["visit", "filter", "raft"])
    assert wider.datasets == [Dataset("raw", {"visit": 85470982, "filter": "y", "raft": "2,3"})]


def test_a_type_is_the_files_layout_unless_the_queue_has_one(announced: Announce) -> None:
    bias = ["calib/bias/v03Am04/c00-a0.fits"]
    assert {one.type for one in announced(CFHT + bias).datasets} == {"raw", "bias"}
    assert {one.type for one in announced(CFHT, type="RawCcd").datasets} == {"RawCcd"}
    with pytest.raises(Undeliverable, match="its files are bias and raw; give the queue a `type`"):
        announced(CFHT + bias, datasets="group", group={"field": "D1"})


def test_a_file_that_has_not_the_ids_is_left_out_and_said(announced: Announce) -> None:
    found = announced([*CFHT, "README", "calib/bias/v03Am04/c00-a0.fits"], ids=["visit", "ccd", "amp"])
    assert len(found.datasets) == 4
    assert found.without_ids == ["README", "calib/bias/v03Am04/c00-a0.fits"]
    assert found.remark == "2 of its files have no such ids: README"


def test_an_id_that_only_the_manifest_knows_is_told_too(announced: Announce) -> None:
    (one,) = announced([IMSIM[0]], camera="lsst_imsim", given={"region": "W3"}, ids=["visit", "region"]).datasets
    assert one.ids == {"visit": 85470982, "region": "W3"}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"camera": None}, "the manifest names no camera"),
        ({"ids": ["raft"]}, "none of its 4 files has by its path the ids raft to be announced by, such as D1/raw"),
        ({"datasets": "group"}, "the group has no ids to be announced by; have the manifest trigger `per` them"),
        ({"datasets": "group", "ids": ["amp"]}, "the group has no ids amp to be announced by"),
    ],
)
def test_a_group_that_cannot_be_told_says_why(announced: Announce, said: dict[str, Any], text: str) -> None:
    with pytest.raises(Undeliverable, match=text):
        announced(CFHT, **said)


@pytest.mark.parametrize(
    ("queue", "more", "text"),
    [
        ({}, {}, "name the `camera`"),
        ({}, {"camera": "cfht_megacam"}, None),
        ({"datasets": "group"}, {"camera": "cfht_megacam"}, "say in `trigger.per` which"),
        ({"datasets": "group"}, {"camera": "cfht_megacam", "trigger": {"queue": "q", "per": ["visit"]}}, None),
        (
            {"ids": ["visit", "raft"]},
            {"camera": "cfht_megacam"},
            "tells the ids raft, which cfht_megacam does not have",
        ),
        ({"ids": ["visit", "raft"]}, {"camera": "cfht_megacam", "ids": {"raft": "2,3"}}, None),
    ],
)
def test_what_could_never_be_told_is_known_beforehand(
    tmp_path: Path, queue: dict[str, Any], more: dict[str, Any], text: str | None
) -> None:
    said = {"name": "m", "kind": "copy", "dataset": "d", "source": "a:in/**", "destination": "b:out"} | more
    (tmp_path / "m.toml").write_text(document(said))
    camera = load(more["camera"]) if "camera" in more else None
    settings = FolderQueue.model_validate({"folder": "/x"} | queue)
    found = problem(settings, read_manifest(tmp_path / "m.toml"), camera)
    assert found is None if text is None else text in str(found)


# --------------------------------------------------------------------------------------- what is left out


def test_what_the_trigger_excludes_is_told_as_the_dataset_it_would_have_been(announced: Announce) -> None:
    gone = {"path": CFHT[3], "ids": {"visit": 793310, "ccd": 10, "amp": 1}, "reason": "PSF failed"}
    found = announced(CFHT[:3], excluded=[gone], ids=["visit", "ccd", "amp"])
    assert [(one.dataset, one.reason) for one in found.excluded] == [
        (Dataset("raw", {"visit": 793310, "ccd": 10, "amp": 1}), "PSF failed")
    ]
    assert found.remark == "1 excluded"


def test_a_dataset_that_is_excluded_is_not_announced_by_another_file_of_it(announced: Announce) -> None:
    gone = {"path": IMSIM[0], "ids": {}, "reason": "damaged"}
    found = announced([IMSIM[0].removesuffix(".gz"), *IMSIM[1:]], camera="lsst_imsim", excluded=[gone])
    assert len(found.datasets) == 3
    assert {one.reason for one in found.excluded} == {"damaged"}


def test_pieces_of_a_focal_plane_that_the_accept_list_names_are_not_announced(announced: Announce) -> None:
    found = announced(CFHT, kind="chop", accept="visit=793310 ccd=9  # dead\n", ids=["visit", "ccd", "amp"])
    assert [one.ids["ccd"] for one in found.datasets] == [10, 10]
    assert [(one.dataset.ids["amp"], one.reason) for one in found.excluded if one.dataset] == [(0, "dead"), (1, "dead")]


def test_a_group_of_which_all_is_excluded_announces_nothing(announced: Announce) -> None:
    said: dict[str, Any] = {"kind": "chop", "accept": "ccd=9  # dead\n", "group": {"visit": 793310, "ccd": 9}}
    for datasets in ("files", "group"):
        found = announced(CFHT[:2], datasets=datasets, **said)
        assert (list(found.datasets), len(found.excluded)) == ([], 2)


def test_a_focal_plane_that_is_excluded_is_told_by_the_ids_it_has(announced: Announce) -> None:
    gone = {"path": "in/793311o.fits", "ids": {"visit": 793311, "obstype": "raw", "field": "D1"}, "reason": "clouds"}
    (one,) = announced(CFHT, kind="chop", excluded=[gone], ids=["visit", "ccd", "amp"]).excluded
    assert one.dataset == Dataset("raw", {"visit": 793311, "field": "D1"})
