"""What is promised of the page in a browser: a real Chromium, a real server, and the emulator behind it."""

from __future__ import annotations

import re
import shutil
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from playwright.sync_api import expect, sync_playwright

from o3pro_bg._shown import duration
from tests.hosted import Hosted
from tests.web import TOKEN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from playwright.sync_api import Browser, Page

    from o3pro_bg.emulator import Emulator

    Visit = Callable[..., Page]

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
PATIENCE = 30_000.0  # milliseconds: a busy machine is no failure
PHONE = {"width": 390, "height": 844}
DESKTOP = {"width": 1280, "height": 900}
HOSTILE = "<script>hit=1</script><img src=x onerror=hit=1>\u202egnp\u2066\x0b</pre></textarea>${lang}"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt-get install chromium brings it")
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """One browser for all tests of this module."""
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def hosted(service: Emulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosted]:
    """One server for the tests that leave it running."""
    service.reset()
    server = Hosted(service, tmp_path_factory.mktemp("hosted") / "jobs.db").start()
    yield server
    server.kill()


@pytest.fixture
def visit(browser: Browser, hosted: Hosted) -> Iterator[Visit]:
    """Opens the page as a visitor of his own would; whatever his browser complains about fails the test."""
    contexts, complaints = [], []

    def open_page(url: str = hosted.url, **settings: Any) -> Page:
        context = browser.new_context(**{"viewport": DESKTOP, "locale": "en-US", **settings})
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(dialog.message))
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.goto(url)
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert [text for text in complaints if "Failed to load resource" not in text] == []


def start(hosted: Hosted, question: str, knobs: str = "seconds=600 queued=0", **fields: Any) -> str:
    """Start a job by the API, and answer its id."""
    options = {"metadata": {"emulator": knobs}}
    answer = httpx2.post(f"{hosted.url}api/jobs", json={"question": question, "options": options, **fields})
    job_id: str = answer.json()["job_id"]
    return job_id


def ask(page: Page, question: str) -> None:
    """Start a job by the form; the question comes into it at once, as by a paste."""
    page.get_by_label("Question", exact=True).evaluate("(field, text) => { field.value = text }", question)
    page.get_by_role("button", name="Start the job").click()


def status_of(page: Page) -> Any:
    """Answer the place where the page tells the status of the job that it shows."""
    return page.locator("#d-title")


# --- one's jobs ---------------------------------------------------------------------------------------------------


def test_a_job_is_started_and_watched_to_its_answer(visit: Visit) -> None:
    """A job that is started is shown, is running, and has its answer, all without a reload; a reload shows it again."""
    page = visit()
    page.evaluate("was = 'here'")
    ask(page, "Is it watched? [emulator seconds=3 queued=0]")
    expect(status_of(page)).to_be_focused()
    expect(page.locator("#asked")).to_have_text("Is it watched? [emulator seconds=3 queued=0]")
    expect(status_of(page)).to_contain_text("Running")
    expect(page.locator("#answer")).to_contain_text("[emulator] This answer is made up")
    expect(status_of(page)).to_contain_text("Completed")
    expect(page.locator("#news")).to_contain_text("Completed")
    assert page.evaluate("was") == "here"
    page.reload()
    expect(page.locator("#answer")).to_contain_text("[emulator] This answer is made up")


def test_a_job_is_cancelled_and_removed_by_keyboard(visit: Visit, hosted: Hosted) -> None:
    """From the list to the end of a job with no more than Tab, Enter and Escape; the focus is never lost."""
    job_id = start(hosted, "To be cancelled by keyboard")
    page = visit(f"{hosted.url}?q={job_id}")
    for _ in range(20):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == f"go-{job_id}":
            break
    page.keyboard.press("Enter")
    expect(status_of(page)).to_be_focused()
    page.locator("#cancel summary").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Cancel this job")).to_be_hidden()
    expect(page.locator("#cancel summary")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_role("button", name="Cancel this job")).to_be_focused()
    page.keyboard.press("Enter")
    expect(status_of(page)).to_contain_text("Cancelled")
    page.locator("#remove summary").press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.locator("#message")).to_have_text("The job was removed.")
    expect(page.locator("#list")).to_be_focused()
    expect(page.get_by_text("No job matches.")).to_be_visible()


