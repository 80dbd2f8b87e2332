"""Files about the project, which other programs read."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HIDDEN = (".readthedocs.yaml", ".github/ISSUE_TEMPLATE/bug_report.yml")

pytestmark = pytest.mark.skipif(
    not all((ROOT / name).is_file() for name in HIDDEN), reason="an unpacked source distribution"
)


def read(name):
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "name",
    [
        "CITATION.cff",
        ".readthedocs.yaml",
        ".github/ISSUE_TEMPLATE/bug_report.yml",
        ".github/ISSUE_TEMPLATE/feature_request.yml",
    ],
)
def test_it_is_a_yaml_mapping(name):
    assert isinstance(read(name), dict)


def test_the_citation_has_what_its_format_requires_and_agrees_with_the_package():
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["cff-version"] == "1.2.0"
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == PROJECT["urls"]["Repository"]
    assert citation["url"] == PROJECT["urls"]["Documentation"]
    assert sorted(citation["keywords"]) == sorted(PROJECT["keywords"])
    for author in citation["authors"]:
        assert author.keys() <= {"name", "family-names", "given-names", "orcid", "affiliation"}


def test_the_citation_refers_to_the_paper():
    (paper,) = read("CITATION.cff")["references"]
    assert {"type", "title", "authors"} <= paper.keys()
    assert paper["identifiers"] == [{"type": "other", "value": "arXiv:2402.19465"}]
    assert paper["authors"][0]["family-names"] == "Qian"


def test_the_documentation_is_built_as_it_is_checked():
    settings = read(".readthedocs.yaml")
    assert settings["version"] == 2
    assert (ROOT / settings["mkdocs"]["configuration"]).is_file()
    (command,) = settings["build"]["jobs"]["install"]
    (extra,) = re.findall(r"\.\[(\w+)\]", command)
    assert extra in PROJECT["optional-dependencies"]
    (constraints,) = re.findall(r"-c (\S+)", command)
    assert (ROOT / constraints).is_file()


def test_the_classifiers_name_the_pythons_that_are_checked():
    script = (ROOT / ".ci" / "check_install").read_text(encoding="utf-8")
    checked = re.search(r"^pythons=\((.*)\)$", script, re.MULTILINE)[1].split()
    wanted = {"Programming Language :: Python :: " + ".".join(v.split(".")[:2]) for v in checked}
    named = {c for c in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", c)}
    assert named == wanted


def test_a_bug_report_asks_for_versions_an_example_and_what_was_expected():
    fields = {field["id"]: field for field in read(".github/ISSUE_TEMPLATE/bug_report.yml")["body"]}
    required = {name for name, f in fields.items() if f.get("validations", {}).get("required")}
    assert required == {"environment", "example", "expected", "actual"}
    assert "tlens-trust --version --verbose" in fields["environment"]["attributes"]["description"]


@pytest.mark.parametrize("name", ["bug_report", "feature_request"])
def test_an_issue_form_has_what_its_format_requires(name):
    form = read(f".github/ISSUE_TEMPLATE/{name}.yml")
    assert {"name", "description", "body"} <= form.keys()
    for field in form["body"]:
        assert field["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]


def test_every_file_that_the_map_for_contributors_names_is_there():
    """A name without folders is in the folder that the same line names before it."""
    missing, found = [], 0
    for line in (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").splitlines():
        folder = ROOT
        for name in re.findall(r"`([\w/.]+(?:\.(?:py|md|toml)|/))`", line):
            if "NAME" in name:
                continue
            places = [folder / name, ROOT / name, ROOT / "tlens_trust" / name]
            there = next((place for place in places if place.exists()), None)
            if there is None:
                missing.append(name)
                continue
            found += 1
            folder = there if there.is_dir() else there.parent
    assert missing == []
    assert found > 40
