"""Writes what the chart's schema says of the variables anew from src/config/variables.rs: run it when these have changed.

    python3 deploy/helm/test/schema.py

All else in values.schema.json is written by hand. Whether the result is right is not its word: `cargo test --test it deploy` compares."""

import json
import os
import re

ROOT = os.path.normpath(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../.."))
SCHEMA = f"{ROOT}/deploy/helm/promdedup/values.schema.json"
# The chart's ports are these.
PORTS = {"PROMDEDUP_LISTEN": ":19290$", "PROMDEDUP_ADMIN_LISTEN": ":19299$"}


def variables():
    """Name, default, form and meaning of each variable that is supported."""
    with open(f"{ROOT}/src/config/variables.rs", encoding="utf-8") as file:
        source = file.read()
    names = dict(re.findall(r'const (\w+): &str = "(PROMDEDUP_\w+)";', source))
    forms = dict(re.findall(r'^const (\w+): &str =\s*"([^"]*)";', source, re.M))
    calls = source[source.index("pub const VARIABLES") :].split("];")[0]
    text = r'("[^"]*"|\w+)'
    found = re.findall(rf"known\(\s*(\w+),\s*{text},\s*{text},\s*{text},?\s*\)", calls)
    assert len(found) == calls.count("known("), "a variable is written in a way that is not understood here"

    def literal(token):
        return token.strip('"') if token.startswith('"') else forms[token]

    return [(names[name], literal(default), literal(form), literal(meaning)) for name, default, form, meaning in found]


def described(name, default, form, meaning):
    told = f"{meaning.rstrip('.')}. Form: {form}."
    entry = {"description": f"{told} Default: {default}" if default else told}
    if name.endswith("_FILE"):
        return {"allOf": [{"$ref": "#/definitions/file"}], **entry}
    entry["type"] = ["integer", "string"] if form.startswith("a number") else "string"
    if choice := re.fullmatch(r"(\S+) or (\S+)", form):
        entry["enum"] = list(choice.groups())
    if form.startswith("a duration"):
        entry["pattern"] = "^[0-9].*[a-z]$"
    if form.startswith("a size"):
        entry["pattern"] = "^[0-9].*[A-Za-z]$"
    if name in PORTS:
        entry["pattern"] = PORTS[name]
    return entry


def main():
    with open(SCHEMA, encoding="utf-8") as file:
        schema = json.load(file)
    all_of_them = {each[0]: described(*each) for each in variables()}
    properties = schema["properties"]
    files = {name: entry for name, entry in all_of_them.items() if name.endswith("_FILE")}
    config = {name: entry for name, entry in all_of_them.items() if name not in files}
    properties["files"]["properties"], properties["config"]["properties"] = files, config
    properties["configFromSecrets"]["propertyNames"]["enum"] = list(config)
    with open(SCHEMA, "w", encoding="utf-8") as file:
        json.dump(schema, file, indent=2, ensure_ascii=False)
        file.write("\n")


if __name__ == "__main__":
    main()
