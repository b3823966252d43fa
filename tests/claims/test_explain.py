"""The search for how a printed number was counted."""

import re
from dataclasses import replace
from decimal import Decimal
from functools import cache

import pytest

from sdabench import complexity
from sdabench.claims.explain import Printed, Search, parse_printed, printed_numbers, search
from sdabench.claims.verdicts import recompute
from sdabench.complexity.settings import Setting, operation_sums
from sdabench.errors import UsageError
from sdabench.registry import load_registry
from sdabench.registry.schema import Evidence
from sdabench.report.explain import _counted, print_searches

REGISTRY = load_registry()
SIZE = (3, 224, 224)


@cache
def searched(model, text, quantity="flops", sizes=None):
    [found] = search(REGISTRY, model, [parse_printed(text, quantity)], sizes or [SIZE])
    return found


@pytest.mark.parametrize(
    ("text", "exact"), [("4.12G", 4_120_000_000), ("25.56 m", 25_560_000), ("4121924096", 4_121_924_096)]
)
def test_number_is_read_as_printed(text, exact):
    assert parse_printed(text, "flops").exact == exact


@pytest.mark.parametrize(
    "text", ["", "4.12", "4.12X", "-4.12G", "4,12G", "1e9", "nan", "0G", "0.00M", "4.12GFLOPs", "9" * 99]
)
def test_wrong_number_is_refused(text):
    with pytest.raises(UsageError, match="as printed|no unit"):
        parse_printed(text, "flops")


def test_counts_that_round_to_a_number():
    number = parse_printed("4.12G", "flops")
    assert [number.is_given_by(count) for count in (4_114_999_999, 4_115_000_000, 4_124_999_999, 4_125_000_000)] == [
        False, True, True, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("model", "text", "quantity", "value", "departures"),
    [
        ("resnet50", "4.12G", "flops", 4_121_924_096, 1),  # total
        ("cbam50", "30.62M", "params", 30_620_616, 1),  # per_call
        ("bl_resnet50", "2.85G", "flops", 2_854_010_880, 1),  # without the classifier
        ("epsanet101", "6.82G", "flops", 6_822_922_112, 1),  # fvcore
        ("pyconv50", "3.88G", "flops", 3_877_516_800, 3),  # four operations per batch-norm element, ReLUs
    ],
)
def test_explanation_of_the_registry_is_found_again(model, text, quantity, value, departures):
    hits = {hit.value: hit for hit in searched(model, text, quantity).hits}
    assert hits[value].departures == departures


@pytest.mark.parametrize(
    ("model", "text", "size", "value"),
    [
        ("mask_rcnn_resnet50", "261.81G", (3, 800, 1330), 261_814_813_305),
        ("mask_rcnn_epsanet50", "248.53G", (3, 800, 1280), 248_526_839_244),
        ("faster_rcnn_sda_res2net86", "265.70G", (3, 800, 1280), 265_704_286_452),
        ("mask_rcnn_senet101", "348.65G", (3, 798, 1330), 348_650_456_745),
    ],
)
def test_explanation_of_a_detector_is_found_again(model, text, size, value):
    """The evidence of the registry, which names the same modules or the same size."""
    found = searched(model, text, sizes=(size,))
    [hit] = [hit for hit in found.hits if hit.value == value]
    evidence = Evidence(count=hit.counted, input=hit.input, without=[*hit.modules], value=value)
    assert recompute(evidence, complexity.count(model, hit.input, without=hit.modules)) == value
    assert hit.departures > 0
    assert not hit.plain


def test_parameters_with_running_statistics():
    """A resnet50 has 53 batch norms of 26,560 channels in total, each with a mean and a variance."""
    values = {each.value: each for each in searched("resnet50", "25.56M", "params").settings}
    assert values[25_557_032 + 2 * 26_560].counted == "params + running statistics"


