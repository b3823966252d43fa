"""The report page in a headless Chromium: no request, no error, and every control works by keyboard."""

import re

import pytest
from matplotlib.colors import to_rgb

import sdabench
from sdabench.records.store import RecordStore
from sdabench.report.figures.style import Theme
from sdabench.tools.report.page import make_page
from sdabench.tools.report.view import to_html
from tests.helpers.hostile import HOSTILE
from tests.helpers.records import DATASET, record, trained, write_training

MULTISCALE = "#table-classification-multiscale"
GAINS = {"resnet50": 0.5, "senet50": -2.0, "cbam50": -10.0}


@pytest.fixture(scope="session")
def shipped_file(shipped_html, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(shipped_html)
    return path


@pytest.fixture
def visit(browser):
    """Return a function that opens a page; no visit may log an error or request anything but the file."""
    contexts, problems, requests = [], [], []

    def opened(path, fragment="", width=1400, **options):
        context = browser.new_context(viewport={"width": width, "height": 900}, offline=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{path.as_uri()}{fragment}")
        return page

    yield opened
    for context in contexts:
        context.close()
    assert problems == []
    assert all(url.startswith(("file:", "data:")) for url in requests)
    assert sum(url.startswith("file:") for url in requests) == len(contexts)


def column(page, number, table=MULTISCALE):
    """Return the shown texts of a column, by its number in CSS."""
    cells = page.locator(f"{table} tr.row:not([hidden]) > :nth-child({number})")
    return cells.all_inner_texts()


def test_sorting_by_mouse_and_keyboard(shipped_file, visit):
    page = visit(shipped_file)
    printed = column(page, 3)
    head = page.locator(f"{MULTISCALE} th[data-column='2']")
    button = head.get_by_role("button")
    button.click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, 3) == sorted(printed, key=float)
    assert page.locator(f"{MULTISCALE} tr.group:visible").count() == 0
    button.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, 3) == sorted(printed, key=float, reverse=True)
    button.press("Space")
    assert head.get_attribute("aria-sort") == "none"
    assert column(page, 3) == printed
    assert page.locator(f"{MULTISCALE} tr.group:visible").count() == 4


def test_missing_numbers_are_last_in_both_directions(shipped_file, visit):
    page = visit(shipped_file)
    last = len(page.locator(f"{MULTISCALE} tr.row").first.locator("> *").all())
    button = page.locator(f"{MULTISCALE} th[data-column='{last - 1}']").get_by_role("button")
    for _ in range(2):  # top-5 of bL-ResNet is not printed
        button.click()
        assert column(page, last)[-1] == "–"


def test_filter_by_text_and_outcome(shipped_file, visit):
    page = visit(shipped_file)
    grid = page.locator(MULTISCALE)
    grid.get_by_role("searchbox").press_sequentially("sda PyConv")
    assert column(page, 1) == ["SDA-PyConv-86 (ours)"]
    assert grid.get_by_role("status").inner_text() == "1 of 16 rows"
    assert grid.locator("tr.group:visible").all_inner_texts() == ["PyConv"]
    grid.get_by_role("searchbox").fill("")
    grid.get_by_role("combobox").select_option("open")
    opened = column(page, 1)
    assert "bL-ResNet" in opened
    assert "ScaleNet" not in opened
    grid.get_by_role("searchbox").fill("no such network")
    assert column(page, 1) == []


def test_verdict_opens_its_explanation_by_keyboard(shipped_file, visit):
    page = visit(shipped_file)
    button = page.locator(f"{MULTISCALE} tr.row", has_text="bL-ResNet").get_by_role(
        "button", name="explained (copied)"
    )
    button.focus()
    page.keyboard.press("Enter")
    note = page.get_by_role("dialog", name="bL-ResNet: FLOPs (G)")
    assert note.is_visible()
    assert "Copied from the bL-ResNet paper" in note.inner_text()
    assert note.get_by_role("button", name="Close").evaluate("element => element === document.activeElement")
    page.keyboard.press("Escape")
    assert note.count() == 0
    assert button.evaluate("element => element === document.activeElement")


