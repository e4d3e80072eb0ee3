//! `tests/conformity.md` is a table of rules, each with the tests that hold it. Here it is held to the sources: every test
//! that it names is there, and every test of this subject is named by it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The rows of the table: rule, level, tests.
fn rows() -> Vec<[String; 3]> {
    let text = fs::read_to_string(root().join("tests/conformity.md")).expect("the table");
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| rule |"));
    rows.map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split(" | ").map(|cell| cell.trim().to_owned()).collect();
        cells.try_into().unwrap_or_else(|cells| panic!("{cells:?} has not three cells"))
    })
    .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// Where the modules of a binary of tests are; the library's are in `src`.
fn folder(binary: &str) -> PathBuf {
    match binary {
        "lib" => root().join("src"),
        other => root().join("tests").join(other),
    }
}

/// Names of the functions of a text that are tests.
fn tests(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut marked = false;
    for line in text.lines().map(str::trim) {
        let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        match function {
            Some(rest) if marked => {
                let name = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
                names.insert(name);
                marked = false;
            }
            Some(_) => marked = false,
            None => marked |= line.starts_with("#[test]") || line.starts_with("#[tokio::test"),
        }
    }
    names
}

/// Whether there is a test of that path: the binary, its modules, and the function.
fn is_there(path: &str) -> bool {
    let mut parts: Vec<&str> = path.split("::").collect();
    if parts.len() < 3 {
        return false;
    }
    let (binary, name) = (parts.remove(0), parts.pop().unwrap_or_default());
    // Unit tests are in a module of their file.
    if binary == "lib" && parts.last() == Some(&"tests") {
        parts.pop();
    }
    let file = folder(binary).join(parts.join("/")).with_extension("rs");
    fs::read_to_string(file).is_ok_and(|text| tests(&text).contains(name))
}

#[test]
fn a_test_is_found_only_where_it_is() {
    let here = "it::conformity::table::a_test_is_found_only_where_it_is";
    assert!(is_there(here));
    assert!(is_there("lib::receive::headers::tests::other_bodies"));
    for wrong in [
        "it::conformity::table::rows",
        "it::conformity::rows::a_test_is_found_only_where_it_is",
        "sim::conformity::table::a_test_is_found_only_where_it_is",
        "a_test_is_found_only_where_it_is",
    ] {
        assert!(!is_there(wrong), "{wrong}");
    }
}

#[test]
fn every_test_of_the_table_is_there() {
    let rows = rows();
    assert!(rows.len() > 40, "{rows:?}");
    for [rule, level, tests] in rows {
        assert!(["MUST", "SHOULD", "MAY"].contains(&level.as_str()), "{rule}: {level}");
        let tests = quoted(&tests);
        assert!(!tests.is_empty(), "{rule}: no test");
        for test in tests {
            assert!(is_there(test), "{rule}: there is no test {test}");
        }
    }
}

#[test]
fn every_test_of_conformity_is_in_the_table() {
    let rows = rows();
    let named: BTreeSet<&str> = rows.iter().flat_map(|[_, _, tests]| quoted(tests)).collect();
    for file in fs::read_dir(root().join("tests/it/conformity")).expect("a folder") {
        let path = file.expect("a file").path();
        let module = path.file_stem().expect("a name").to_string_lossy().into_owned();
        for test in tests(&fs::read_to_string(&path).expect("text")) {
            let full = format!("it::conformity::{module}::{test}");
            assert!(module == "table" || named.contains(full.as_str()), "{full} holds no rule of the table");
        }
    }
}