def test_every_setting_equals_the_counter():
    """Each sum at each place is what sdabench.count gives for the same modules."""
    found = searched("sda_senet50", "4.12G", sizes=((3, 256, 256),))
    places = {(each.input, each.modules) for each in found.settings}
    assert {part for part in {each.part for each in found.settings} if part} == {
        "stem", "classifier", "shortcuts", "depth attention", "other attention"
    }  # fmt: skip
    counts = {place: complexity.count("sda_senet50", place[0], without=place[1]) for place in places}
    for each in found.settings:
        count = counts[each.input, each.modules]
        if each.terms:
            assert recompute(Evidence(terms=each.terms, value=0), count) == each.value
        elif each.counted != "fvcore":
            assert count.value(each.counted) == each.value


def test_sums_are_distinct_and_none_is_a_convention():
    sums = [tuple(sorted(terms.items())) for terms, _ in operation_sums()]
    assert len(sums) == len(set(sums)) == 2 * 2 * 2 * 4 * 2 * 2 - 3  # macs, total and mmcv have their names
    changes = {tuple(terms.items()): changed for terms, changed in operation_sums()}
    assert changes[("conv", 1),] == 1
    assert changes[("conv", 2), ("linear", 2)] == 1


def test_printed_numbers_of_a_model_are_listed_once():
    assert [str(each) for each in printed_numbers(REGISTRY, "sda_resnet86")] == ["27.22 M", "3.88 G"]
    assert [str(each) for each in printed_numbers(REGISTRY, "a2net50")] == ["33.00 M", "6.50 G"]
    with pytest.raises(UsageError, match="no table prints a number of 'sda_resnet50'"):
        printed_numbers(REGISTRY, "sda_resnet50")


def made_up(*values):
    return [Setting("macs", value, SIZE, departures=index) for index, value in enumerate(values)]


def test_chance_is_estimated_from_the_counts_nearby():
    """Two of three counts are within 5 % of 4.00 G, a range of 40 steps of 0.01 G."""
    found = Search(
        "any", Printed("flops", Decimal("4.00"), "G"), made_up(3_900_000_000, 4_100_000_000, 9_000_000_000)
    )
    assert found.by_chance(found.settings) == pytest.approx(2 / 40)
    assert found.share_found == pytest.approx(2 / 41)
    assert found.hits == []
    assert found.nearest.value == 3_900_000_000


def test_share_of_numbers_that_the_settings_give_is_their_share_by_trial():
    found = searched("resnet50", "4.12G")
    numbers = [
        Printed("flops", Decimal(hundredths).scaleb(-2), "G") for hundredths in range(392, 433)
    ]  # within 0.206
    given = [any(number.is_given_by(each.value) for each in found.settings) for number in numbers]
    assert found.share_found == pytest.approx(sum(given) / len(given))
    hits = sum(number.is_given_by(each.value) for number in numbers for each in found.distinct)
    assert found.by_chance(found.distinct) == pytest.approx(hits / len(numbers), rel=0.1)


def test_size_that_a_model_cannot_take_is_skipped_unless_it_was_named():
    number = [parse_printed("4.15G", "flops")]
    [found] = search(REGISTRY, "aanet50", number)
    assert max(each.input[1] for each in found.settings) == 224
    with pytest.raises(UsageError, match="at most 224 pixels"):
        search(REGISTRY, "aanet50", number, [(3, 256, 256)])


def test_fits_are_shown_in_80_columns_with_their_chance(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    print_searches([searched("resnet50", "4.12G", sizes=(SIZE, (3, 256, 256)))])
    lines = capsys.readouterr().out.splitlines()
    table = [line.rstrip() for line in lines if line.startswith(" ")]
    assert max(map(len, table)) < 80
    [total] = [line for line in table if line.startswith(" total")]
    assert re.fullmatch(r" total +4,121,924,096 +1 +0\.\d\d of \d+ +fit", total)
    assert "counts nothing" in " ".join(lines)  # a total counts modules alone


def test_size_and_part_are_named_if_they_are_not_the_default_ones():
    found = searched("resnet50", "4.12G", sizes=(SIZE, (3, 256, 256)))
    [plain] = [each for each in found.settings if each.counted == "total" and each.plain]
    other = replace(plain, input=(3, 256, 320), part="stem")
    assert _counted(found, plain) == "total"
    assert _counted(found, other) == "total at 320x256,\n  without stem"
