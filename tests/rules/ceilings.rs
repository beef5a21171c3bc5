//! How long files and functions are: what is longer than it should be stands in `ceilings.txt`
//! with its length, and may only become shorter.
//!
//! `TRUNKLINE_WRITE_DOCUMENTS=1 cargo test --test rules` lowers the ceilings of what has become
//! shorter. A new one, or a higher one, is written by hand: the line says to a reviewer that
//! somebody decided it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Lines that a file and a function may have without standing in the list.
const FILE: usize = 400;
const FUNCTION: usize = 60;

/// Folders that are looked at, from the root.
const FOLDERS: &[&str] = &["src", "simulator", "tests", "benches"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn list() -> PathBuf {
    root().join("tests/rules/ceilings.txt")
}

fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() && !path.ends_with("target") {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Functions of a formatted source with their lengths in lines: the closing brace stands below
/// the beginning.
fn functions(source: &str) -> Vec<(String, usize)> {
    let lines: Vec<&str> = source.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let trimmed = line.trim_start();
        let Some(name) = function_named(trimmed) else { continue };
        let indent = &line[..line.len() - trimmed.len()];
        let closing = format!("{indent}}}");
        // A declaration without a body ends at the depth of its beginning, and no brace is its own.
        let is_declared = |line: &&str| {
            line.ends_with(';') && line.strip_prefix(indent).is_some_and(|rest| !rest.starts_with(' '))
        };
        let Some(length) = lines[start..].iter().position(|line| *line == closing) else { continue };
        let is_short = line.ends_with('}');
        if !is_short && !lines[start..start + length].iter().any(is_declared) {
            found.push((name.to_owned(), length + 1));
        }
    }
    found
}

/// `pub(super) async fn name<…`: the name.
fn function_named(line: &str) -> Option<&str> {
    let mut words = line.split(' ');
    let is_qualifier =
        |word: &&str| word.starts_with("pub") || ["async", "const", "unsafe", "default"].contains(word);
    let first = words.find(|word| !is_qualifier(word))?;
    let rest = (first == "fn").then(|| words.next()).flatten()?;
    rest.split(['(', '<']).next().filter(|name| !name.is_empty())
}

/// What is longer than it should be: files by path, functions as `path name`.
fn too_long() -> BTreeMap<String, usize> {
    let mut files = Vec::new();
    FOLDERS.iter().for_each(|folder| source_files(&root().join(folder), &mut files));
    let mut long = BTreeMap::new();
    for file in files {
        let path = file.strip_prefix(root()).expect("below the root").display().to_string();
        let source = fs::read_to_string(&file).expect("UTF-8 source");
        let lines = source.lines().count();
        if lines > FILE {
            long.insert(path.clone(), lines);
        }
        for (name, length) in functions(&source).into_iter().filter(|(_, length)| *length > FUNCTION) {
            let longest = long.entry(format!("{path} {name}")).or_default();
            *longest = length.max(*longest);
        }
    }
    long
}

fn ceilings() -> BTreeMap<String, usize> {
    let text = fs::read_to_string(list()).unwrap_or_default();
    let entry = |line: &str| {
        let (length, what) = line.split_once(' ').expect("a length and what has it");
        (what.to_owned(), length.parse().expect("a number of lines"))
    };
    text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(entry).collect()
}

fn write(ceilings: &BTreeMap<String, usize>) {
    let mut text = String::from(
        "# Files over 400 lines and functions over 60: they may become shorter, not longer.\n\
         # TRUNKLINE_WRITE_DOCUMENTS=1 cargo test --test rules lowers them.\n",
    );
    let mut sorted: Vec<_> = ceilings.iter().collect();
    sorted.sort_by_key(|(what, length)| (what.contains(' '), std::cmp::Reverse(**length), (*what).clone()));
    sorted.iter().for_each(|(what, length)| text.push_str(&format!("{length} {what}\n")));
    fs::write(list(), text).expect("written");
}

#[test]
fn nothing_long_becomes_longer() {
    let (long, known) = (too_long(), ceilings());
    let mut longer = Vec::new();
    for (what, length) in &long {
        match known.get(what) {
            Some(ceiling) if length <= ceiling => {}
            Some(ceiling) => longer.push(format!("{what}: {length} lines, the ceiling is {ceiling}")),
            None => longer.push(format!("{what}: {length} lines; cut it, or write it into ceilings.txt")),
        }
    }
    if std::env::var_os("TRUNKLINE_WRITE_DOCUMENTS").is_some() {
        let lowered = known
            .iter()
            .filter_map(|(what, ceiling)| long.get(what).map(|length| (what.clone(), *length.min(ceiling))));
        write(&lowered.collect());
    }
    assert!(longer.is_empty(), "longer than it may be:\n{}", longer.join("\n"));
}

#[test]
fn the_reader_of_functions_sees_them_all() {
    let source = "\
pub(super) async fn one<T>(\n    a: T,\n) -> T {\n    a\n}\n\
trait Some {\n    fn declared(&self);\n\n    fn given(&self) {\n        two();\n    }\n}\n\
const fn short() {}\n";
    assert_eq!(functions(source), [("one".to_owned(), 5), ("given".to_owned(), 3)]);
}
