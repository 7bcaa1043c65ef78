"""MMLU's subjects and groups."""

import collections

import pytest

from scaling.evals import groups
from scaling.evals.items import TEST, TaskError


def test_two_published_maps_differ_in_anatomy():
    """Fails when a subject is lost, misspelt or in another group than published."""
    sizes = {name: collections.Counter(m.values()) for name, m in groups.MAPS.items()}
    order = (groups.STEM, groups.OTHER, groups.SOCIAL, groups.HUMANITIES)
    assert [sizes["harness"][g] for g in order] == [19, 13, 12, 13]
    assert [sizes["hendrycks"][g] for g in order] == [18, 14, 12, 13]
    assert {s for s in groups.SUBJECTS if groups.HARNESS[s] != groups.HENDRYCKS[s]} == {"anatomy"}


def test_groups_weigh_what_was_published(mmlu):
    """Fails when a group's items are not those that the OLMo ladder weighs it by: 3018, 3242, 3077 and 4705 of 14042."""
    counts = collections.Counter()
    for task in mmlu.tasks:
        counts[groups.map_of("hendrycks")[task.name]] += len(task.splits[TEST])
    found = [counts[g] for g in (groups.STEM, groups.OTHER, groups.SOCIAL, groups.HUMANITIES)]
    assert found == [3018, 3242, 3077, 4705] and sum(found) == 14042
    assert tuple(t.name for t in mmlu.tasks) == groups.SUBJECTS
    assert {g: len(t) for g, t in mmlu.groups().items()}[groups.STEM] == 19


def test_an_unknown_map_is_told():
    """Fails when a misspelt map falls back to one of the two in silence."""
    with pytest.raises(TaskError, match='Did you mean "hendrycks"'):
        groups.map_of("hendricks")