@pytest.mark.parametrize("javascript", [True, False])
def test_deep_link_opens_the_network(shipped_file, visit, javascript):
    page = visit(shipped_file, "#sda_resnet86", java_script_enabled=javascript)
    section = page.locator("#sda_resnet86")
    assert section.is_visible()
    params = sdabench.counts("sda_resnet86", ["params"])["value"].item()
    assert f"{params:,}" in section.inner_text()
    box = section.bounding_box()
    assert 0 <= box["y"] < 900


def test_link_to_the_open_fragment_opens_it_again(shipped_file, visit):
    page = visit(shipped_file, "#sda_resnet86")
    page.locator("details[open] summary").click()
    assert not page.locator("#sda_resnet86").is_visible()
    page.locator(f"{MULTISCALE} a[href='#sda_resnet86']").click()
    assert page.locator("#sda_resnet86").is_visible()


@pytest.mark.parametrize("width", [320, 400])
def test_narrow_page_does_not_scroll_sideways(shipped_file, visit, width):
    page = visit(shipped_file, width=width)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    box = page.locator(f"{MULTISCALE} .scroll")
    assert box.evaluate("element => element.scrollWidth > element.clientWidth")


BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def test_color_scheme_follows_the_system_and_the_choice(shipped_file, visit):
    light, dark = (visit(shipped_file, color_scheme=scheme) for scheme in ("light", "dark"))
    assert light.evaluate(BACKGROUND) == "rgb(255, 255, 255)"
    assert dark.evaluate(BACKGROUND) != light.evaluate(BACKGROUND)
    light.get_by_label("Colors").select_option("dark")
    assert light.evaluate(BACKGROUND) == dark.evaluate(BACKGROUND)


