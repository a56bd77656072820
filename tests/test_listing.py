"""The draft of the entry among the packages of scverse says what the package says of itself."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_the_entry_agrees_with_the_package():
    entry = yaml.safe_load((ROOT / "docs" / "meta.yaml").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    # What the schema of scverse/ecosystem-packages demands, version 2.0; `contact` is for the one who sends it.
    required = {"name", "description", "project_home", "documentation_home", "install", "license", "tags", "version"}
    assert required | {"category"} <= set(entry)
    assert entry["name"] == entry["install"]["pypi"] == project["name"]
    assert entry["version"] == project["version"]
    assert entry["license"] == project["license"]
    assert entry["project_home"] == project["urls"]["Source"]
    assert entry["documentation_home"] == project["urls"]["Documentation"]
    assert entry["tutorials_home"].startswith(entry["documentation_home"])
    assert entry["category"] == "ecosystem"
    assert len(set(entry["tags"])) == len(entry["tags"]) > 0
    assert entry["publications"]
    assert all(re.fullmatch(r"10.\d{4,9}/[-._;()/:A-Za-z0-9]+", doi) for doi in entry["publications"])
