//! Habits of the house that the compiler does not hold: arrows between rooms, sizes, names, and the README's table.

use promdedup::config::VARIABLES;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Path below the package and content of every file of Rust in `folders`.
fn files(folders: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut left: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(fs::read_dir(&path).expect("a folder").map(|entry| entry.expect("an entry").path()));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(root()).expect("below the package").to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).expect("text")));
        }
    }
    assert!(!found.is_empty(), "{folders:?}");
    found.sort();
    found
}

/// What comes before the unit tests, without comments.
fn code(text: &str) -> String {
    let lines = text.lines().take_while(|line| *line != "#[cfg(test)]");
    lines.map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

fn names(code: &str, word: &str) -> bool {
    let inside = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    code.match_indices(word).any(|(at, _)| {
        let before = at.checked_sub(1).map(|at| code.as_bytes()[at]);
        !inside(before) && !inside(code.as_bytes().get(at + word.len()).copied())
    })
}

#[test]
fn words_are_found_as_words() {
    assert!(names("use tokio::net;", "tokio"));
    assert!(!names("tokio_like", "tokio"));
    assert!(!names(&code("x // tokio"), "tokio"));
    assert!(!names(&code("x\n#[cfg(test)]\nmod tests { use tokio; }"), "tokio"));
}

#[test]
fn pure_rooms_know_no_runtime() {
    const PURE: &[&str] = &["wire", "series", "policy", "window", "config", "forward/answer"];
    for (name, text) in files(&["src"]) {
        let pure = PURE
            .iter()
            .any(|room| name == format!("src/{room}.rs") || name.starts_with(&format!("src/{room}/")));
        for word in ["tokio", "axum", "hyper", "hyper_util"].into_iter().filter(|_| pure) {
            assert!(!names(&code(&text), word), "{name} names {word}");
        }
    }
}

#[test]
fn arrows_run_one_way() {
    // app -> receive -> pipeline -> {wire, series, window, forward}, window -> policy
    const NEVER: &[(&str, &[&str])] = &[
        ("wire", &["window", "policy", "forward", "pipeline", "receive", "admin", "app", "command"]),
        ("series", &["window", "policy", "forward", "pipeline", "receive", "admin", "app", "command"]),
        (
            "policy",
            &["wire", "series", "window", "forward", "pipeline", "receive", "admin", "app", "command"],
        ),
        ("window", &["forward", "pipeline", "receive", "admin", "app", "command"]),
        (
            "forward",
            &["wire", "series", "window", "policy", "pipeline", "receive", "admin", "app", "command"],
        ),
        ("peers", &["series", "window", "policy", "pipeline", "receive", "admin", "app", "command"]),
        ("pipeline", &["receive", "admin", "app", "command"]),
        ("receive", &["wire", "series", "window", "policy", "admin", "app", "command"]),
        (
            "placement",
            &["wire", "window", "policy", "forward", "pipeline", "receive", "admin", "app", "command"],
        ),
        ("admin", &["app", "command"]),
        ("config", &["forward", "pipeline", "receive", "admin", "app", "command"]),
    ];
    for (name, text) in files(&["src"]) {
        for (room, strangers) in NEVER {
            if name == format!("src/{room}.rs") || name.starts_with(&format!("src/{room}/")) {
                for stranger in *strangers {
                    let path = format!("crate::{stranger}");
                    assert!(!names(&code(&text), &path), "{name} uses {path}");
                }
            }
        }
    }
}

#[test]
fn every_file_says_what_it_owns() {
    for (name, text) in files(&["src", "tests", "benches", "build.rs"]) {
        assert!(text.starts_with("//! "), "{name} does not open with `//!`");
    }
}

#[test]
fn files_are_short() {
    for (name, text) in files(&["src"]) {
        let lines = text.lines().take_while(|line| *line != "#[cfg(test)]").count();
        assert!(lines <= 600, "{name} has {lines} lines without its tests");
    }
    let main = fs::read_to_string(root().join("src/main.rs")).expect("main");
    assert!(main.lines().count() <= 80, "src/main.rs has {} lines", main.lines().count());
}

#[test]
fn names_say_something() {
    for (name, _) in files(&["src", "tests", "benches"]) {
        let stem = Path::new(&name).file_stem().expect("a stem").to_string_lossy().into_owned();
        let folders =
            Path::new(&name).components().map(|part| part.as_os_str().to_string_lossy().into_owned());
        for part in folders.chain([stem]) {
            let empty =
                ["util", "utils", "common", "helper", "helpers", "manager", "misc"].contains(&part.as_str());
            assert!(!empty, "{name}: {part} says nothing");
        }
    }
}

#[test]
fn nothing_is_left_to_do() {
    let marks = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["XX", "X"].concat()];
    for (name, text) in files(&["src", "tests", "benches", "build.rs"]) {
        for mark in &marks {
            assert!(!names(&text, mark), "{name} has a {mark}");
        }
    }
}

/// The cells of each row of the README's table of variables.
fn readme_rows() -> Vec<Vec<String>> {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let rows = readme.lines().filter(|line| line.starts_with("| `PROMDEDUP_"));
    rows.map(|row| row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_readme_lists_the_variables_there_are() {
    let told: Vec<(String, String)> = readme_rows()
        .into_iter()
        .map(|row| {
            assert_eq!(row.len(), 3, "{row:?}");
            assert!(!row[2].is_empty(), "{row:?} has no meaning");
            (row[0].trim_matches('`').to_owned(), row[1].trim_matches('`').to_owned())
        })
        .collect();
    let there: Vec<(String, String)> = VARIABLES
        .iter()
        .map(|variable| {
            let default =
                if variable.name == "PROMDEDUP_UPSTREAM_URL" { "(required)" } else { variable.default };
            (variable.name.to_owned(), default.to_owned())
        })
        .collect();
    assert_eq!(told, there);
}

/// Every `promdedup_…` of a text that is a whole word, as `quote` opens it.
fn metric_names(text: &str, quote: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_lowercase() || c == '_';
    let start = format!("{quote}promdedup_");
    let starts = text.match_indices(&start).map(|(at, _)| at + quote.len());
    starts.map(|at| text[at..].chars().take_while(|c| is_name(*c)).collect()).collect()
}

/// The metrics that the code registers.
pub(crate) fn metrics_there() -> BTreeSet<String> {
    let mut there = BTreeSet::new();
    for (name, text) in files(&["src"]) {
        if !name.contains("command/demo") {
            let lines: Vec<_> = text.lines().take_while(|line| *line != "#[cfg(test)]").collect();
            there.extend(metric_names(&lines.join("\n"), "\""));
        }
    }
    assert!(there.len() > 20, "{there:?}");
    there
}

#[test]
fn the_readme_lists_the_metrics_there_are() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let rows: Vec<_> = readme.lines().filter(|line| line.starts_with("| `promdedup_")).collect();
    assert_eq!(metric_names(&rows.join("\n"), "`"), metrics_there());
}