def test_escape_and_the_browsers_back_lead_to_the_list(visit: Visit, hosted: Hosted) -> None:
    """Who closes a job is where he came from in the list, and what he was writing is still there."""
    job_id = start(hosted, "To be looked at in passing")
    page = visit()
    page.get_by_label("Question", exact=True).fill("Half a quest")
    for leave in (lambda: page.keyboard.press("Escape"), page.go_back):
        page.locator(f"#go-{job_id}").click()
        expect(status_of(page)).to_be_focused()
        leave()
        expect(page.locator(f"#go-{job_id}")).to_be_focused()
        expect(page.get_by_label("Question", exact=True)).to_have_value("Half a quest")


def test_a_second_tab_follows(visit: Visit) -> None:
    """What is done in one tab is seen in another, which leaves alone what is being written there."""
    page, other = visit(), visit()
    other.get_by_label("Question", exact=True).fill("I am writing")
    ask(page, "Seen from elsewhere? [emulator seconds=600 queued=0]")
    row = other.get_by_role("row").filter(has_text="Seen from elsewhere?")
    expect(row).to_contain_text("Running")
    expect(other.get_by_label("Question", exact=True)).to_have_value("I am writing")
    expect(other.get_by_label("Question", exact=True)).to_be_focused()
    page.get_by_text("Cancel…").click()
    page.get_by_role("button", name="Cancel this job").click()
    expect(row).to_contain_text("Cancelled")
    expect(other.locator("#news")).to_contain_text("Cancelled")


def test_a_killed_server_is_told_and_its_jobs_are_found_again(visit: Visit, service: Emulator, tmp_path: Any) -> None:
    """Where the server is killed the page says so, and goes on by itself with the next one, which has the job still."""
    server = Hosted(service, tmp_path / "jobs.db").start()
    try:
        page = visit(server.url)
        ask(page, "Does it outlive the server? [emulator seconds=5 queued=0]")
        expect(status_of(page)).to_contain_text("Running")
        server.kill()
        expect(page.locator("#lost")).to_be_visible()
        server.start()
        expect(page.locator("#lost")).to_be_hidden()
        expect(page.locator("#answer")).to_contain_text("[emulator]")
        assert len(page.locator("#rows tr").all()) == 1
    finally:
        server.kill()


def test_what_a_proxy_says_is_not_shown(visit: Visit, hosted: Hosted) -> None:
    """Where something else answers for the server, the page stays, says so, and goes on once the server is back."""
    page = visit()
    page.route(re.compile(r"/jobs/(\?.*)?$"), lambda route: route.fulfill(status=502, body="<h1>Bad gateway</h1>"))
    job_id = start(hosted, "Started meanwhile")
    expect(page.locator("#lost")).to_be_visible()
    page.unroute_all()
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    expect(page.locator("#lost")).to_be_hidden()


def test_a_refused_question_is_kept(visit: Visit) -> None:
    """What is refused is told, to who does not see it as well, and what was written is still there."""
    page = visit()
    ask(page, "   ")
    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Question", exact=True)).to_have_value("   ")


def test_without_scripts_all_of_it_works(visit: Visit) -> None:
    """Without JavaScript a job is started, cancelled and removed, and found by search, by forms and links alone."""
    page = visit(java_script_enabled=False)
    ask(page, "By hand [emulator seconds=600 queued=0]")
    expect(page.locator("#asked")).to_have_text("By hand [emulator seconds=600 queued=0]")
    page.get_by_text("Cancel…").click()
    page.get_by_role("button", name="Cancel this job").click()
    expect(status_of(page)).to_contain_text("Cancelled")
    page.get_by_text("Remove…").click()
    page.get_by_role("button", name="Remove this job").click()
    expect(page.get_by_role("status").filter(has_text="removed")).to_be_visible()
    page.get_by_role("searchbox").fill("By hand")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_text("No job matches.")).to_be_visible()


# --- the list -----------------------------------------------------------------------------------------------------


