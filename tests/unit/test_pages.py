"""What the pages say and where they lead, without a server."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request

from negatoscope.archive import commit
from negatoscope.archive.query_worklist import WorklistRow
from negatoscope.errors import WIRE_FORMS, BadRequest
from negatoscope.model.actor import Actor, ActorKind, Right, Role
from negatoscope.routing import nodes
from negatoscope.sharing import accounts, entities, passwords, people
from negatoscope.sharing.roles import AE_RIGHTS, ROLES
from negatoscope.web.i18n import LANGUAGES, Speech
from negatoscope.web.pages import administration, importing, page_routes, words
from negatoscope.web.pages.common import ERRORS, STATIC, Visit, environment, own_path
from negatoscope.web.pages.report import MOST_ITEMS, report_of
from negatoscope.web.pages.static import files
from negatoscope.web.pages.study import number_of, text_of
from negatoscope.web.pages.words import window_presets, written_age, written_name
from negatoscope.web.pages.worklist import Search, line_of

TEMPLATES = STATIC.parent / "templates"
FRENCH = Speech("fr")


def visit(role: Role | None, form: dict[str, list[str]] | None = None) -> Visit:
    actor = role and Actor(1, ActorKind.USER, "x", role, 1, "A", "2.25.1", ROLES[role].rights)
    return Visit(actor or None, FRENCH, "light", "", "", form or {})


def request(query: str = "") -> Request:
    return Request({"type": "http", "method": "GET", "path": "/", "query_string": query.encode(), "headers": []})


# Routes and templates ----------------------------------------------------------------------------


def test_every_route_has_a_name_of_its_own() -> None:
    names = Counter(route.name for route in page_routes)
    assert [name for name, count in names.items() if count > 1] == []


def test_changes_are_never_made_by_get() -> None:
    changing = re.compile(r"^(add|change|remove|disable|enable|resolve|create|revoke|sign|enter|remember)-?")
    for route in page_routes:
        if changing.match(route.name):
            assert route.methods == {"POST"}, route.name


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_template_can_be_read_in_both_languages(language: str) -> None:
    for template in TEMPLATES.rglob("*.html"):
        environment(language).get_template(template.relative_to(TEMPLATES).as_posix())


@pytest.mark.parametrize("template", sorted(TEMPLATES.rglob("*.html")), ids=lambda path: path.name)
def test_no_template_has_a_script_a_style_or_a_handler_in_line(template: Path) -> None:
    """The policy has no unsafe-inline, so such a thing would silently not work."""
    text = template.read_text(encoding="utf-8")
    assert not re.search(r"\sstyle\s*=", text)
    assert not re.search(r"\son[a-z]+\s*=", text)
    assert "hx-on" not in text
    for script in re.findall(r"<script\b[^>]*>", text):
        assert "src=" in script or 'type="application/json"' in script


def test_every_form_that_changes_something_carries_its_token() -> None:
    for template in TEMPLATES.rglob("*.html"):
        for form in re.findall(r'<form method="post".*?</form>', template.read_text(encoding="utf-8"), re.S):
            assert "{{ token() }}" in form, template.name


def test_every_icon_and_file_that_a_template_names_exists() -> None:
    sprite = set(re.findall(r'<symbol id="(\w+)"', (STATIC / "img" / "icons.svg").read_text(encoding="utf-8")))
    shown = {screen.item.icon for screen in administration.SCREENS.values()}
    for role in Role:
        shown |= {item.icon for item in visit(role).menu()}
    for template in TEMPLATES.rglob("*.html"):
        text = template.read_text(encoding="utf-8")
        shown |= set(re.findall(r'\bicon\("(\w+)"\)', text))
        for name in re.findall(r"static\('([^']+)'\)", text):
            assert name.startswith("vendor/") or (STATIC / name).is_file(), name
    assert shown - sprite == set()


def test_static_addresses_cannot_lead_outside() -> None:
    assert "css/app.css" in files()
    assert not [name for name in files() if ".." in name or name.startswith("/")]


@pytest.mark.parametrize(
    ("path", "own"),
    [
        ("/worklist?q=a", "/worklist?q=a"),
        ("//example.org", "/"),
        ("/\\example.org", "/"),
        ("https://example.org", "/"),
        ("", "/"),
        ("/a\nb", "/"),
        ("/" + "a" * 2047, "/" + "a" * 2047),
        ("/" + "a" * 2048, "/"),
    ],
)
def test_after_signing_in_one_stays_on_our_pages(path: str, own: str) -> None:
    assert own_path(path) == own


def test_a_form_s_field_is_bounded() -> None:
    for length in (1023, 1024):
        assert len(visit(None, {"a": ["x" * length]}).value("a")) == length
    with pytest.raises(BadRequest):
        visit(None, {"a": ["x" * 1025]}).value("a")


def test_every_status_of_the_error_table_has_a_page() -> None:
    for form in WIRE_FORMS.values():
        fallback = 400 if form.http < 500 else 500
        assert ERRORS.get(form.http) or ERRORS[fallback]
    assert {400, 403, 404, 429, 500, 503} <= set(ERRORS)


# Words that must keep pace with what others decide --------------------------------------------------


def test_the_use_cases_messages_that_forms_translate_are_still_said() -> None:
    said = "".join(inspect.getsource(module) for module in (accounts, entities, nodes, passwords, people))
    computed = {
        f"a password has at least {passwords.MIN_LENGTH} characters",
        f"a password has at most {passwords.MAX_LENGTH} characters",
        f"rights of an application entity: {', '.join(sorted(AE_RIGHTS))}",
        "a name has 1 to 200 printable characters",
        f"the login {accounts.DEMO_LOGIN} is kept for demonstrations",
    }
    for fault in administration.FAULTS:
        assert fault in said or fault in computed, fault


def test_every_reason_of_the_quarantine_has_words() -> None:
    """Whatever slug the committer holds is a reason: one that is added there is missing here at once."""
    slug = re.compile("[a-z]+(-[a-z]+)+")
    constants = {value for name, value in vars(commit).items() if name.isupper() and isinstance(value, str)}
    reasons = {value for value in constants if slug.fullmatch(value)}
    assert commit.FIRST_DAMAGED in reasons
    assert reasons == set(administration.REASONS)
    assert all(FRENCH.gettext(label) != label for label in administration.REASONS.values())


def test_every_role_and_right_has_words() -> None:
    assert set(words.ROLES) == {role.value for role in Role}
    assert set(words.RIGHTS) == {right.value for right in AE_RIGHTS}


def test_refusals_of_an_import_are_named_by_the_codes_that_stow_answers() -> None:
    reasons = importing.words_of(FRENCH)["reasons"]
    assert isinstance(reasons, dict)
    assert reasons[str(0xC002)] == "Le fichier s’arrête trop tôt."
    assert reasons[str(0xA900)] == "Un identifiant obligatoire manque ou est mal formé."


# Menu ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "sections"),
    [
        (None, []),
        (Role.RADIOLOGIST, ["worklist", "orders", "import"]),
        (Role.CLINICIAN, ["worklist"]),
        (Role.ADMIN, ["administration", "audit"]),
        (Role.REFERENT, ["worklist", "orders", "administration"]),
        (Role.DPO, ["audit"]),
    ],
)
def test_the_menu_offers_what_the_role_can_open(role: Role | None, sections: list[str]) -> None:
    assert [item.section for item in visit(role).menu()] == sections


# Names, ages, windows --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "family", "given", "other"),
    [
        ("DURAND^Émilie", "DURAND", "Émilie", ""),
        ("durand^Émilie^Rose^Mme", "DURAND", "Émilie Rose", ""),
        ("King^Martin^^Dr.^Jr.", "KING Jr.", "Martin", ""),
        ("Yamada^Tarou=山田^太郎=やまだ^たろう", "YAMADA", "Tarou", "山田 太郎 やまだ たろう"),
        ("=山田^太郎", "", "", "山田 太郎"),
        ("", "", "", ""),
        ("^^^^", "", "", ""),
    ],
)
def test_names_are_written_family_first(value: str, family: str, given: str, other: str) -> None:
    name = written_name(value)
    assert (name.family, name.given, name.other) == (family, given, other)
    assert bool(name) == any((family, given, other))


@given(st.text(max_size=200))
def test_any_text_can_be_written_as_a_name(value: str) -> None:
    assert isinstance(written_name(value).plain, str)


@pytest.mark.parametrize(
    ("born", "study", "age"),
    [
        ("19580614", "20260312", "67 ans"),
        ("20230313", "20260312", "35 mois"),
        ("20230312", "20260312", "3 ans"),
        ("20260211", "20260312", "1 mois"),
        ("20260213", "20260312", "27 jours"),
        ("20260312", "20260312", "0 jour"),
        ("20260313", "20260312", ""),  # born after the study: nothing is claimed
        ("", "20260312", ""),
        ("19580614", "", "68 ans"),  # no study date: today's age
    ],
)
def test_age_is_that_of_the_study_and_exact_for_the_young(born: str, study: str, age: str) -> None:
    assert written_age(FRENCH, born, study, date(2026, 11, 22)) == age


def test_only_ct_has_windows_by_name_and_their_value_is_the_standard_s() -> None:
    assert [preset.key for preset in window_presets("MR")] == ["own"]
    by_key = {preset.key: preset.value for preset in window_presets("CT")}
    assert by_key["own"] == ""
    assert by_key["lung"] == "-600,1500,linear"


# Search ----------------------------------------------------------------------------------------------


def test_a_search_survives_its_own_address() -> None:
    search = Search.of(request("q=+Muller+%26&period=7&modality=CT&from=2026-01-01&to=2026-02-01&x=1"))
    assert search == Search("Muller &", "7", "CT", "2026-01-01", "2026-02-01")
    assert Search.of(request(search.query_string)) == search
    assert Search.of(request("period=9999")).empty


def test_exact_dates_win_over_the_period() -> None:
    today = date(2026, 11, 22)
    assert Search(period="1").bounds(today) == ("20261122", "")
    assert Search(period="7").bounds(today) == ("20261116", "")
    assert Search(period="7", date_from="2026-01-01").bounds(today) == ("2026-01-01", "")
    assert Search().bounds(today) == ("", "")


def test_the_audit_learns_which_attributes_were_searched_never_their_values() -> None:
    assert Search(text="DURAND", period="7").keys == ["00100010", "00080020"]
    assert Search().keys == []


def test_a_study_of_reports_alone_has_no_picture_and_a_recent_change_is_an_arrival() -> None:
    now = datetime(2026, 11, 22, 12, tzinfo=UTC)

    def row(modalities: tuple[str, ...], age_s: int) -> WorklistRow:
        changed = datetime.fromtimestamp(now.timestamp() - age_s, UTC)
        return WorklistRow(
            1, "2.25.1", "A^B", "1", "19700101", "F", "20260101", "", "", "", modalities, 1, 1, changed, "A"
        )

    assert line_of(row(("SR", "KO"), 0), FRENCH, now).pictureless
    assert not line_of(row(("CT", "SR"), 0), FRENCH, now).pictureless
    assert [line_of(row(("CT",), s), FRENCH, now).arriving for s in (44, 45, 46)] == [True, False, False]
    assert line_of(row(("CT",), 0), FRENCH, now).traits == "F · 1 janv. 1970 · 56 ans"


# Reports ---------------------------------------------------------------------------------------------


def code(meaning: str) -> dict[str, object]:
    return {"vr": "SQ", "Value": [{"00080104": {"vr": "LO", "Value": [meaning]}}]}


def item(kind: str, name: str, **more: object) -> dict[str, object]:
    return {"0040A040": {"vr": "CS", "Value": [kind]}, "0040A043": code(name), **more}


def test_a_report_reads_as_names_values_and_what_they_contain() -> None:
    length = item(
        "NUM",
        "Length",
        **{
            "0040A300": {
                "vr": "SQ",
                "Value": [
                    {
                        "0040A30A": {"vr": "DS", "Value": [62.0]},
                        "004008EA": {"vr": "SQ", "Value": [{"00080100": {"vr": "SH", "Value": ["mm"]}}]},
                    }
                ],
            }
        },
    )
    finding = item("TEXT", "Finding", **{"0040A160": {"vr": "UT", "Value": ["Nodule " * 20]}})
    group = item("CONTAINER", "Measurements", **{"0040A730": {"vr": "SQ", "Value": [length, finding]}})
    report = report_of({"0040A043": code("Imaging Report"), "0040A730": {"vr": "SQ", "Value": [group]}})
    assert report.title == "Imaging Report"
    assert [child.name for child in report.items[0].children] == ["Length", "Finding"]
    assert report.items[0].children[0].value == "62.0 mm"
    assert report.items[0].children[1].text.startswith("Nodule")
    assert not report.truncated


def test_a_report_is_bounded_in_items_and_depth() -> None:
    for count, truncated in ((MOST_ITEMS - 1, False), (MOST_ITEMS, True), (MOST_ITEMS + 1, True)):
        many = {"0040A730": {"vr": "SQ", "Value": [item("TEXT", "x")] * count}}
        assert report_of(many).truncated == truncated
    deep: dict[str, object] = item("TEXT", "leaf")
    for _ in range(200):
        deep = item("CONTAINER", "level", **{"0040A730": {"vr": "SQ", "Value": [deep]}})
    assert report_of({"0040A730": {"vr": "SQ", "Value": [deep]}}).items


@pytest.mark.parametrize("dataset", [{}, {"00200011": {"vr": "IS"}}, {"00200011": {"vr": "IS", "Value": [None]}}])
def test_an_attribute_without_a_value_is_no_value(dataset: dict[str, object]) -> None:
    assert text_of(dataset, "00200011") == ""
    assert number_of(dataset, "00200011") is None


def test_person_names_keep_all_their_groups() -> None:
    name = {"00100010": {"vr": "PN", "Value": [{"Alphabetic": "A^B", "Ideographic": "山"}]}}
    assert text_of(name, "00100010") == "A^B=山"


def test_who_may_administer_the_platform_sees_more_screens_than_a_referent() -> None:
    admin, referent = visit(Role.ADMIN), visit(Role.REFERENT)
    assert administration.platform_wide(admin.signed_in)
    assert not administration.platform_wide(referent.signed_in)
    assert Right.ADMINISTER in referent.signed_in.rights
