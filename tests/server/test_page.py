"""The page at GET /, in a real browser against a real server: what people see, type and are told."""

import json
import re
import shlex
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Mapping

import pytest

from neuronbert.server.page import page_bytes, page_policy
from server.served import Served, serving

sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright, which drives the browser")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = (
    "--no-sandbox",  # which a container's root cannot have
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
KEY = "a-key"
# Before the answer: characters of two and of several UTF-16 units, and one that is put together of two.
ODD = "👩‍👩‍👧 e\u0302 🛶🛶 "
CONTEXT = ODD + "Jim Henson was a nice puppet."
QUOTED = """Who's $HOME `id` "there" !! \\?"""
XSS = "<img src=x onerror=\"document.title='broken in'\"><script>document.title='broken in'</script> & <b>Jim</b>"

pytestmark = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"needs {CHROMIUM}: apt-get install chromium")

Page = Any  # playwright's, which is not everywhere
Open = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def guarded(artifacts: Dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that wants a key."""
    place = f"embeds={artifacts['embeds']}"
    with serving(tmp_path_factory.mktemp("guarded"), place, "--threads", "1", "--api-key", KEY) as server:
        yield server


@pytest.fixture()
def open_page(browser: Any, served: Served) -> Iterator[Open]:
    """Opens the page, of ``served`` or another server, in a context of these settings; fails on any error in it."""
    contexts, faults, asked = [], [], []

    def open_it(server: Served = served, **settings: Any) -> Page:
        context = browser.new_context(**settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        page.on("console", lambda message: faults.append(message.text) if "Security Policy" in message.text else None)
        page.on("request", lambda request: asked.append((server.url, request.url)))
        page.goto(server.url)
        return page

    yield open_it
    for context in contexts:
        context.close()
    assert faults == []
    assert [url for origin, url in asked if not url.startswith((origin + "/", "data:"))] == []


def ask(page: Page) -> None:
    """Press the button, and wait for the answer."""
    page.locator("#go").click()
    page.locator("#result:not([aria-busy])").wait_for()


def open_curl(page: Page) -> None:
    page.get_by_text("The same with curl").click()
    page.locator("#command", has_text="curl").wait_for()


def choose(page: Page, model: str, view: str = "") -> None:
    page.locator("#model").select_option(model)
    if view:
        page.get_by_role("radio", name=view).check()


def texts(page: Page, selector: str) -> List[str]:
    return list(page.locator(selector).all_inner_texts())


def shown(score: float) -> str:
    return "< 0.001" if 0 < score < 0.0005 else f"{score:.3f}"


# ---------------------------------------------------------------------------- what it is


def test_the_policy_knows_the_style_and_the_script_and_nothing_else(served: Served) -> None:
    answer = served.ask("/")
    assert answer.body == page_bytes()
    assert answer.headers["content-security-policy"].encode() == page_policy()
    assert b"unsafe" not in page_policy()
    assert page_policy().count(b"sha256-") == 2


def test_an_inline_script_that_is_not_the_pages_own_does_not_run(browser: Any, served: Served) -> None:
    context = browser.new_context()
    page = context.new_page()
    page.goto(served.url)
    script = (
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'document.title = 1'}))"
    )
    page.evaluate(f"() => {{ {script} }}")
    assert page.title() == "neuronbert"
    context.close()


# ---------------------------------------------------------------------------- the tasks


def test_it_is_ready_to_ask_when_it_opens(open_page: Open, served: Served) -> None:
    page = open_page()
    (example,) = [each["example"] for each in served.ask("/info").json["models"] if each["name"] == "answers"]
    page.get_by_label("Question").wait_for()
    assert page.get_by_label("Question").input_value() == example["inputs"]["question"]
    assert page.locator("#field-context").input_value() == example["inputs"]["context"]
    ask(page)
    assert texts(page, "#answer .headline") != [""]


def test_every_answer_is_marked_where_python_counts_it(open_page: Open, served: Served) -> None:
    parameters = {"top_k": 5, "ranking": "document", "handle_impossible_answer": False}
    body = {"inputs": {"question": "Who?", "context": CONTEXT}, "parameters": parameters}
    answers = served.ask("/models/answers", body).json
    assert any(each["start"] > len(ODD) for each in answers)
    page = open_page()
    page.get_by_label("Question").fill("Who?")
    page.locator("#field-context").fill(CONTEXT)
    page.get_by_label("Let “no answer” win").uncheck()
    ask(page)
    for number, answer in enumerate(answers):
        page.locator("button.bar").nth(number).click()
        marked = page.locator(".reader mark").all_text_contents()
        assert marked == [CONTEXT[answer["start"] : answer["end"]]]
        before = page.evaluate("document.querySelector('.reader mark').previousSibling.textContent")
        assert before == CONTEXT[: answer["start"]]
        assert texts(page, "#answer .headline") == [answer["answer"]]
        assert page.locator("button.bar[aria-pressed=true]").count() == 1
    assert page.locator(".reader").text_content() == CONTEXT


def test_no_answer_marks_nothing(open_page: Open) -> None:
    page = open_page()
    answer = [{"score": 0.9, "start": 0, "end": 0, "answer": ""}, {"score": 0.1, "start": 0, "end": 3, "answer": "Jim"}]
    page.route("**/models/answers", lambda route: route.fulfill(json=answer))
    ask(page)
    assert texts(page, "#answer .headline") == ["No answer in this text"]
    assert page.locator("mark").count() == 0
    page.get_by_role("button", name="Jim").click()
    assert texts(page, "mark") == ["Jim"]


def test_labels_have_their_scores(open_page: Open, served: Served) -> None:
    page = open_page()
    choose(page, "labels")
    assert page.locator("#modes").is_hidden()  # it tells labels apart, and ranks nothing
    page.locator("#field-text").fill("a nice puppet")
    ask(page)
    (labels,) = served.ask("/models/labels", {"inputs": "a nice puppet"}).json
    assert texts(page, ".bar > span:first-child") == [each["label"] for each in labels]
    assert texts(page, ".bar .value") == [shown(each["score"]) for each in labels]
    page.get_by_label("Second text").fill("the puppet")
    ask(page)
    (labels,) = served.ask("/models/labels", {"inputs": {"text": "a nice puppet", "text_pair": "the puppet"}}).json
    assert texts(page, ".bar .value") == [shown(each["score"]) for each in labels]


def test_texts_are_ranked(open_page: Open, served: Served) -> None:
    documents = ["the puppet", "was a nice puppet who sings", "jim"]
    page = open_page()
    choose(page, "ranks", "Rank")
    page.get_by_label("Query").fill("who")
    page.get_by_label("Texts").fill("\n\n".join(documents) + "\n")
    ask(page)
    asked = {"model": "ranks", "query": "who", "documents": documents}
    ranking = served.ask("/v2/rerank", asked).json["results"]
    assert texts(page, ".bar > span:first-child") == [documents[each["index"]] for each in ranking]
    assert texts(page, ".bar .value") == [shown(each["relevance_score"]) for each in ranking]


def test_entities_are_marked_with_their_types(open_page: Open, served: Served) -> None:
    text = ODD + "Jim Henson sings."
    entities = served.ask("/models/tags", {"inputs": text}).json
    page = open_page()
    choose(page, "tags")
    page.locator("#field-text").fill(text)
    ask(page)
    expected = [text[each["start"] : each["end"]] + each["entity_group"] for each in entities]
    assert expected
    assert page.locator("mark").all_text_contents() == expected
    assert texts(page, "mark .type") == [each["entity_group"] for each in entities]


def test_texts_are_compared_and_embedded(open_page: Open, served: Served) -> None:
    page = open_page()
    choose(page, "embeds", "Compare")
    page.locator("#field-source").fill("the puppet")
    page.get_by_label("Compared with").fill("jim\nthe puppet")
    ask(page)
    assert texts(page, ".bar > span:first-child")[0] == "the puppet"
    assert texts(page, ".bar .value")[0] == "1.000"
    page.get_by_role("radio", name="Embed").check()
    page.locator("#field-text").fill("jim")
    ask(page)
    (embedding,) = served.ask("/models/embeds", {"inputs": "jim"}).json
    norm = sum(number**2 for number in embedding) ** 0.5
    facts = page.locator("#answer").inner_text()
    assert f"{len(embedding)} numbers" in facts
    assert f"{norm:.4f}" in facts
    assert f"{embedding[0]:.4f}" in facts


def test_a_task_that_the_page_does_not_know_is_asked_as_json(open_page: Open) -> None:
    page = open_page()
    _rewrite_info(page, lambda model: model.update(task="a-new-task"))
    page.reload()
    page.get_by_label("Body").wait_for()
    ask(page)
    assert isinstance(json.loads(page.locator("#answer").inner_text()), dict)


def test_what_is_typed_stays_with_its_model_and_view(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Question").fill("mine?")
    choose(page, "embeds", "Embed")
    page.locator("#field-text").fill("my text")
    choose(page, "embeds", "Compare")
    choose(page, "answers")
    assert page.get_by_label("Question").input_value() == "mine?"
    choose(page, "embeds", "Embed")
    assert page.locator("#field-text").input_value() == "my text"


# ---------------------------------------------------------------------------- what stands beside an answer


def test_an_answer_shows_where_its_time_went_its_request_and_its_model(open_page: Open, served: Served) -> None:
    page = open_page()
    page.get_by_label("Question").wait_for()
    with page.expect_response("**/models/answers") as answering:
        ask(page)
    headers = answering.value.headers
    total_ms = float(headers["server-timing"].rpartition("total;dur=")[2])
    shown = re.search(r"([0-9.,]+) ms in the server", page.locator("#timing").inner_text())
    names = ["Tokenise", "Queue", "Wait for a batch", "Wait for the worker", "Device", "Decode", "HTTP, JSON"]
    assert texts(page, "#legend dt") == names
    assert page.locator("#stages span").count() == len(names)
    assert shown and float(shown[1].replace(",", "")) == pytest.approx(total_ms, rel=0.02)
    assert headers["x-request-id"] in page.locator("#meta").inner_text()
    assert headers["x-artifact-digest"] in page.locator("#meta").inner_text()
    facts = page.locator("#facts").inner_text()
    first = served.ask("/info").json["models"][0]
    for fact in (first["name"], first["task"], first["digest"], first["variants"][0]["name"], "not measured"):
        assert fact in facts


def test_queue_and_latency_are_live(open_page: Open) -> None:
    page = open_page()
    page.locator("#live dt").first.wait_for()
    assert "rows" in page.locator("#live").inner_text()
    answered = page.locator("#live div", has_text="Answered")
    before = answered.inner_text()
    ask(page)
    sync_api.expect(answered).not_to_have_text(before.replace("\n", ""))
    assert "ms" in page.locator("#latency").inner_text()
    assert page.locator("#seen").inner_text() == "Seen just now"
    assert "ready" in page.locator("#live div", has_text="Worker 0").inner_text()


def test_an_emulated_model_says_so(open_page: Open) -> None:
    page = open_page()
    page.locator("#form").wait_for()
    assert page.locator("#emulated").is_hidden()
    _rewrite_info(page, lambda model: model.update(emulated=True))
    page.reload()
    page.locator("#emulated").wait_for()
    assert "EMULATED" in page.locator("#facts").inner_text()
    assert "EMULATED" in texts(page, "#model option")[0]


def _rewrite_info(page: Page, change: Callable[[Dict[str, Any]], None]) -> None:
    """Let the first model that the server tells of be a different one."""

    def answer(route: Any) -> None:
        response = route.fetch()
        info = response.json()
        change(info["models"][0])
        route.fulfill(response=response, json=info)

    page.route("**/info", answer)


def test_curl_asks_the_same_through_any_shell(open_page: Open, served: Served) -> None:
    page = open_page()
    page.get_by_label("Question").fill(QUOTED)
    open_curl(page)
    command = shlex.split(page.locator("#command").text_content().replace("\\\n", ""))
    assert command[:3] == ["curl", "-sS", f"{served.url}/models/answers"]
    body = json.loads(command[command.index("--data-raw") + 1])
    assert body["inputs"]["question"] == QUOTED
    answers = served.ask("/models/answers", body).json
    ask(page)
    assert texts(page, ".bar .value") == [shown(each["score"]) for each in answers]


def test_the_command_can_be_copied(open_page: Open) -> None:
    page = open_page(permissions=["clipboard-read", "clipboard-write"])
    open_curl(page)
    page.get_by_role("button", name="Copy").click()
    page.get_by_text("Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == page.locator("#command").text_content()


# ---------------------------------------------------------------------------- what may go wrong


def test_text_is_never_taken_for_html(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Question").fill(XSS)
    page.locator("#field-context").fill(XSS)
    open_curl(page)
    ask(page)
    assert page.locator(".reader").text_content() == XSS
    page.route("**/models/answers", lambda route: route.fulfill(status=400, json={"error": XSS}))
    page.locator("#go").click()
    page.locator("#error").wait_for()
    assert page.locator("#error-text").text_content() == XSS
    assert page.locator("img, main b, main script").count() == 0
    assert page.title() == "neuronbert"


def test_an_error_is_told_and_what_was_typed_is_kept(open_page: Open, served: Served) -> None:
    page = open_page()
    page.get_by_label("Question").fill("Who?")
    page.locator("#field-context").fill("")
    page.locator("#go").click()
    page.locator("#error").wait_for()
    refused = served.ask("/models/answers", {"inputs": {"question": "Who?", "context": ""}})
    assert page.locator("#error-text").inner_text() == refused.json["error"]
    assert page.locator("#error-title").inner_text() == f"The server refused this ({refused.status})"
    assert page.locator("#again").is_hidden()  # the same would be refused again
    assert page.get_by_label("Question").input_value() == "Who?"
    page.locator("#field-context").fill("Jim Henson.")
    ask(page)
    assert page.locator("#error").is_hidden()


def test_a_key_is_asked_for_and_kept_in_memory(open_page: Open, guarded: Served) -> None:
    page = open_page(guarded)
    key = page.get_by_label("API key")
    key.wait_for()
    assert page.locator("#ask").is_hidden()
    for wrong, said in (("not the key", "no spaces"), ("another", "not one of the server's")):
        key.fill(wrong)
        page.keyboard.press("Enter")
        page.locator("#key-why", has_text=said).wait_for()
    key.fill(KEY)
    page.keyboard.press("Enter")
    page.locator("#form").wait_for()
    assert key.is_hidden()
    page.locator("#field-source:focus").wait_for()
    ask(page)
    open_curl(page)
    command = page.locator("#command").inner_text()
    assert "$NEURONBERT_API_KEY" in command
    assert KEY not in command
    assert page.evaluate("[localStorage.length, sessionStorage.length, document.cookie]") == [0, 0, ""]
    page.reload()
    key.wait_for()


def test_a_busy_server_says_when_to_ask_again(open_page: Open) -> None:
    page = open_page()
    refused = {"status": 429, "json": {"error": "1,024 rows wait"}, "headers": {"Retry-After": "1"}}
    page.route("**/models/answers", lambda route: route.fulfill(**refused))
    page.get_by_label("Question").fill("mine?")
    page.locator("#go").click()
    page.locator("#error", has_text="The server is busy (429)").wait_for()
    assert page.locator("#error-text").inner_text() == "1,024 rows wait"
    page.locator("#again-when", has_text="worth it now").wait_for()
    page.unroute_all()
    page.get_by_role("button", name="Ask again").click()
    page.locator("#result").wait_for()
    assert page.locator("#error").is_hidden()
    assert page.get_by_label("Question").input_value() == "mine?"


def test_a_server_that_is_gone_is_found_again(open_page: Open) -> None:
    page = open_page()
    page.locator("#state", has_text="Ready").wait_for()
    page.get_by_label("Question").fill("mine?")
    page.context.set_offline(True)
    page.locator("#state", has_text="cannot be reached").wait_for()
    page.locator("#seen", has_text="Last seen").wait_for()
    page.locator("#go").click()
    page.locator("#error", has_text="The server cannot be reached.").wait_for()
    page.context.set_offline(False)
    page.locator("#state", has_text="Ready").wait_for()
    assert page.get_by_label("Question").input_value() == "mine?"
    page.get_by_role("button", name="Ask again").click()
    page.locator("#result").wait_for()


def test_a_server_that_loads_is_waited_for(open_page: Open) -> None:
    page = open_page()
    page.route("**/health", lambda route: route.fulfill(status=503, json={"error": "not ready"}))
    page.route("**/info", lambda route: route.fulfill(json={"version": "1", "models": []}))
    page.reload()
    page.get_by_text("The models are being loaded").wait_for()
    assert page.locator("#state").inner_text() == "Loading"
    page.unroute_all()
    page.locator("#form").wait_for()
    assert page.get_by_text("The models are being loaded").is_hidden()


# ---------------------------------------------------------------------------- whoever uses it


def test_the_keyboard_is_enough(open_page: Open) -> None:
    page = open_page()
    page.get_by_label("Question").wait_for()
    visited = []
    for _ in range(6):
        page.keyboard.press("Tab")
        visited.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert visited == ["skip", "model", "field-question", "field-context", "field-none", "go"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("End")
    page.keyboard.type(" He sings.")
    page.keyboard.press("Control+Enter")
    page.locator("#result").wait_for()
    assert page.locator(".reader").text_content() == page.locator("#field-context").input_value()
    assert page.locator("#said").inner_text().startswith("Answer: ")
    page.locator("button.bar").nth(1).focus()
    page.keyboard.press("Enter")
    assert page.locator("button.bar").nth(1).get_attribute("aria-pressed") == "true"


def test_arrows_change_the_view(open_page: Open) -> None:
    page = open_page()
    choose(page, "embeds")
    page.get_by_role("radio", name="Compare").focus()
    page.keyboard.press("ArrowRight")
    assert page.locator("#go").inner_text() == "Embed"


def test_everything_has_a_name_and_a_place(open_page: Open) -> None:
    page = open_page()
    ask(page)
    for role in ("banner", "main", "complementary", "contentinfo"):
        assert page.get_by_role(role).count() == 1, role
    for model in ("answers", "labels", "ranks", "tags", "embeds"):
        choose(page, model)
        unnamed = page.evaluate(
            "[...document.querySelectorAll('input, select, textarea')].filter(each => !each.labels.length).length"
        )
        assert unnamed == 0, model


SCREENS: Mapping[str, Mapping[str, Any]] = {
    "light": {"viewport": {"width": 1280, "height": 800}},
    "dark": {"viewport": {"width": 1280, "height": 800}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 360, "height": 740}, "is_mobile": True, "has_touch": True},
}
LONG = "Donaudampfschifffahrtsgesellschaftskapitänsmütze" * 3

# Of every text that is seen, and the ground that it stands on, as WCAG 2.2 computes it.
CONTRASTS = """() => {
  const parsed = colour => colour.match(/[\\d.]+/g).map(Number);
  const part = value => (value /= 255) <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  const light = ([red, green, blue]) => 0.2126 * part(red) + 0.7152 * part(green) + 0.0722 * part(blue);
  const ground = element => {
    for (let each = element; each; each = each.parentElement) {
      const colour = parsed(getComputedStyle(each).backgroundColor);
      if (colour[3] !== 0) return colour;
    }
  };
  const low = [];
  for (const element of document.querySelectorAll('body *')) {
    const isRead = [...element.childNodes].some(node => node.nodeType === 3 && node.textContent.trim());
    const isTyped = element.matches('input:not([type=radio], [type=checkbox]), select, textarea');
    if (!element.checkVisibility() || !(isRead || isTyped)) continue;
    const [one, other] = [parsed(getComputedStyle(element).color), ground(element)].map(light).sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < 4.5) low.push([element.tagName, element.className, element.textContent.slice(0, 40), ratio]);
  }
  return low;
}"""


@pytest.mark.parametrize("screen", SCREENS)
def test_it_fits_every_screen_and_can_be_read(open_page: Open, screen: str) -> None:
    page, width = open_page(**SCREENS[screen]), SCREENS[screen]["viewport"]["width"]
    page.locator("#field-context").fill(f"{LONG} {CONTEXT}")
    open_curl(page)
    for model in ("answers", "labels", "ranks", "tags", "embeds"):
        if model != "answers":
            choose(page, model)
        ask(page)
        assert page.evaluate("document.documentElement.scrollWidth") == width, model
        assert page.evaluate(CONTRASTS) == [], model
    page.route("**/models/embeds", lambda route: route.fulfill(status=503, json={"error": LONG}))
    page.locator("#go").click()
    page.locator("#error").wait_for()
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.evaluate(CONTRASTS) == []