def test_the_list_is_filtered_and_searched_as_one_types(visit: Visit, hosted: Hosted) -> None:
    """Jobs are found by text and status as one types, and the address remembers it; one that ends leaves the filter."""
    job_id = start(hosted, "A needle")
    start(hosted, "Some hay")
    page = visit()
    page.get_by_role("searchbox").fill("NEEDLE")
    expect(page.locator("#rows tr")).to_have_count(1)
    page.get_by_role("combobox", name="Status").select_option("running")
    expect(page.locator("#rows tr")).to_have_attribute("id", f"job-{job_id}")
    expect(page).to_have_url(re.compile("status=running&q=NEEDLE"))
    httpx2.post(f"{hosted.url}api/jobs/{job_id}/cancel", timeout=30)
    expect(page.get_by_text("No job matches.")).to_be_visible()
    page.reload()
    expect(page.get_by_role("searchbox")).to_have_value("NEEDLE")


def test_times_go_on_in_the_browser(visit: Visit, hosted: Hosted) -> None:
    """How long a job has run is counted in the browser, in the words of the server."""
    job_id = start(hosted, "Counted")
    page = visit(f"{hosted.url}?q={job_id}")
    seconds = [0, 0.04, 1, 4.26, 59.94, 59.95, 60, 61.5, 3599.4, 3599.6, 3600, 86_399, 86_400, 1e6, 123_456.7]
    assert page.evaluate("seconds => seconds.map(duration)", seconds) == [duration(second) for second in seconds]
    shown = page.locator("#rows .num").first
    before = shown.inner_text()
    expect(shown).not_to_have_text(before)


def test_who_is_not_looked_at_does_not_listen(visit: Visit, hosted: Hosted) -> None:
    """A tab that is hidden closes its stream: browsers allow six. It is up to date as soon as it is seen again."""
    page = visit()
    hide = "is => { Object.defineProperty(document, 'hidden', { value: is, configurable: true });" + (
        "document.dispatchEvent(new Event('visibilitychange')); return stream === null }"
    )
    assert page.evaluate(hide, arg=True)
    job_id = start(hosted, "Not seen at once")
    page.evaluate(hide, arg=False)
    expect(page.locator(f"#job-{job_id}")).to_be_visible()
    expect(page.locator(f"#job-{job_id}")).to_contain_text("Running")


# --- a job --------------------------------------------------------------------------------------------------------


def test_an_answer_is_copied(visit: Visit, hosted: Hosted) -> None:
    """The answer is copied as it is, where the browser lets the page write the clipboard, and that is told."""
    job_id = start(hosted, "To be copied", "seconds=0 text=a%0A%0A%3Cb%3E%20%20c")
    page = visit(f"{hosted.url}?job={job_id}", permissions=["clipboard-read", "clipboard-write"])
    page.get_by_role("button", name="Copy").click()
    expect(page.locator("#news")).to_have_text("Copied")
    assert page.evaluate("navigator.clipboard.readText()") == "[emulator] a\n\n<b>  c"


@pytest.mark.parametrize("has_scripts", [True, False])
def test_nothing_that_is_written_does_anything(visit: Visit, hosted: Hosted, has_scripts: bool) -> None:
    """Neither a question nor an answer runs, becomes an element, or turns what stands beside it around."""
    job_id = start(hosted, HOSTILE, "seconds=0 text=%3Cimg%20src%3Dx%20onerror%3Dhit%3D1%3E%3C%2Fpre%3E%E2%80%AEtxt")
    page = visit(f"{hosted.url}?job={job_id}", java_script_enabled=has_scripts)
    expect(page.locator("#asked")).to_contain_text("<script>hit=1</script><img src=x onerror=hit=1>")
    if has_scripts:
        expect(page.locator("#answer")).to_contain_text("<img src=x onerror=hit=1></pre>")
        assert page.evaluate("typeof hit") == "undefined"
        assert page.locator("#answer").evaluate("pre => getComputedStyle(pre).unicodeBidi") == "plaintext"
    assert page.locator("main img, main script").count() == 0