# Contrast of text that is shown, by the formula of WCAG 2, as [ratio, text].
CONTRAST = """() => {
  const context = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const channels = (color) => {
    context.clearRect(0, 0, 1, 1); context.fillStyle = color; context.fillRect(0, 0, 1, 1);
    return context.getImageData(0, 0, 1, 1).data;
  };
  const luminance = (color) => {
    const [r, g, b] = [...channels(color)].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const background = (element) => {
    for (; element; element = element.parentElement) {
      const color = getComputedStyle(element).backgroundColor;
      if (channels(color)[3] === 255) return color;
    }
  };
  const seen = new Map();
  for (const element of document.querySelectorAll("body *:not(svg *):not(script)")) {
    const text = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
    if (!text.length || !element.checkVisibility()) continue;
    const [own, back] = [luminance(getComputedStyle(element).color), luminance(background(element))];
    const ratio = (Math.max(own, back) + 0.05) / (Math.min(own, back) + 0.05);
    seen.set(ratio.toFixed(2), text[0].data.trim());
  }
  return [...seen];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_enough_contrast(shipped_file, visit, scheme):
    page = visit(shipped_file, color_scheme=scheme)
    assert [each for each in page.evaluate(CONTRAST) if float(each[0]) < 4.5] == []


def test_charts_show_values_under_the_pointer(shipped_file, visit):
    page = visit(shipped_file)
    page.wait_for_function("document.documentElement.dataset.charts === 'drawn'")
    assert page.locator("figure.drawn").count() == page.locator("figure").count() == 5
    assert page.locator("figure img:visible").count() == 0
    mark = page.get_by_label("ResNet-50 (paper): 4.12 FLOPs (G), 75.20 top-1 (%)").first
    mark.hover()
    tooltip = page.locator("#vg-tooltip-element.visible")
    assert "75.20" in tooltip.inner_text()
    assert "4.12" in tooltip.inner_text()


def test_charts_follow_the_color_scheme(shipped_file, visit):
    page = visit(shipped_file)
    page.wait_for_function("document.documentElement.dataset.charts === 'drawn'")
    label = page.locator("#forest .mark-text text").first
    assert label.get_attribute("fill") == Theme().text
    page.get_by_label("Colors").select_option("dark")
    page.wait_for_function(
        "color => document.querySelector('#forest .mark-text text').getAttribute('fill') === color",
        arg=Theme(dark=True).text,
    )
    bar = page.locator(".bar rect.open").first
    red, green, blue = (round(255 * part) for part in to_rgb(Theme().outcomes["open"]))
    assert bar.evaluate("bar => getComputedStyle(bar).fill") == f"rgb({red}, {green}, {blue})"


def test_figures_without_javascript_are_static(shipped_file, visit):
    page = visit(shipped_file, java_script_enabled=False)
    images = page.locator("figure img")
    assert images.count() == 5
    for image in images.all():
        assert image.is_visible()
        assert image.bounding_box()["height"] > 100


def test_skip_link_is_the_first_stop(shipped_file, visit):
    page = visit(shipped_file)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the answer"


def test_printed_page_shows_what_is_open_and_no_controls(shipped_file, visit):
    page = visit(shipped_file, "#sda_resnet86")
    page.emulate_media(media="print")
    assert page.locator("#sda_resnet86").is_visible()
    assert not page.locator("#sda_senet86").is_visible()
    assert page.get_by_text("Copied from the bL-ResNet paper").first.is_visible()
    assert (
        page.locator(".controls:visible, nav:visible, .live:visible, #statements .note:visible").count() == 0
    )
    assert page.locator("figure img:visible").count() == 5
    page.emulate_media(media="null")
    page.locator("details[open] summary").click()
    pages = re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True))
    assert 5 < len(pages) <= 20


def test_wide_tables_say_that_they_scroll(shipped_file, visit):
    page = visit(shipped_file, width=400)
    hint = page.locator(f"{MULTISCALE} .scroll-hint")
    assert hint.is_visible()
    page.set_viewport_size({"width": 1400, "height": 900})
    hint.wait_for(state="hidden")


def test_numbers_with_errors_and_signs_are_sorted_by_value(tmp_path, visit):
    folders, values = [tmp_path / "a", tmp_path / "b"], {"resnet50": 9.5, "senet50": 75.3, "cbam50": 75.4}
    dataset = DATASET.model_copy(update={"fingerprint_sha256": "f" * 64})
    for folder, share in zip(folders, (0, 1), strict=True):
        metrics = {model: {"top1_pct": value + share * GAINS[model]} for model, value in values.items()}
        RecordStore(folder).append(
            [record(model=model, metrics=each, dataset=dataset) for model, each in metrics.items()]
        )
    path = tmp_path / "page.html"
    path.write_text(to_html(make_page(folders)))
    page = visit(path)
    page.locator("#run-1-records th[data-column='2']").get_by_role("button").click()
    assert column(page, 3, "#run-1-records") == ["9.50 ± 0.13", "75.30 ± 0.19", "75.40 ± 0.19"]
    page.locator("#run-differences th[data-column='5']").get_by_role("button").click()
    assert column(page, 6, "#run-differences") == ["−10.00", "−2.00", "+0.50"]


def test_training_curves_are_drawn(tmp_path, visit):
    run, path = tmp_path / "run", tmp_path / "page.html"
    RecordStore(run).append([trained("resnet50", 76.0)])
    write_training(run / "training" / "resnet50-1", [30.0, 2.5, 1.5])
    path.write_text(to_html(make_page([run])))
    page = visit(path)
    page.wait_for_function("document.documentElement.dataset.charts === 'drawn'")
    assert page.locator("#run-1-curves svg").count() == 1


def test_measured_differences_are_drawn_without_a_warning(tmp_path, visit):
    run, path = tmp_path / "run", tmp_path / "page.html"
    networks = {"sda_resnet86": 79.0, "resnet50": 75.0}
    RecordStore(run).append(
        [trained(model, top1 + n / 10, n) for model, top1 in networks.items() for n in range(3)]
    )
    path.write_text(to_html(make_page([run])))
    page = visit(path)
    page.wait_for_function("document.documentElement.dataset.charts === 'drawn'")
    assert page.get_by_label("SDA-ResNet-86 vs. ResNet-50, top-1: paper +3.56").count() > 0


def test_hostile_names_stay_text_in_the_browser(tmp_path, visit):
    folder = tmp_path / "run"
    hostile = record(model=HOSTILE, recipe={"name": HOSTILE}, environment={HOSTILE: HOSTILE})
    RecordStore(folder).append([hostile])
    path = tmp_path / "page.html"
    path.write_text(to_html(make_page([folder])))
    page = visit(path)
    assert page.locator("img[src='x']").count() == 0
    row = page.locator("#run-1-records tr.row")
    assert row.locator("th").inner_text().startswith("</script><img src=x onerror=alert(1)>\\x1b[31m")