def test_a_very_long_question_is_asked(visit: Visit) -> None:
    """A question of 200,000 characters is sent, shown, and listed by its beginning, within the width of a phone."""
    page = visit(viewport=PHONE)
    question = "[emulator seconds=0]\n" + ("長い質問" * 9 + "。質問\n") * 4_999 + "以上です"
    assert len(question) > 199_000
    ask(page, question)
    expect(status_of(page)).to_be_focused()
    assert page.locator("#asked").text_content() == question
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]
    ask_again = visit(page.url)
    assert len(ask_again.locator("#rows [aria-current] a").inner_text()) < 400


def test_what_no_encoding_has_is_replaced(visit: Visit) -> None:
    """A lone surrogate in the form is sent as the sign for what cannot be shown."""
    page = visit()
    page.locator("#question").evaluate("field => { field.value = 'half a ' + String.fromCharCode(0xd83d) + ' sign' }")
    page.get_by_role("button", name="Start the job").click()
    expect(page.locator("#asked")).to_have_text("half a \ufffd sign")


# --- for everybody ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def jobs(hosted: Hosted) -> dict[str, str]:
    """A job of each kind, by name."""
    return {
        "running": start(hosted, "A job that runs"),
        "completed": start(hosted, "A job that is complete", "seconds=0"),
        "failed": start(hosted, "A job that failed", "seconds=0 outcome=incomplete"),
    }


@pytest.mark.parametrize("kind", ["", "running", "completed", "failed", "missing"])
@pytest.mark.parametrize(("viewport", "scheme", "lang"), [(PHONE, "dark", "ja"), (DESKTOP, "light", "en")])
def test_nothing_bars_anybody(
    visit: Visit, hosted: Hosted, jobs: dict[str, str], kind: str, viewport: Any, scheme: Any, lang: str
) -> None:
    """axe-core finds no violation, light and dark, in both languages, at the width of a phone and of a desk."""
    url = f"{hosted.url}?lang={lang}&job={jobs.get(kind, kind)}"
    page = visit(url, viewport=viewport, color_scheme=scheme, reduced_motion="reduce")
    if kind in ("completed", "failed"):
        expect(page.locator("#answer")).to_be_visible()
    if kind == "running":
        page.locator("summary").click()
    assert violations_of(page) == []


def violations_of(page: Page) -> list[tuple[str, list[str]]]:
    """Answer what axe-core finds, and where."""
    page.evaluate((files("axe_playwright_python") / "axe.min.js").read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")
    return [(one["id"], [node["html"] for node in one["nodes"]]) for one in found["violations"]]


@pytest.mark.parametrize("kind", ["", "completed"])
def test_a_narrow_screen_shows_all_of_it(visit: Visit, hosted: Hosted, jobs: dict[str, str], kind: str) -> None:
    """At 320 pixels nothing has to be scrolled sideways, and whatever is tapped measures 24 pixels or more."""
    page = visit(f"{hosted.url}?job={jobs.get(kind, '')}", viewport={"width": 320, "height": 640})
    assert page.evaluate("document.documentElement.scrollWidth") == 320
    for target in page.locator("header a, button, summary, select, input:not([type=hidden]), .button").all():
        if target.is_visible():
            assert (target.bounding_box() or {"height": 0})["height"] >= 24


# --- the token ----------------------------------------------------------------------------------------------------


def test_the_token_is_entered_or_comes_in_the_fragment(visit: Visit, service: Emulator, tmp_path: Any) -> None:
    """The token opens the page, entered or from the address, where it does not stay; a wrong one is told."""
    server = Hosted(service, tmp_path / "jobs.db", TOKEN).start()
    try:
        page = visit(server.url)
        assert violations_of(page) == []
        page.get_by_label("Token").fill("not the one")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_contain_text("not the token")
        page.get_by_label("Token").fill(TOKEN)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        ask(page, "Signed in?")
        expect(status_of(page)).to_be_focused()
        other = visit(f"{server.url}#token={TOKEN.replace(' ', '%20')}")
        expect(other.get_by_role("heading", name="Jobs", exact=True)).to_be_visible()
        assert TOKEN not in other.url.replace("%20", " ")
        other.go_back()
        assert "token" not in other.url
    finally:
        server.kill()
