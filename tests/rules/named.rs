//! Documents that are named exist: in the code, and in each other.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use crate::architecture::{source_files, source_root};

/// Names in a text that look like documents.
fn documents_named(text: &str) -> BTreeSet<String> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "/._-".contains(letter);
    let words = text.split(|letter: char| !is_part(letter));
    words.filter(|word| word.ends_with(".md") && word.len() > 3).map(str::to_owned).collect()
}

/// Documents that the program writes for others, with the files that may name them.
const WRITTEN: &[(&str, &str)] =
    &[("src/cli/compliance/export.rs", "definitions.md"), ("tests/database/compliance.rs", "definitions.md")];

/// Code names documents from the project's root, and includes them from where it stands; documents
/// name each other from there or, as their links do, from where they stand.
fn is_there(root: &Path, file: &Path, name: &str) -> bool {
    let is_beside = name.starts_with("../") || file.extension().is_some_and(|extension| extension == "md");
    let beside = file.parent().expect("a folder").join(name);
    let is_written = WRITTEN.iter().any(|(by, written)| *written == name && file == root.join(by));
    root.join(name).is_file() || (is_beside && beside.is_file()) || is_written
}

#[test]
fn every_document_that_is_named_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    source_files(&source_root(), &mut files);
    source_files(&root.join("tests"), &mut files);
    source_files(&root.join("benches"), &mut files);
    source_files(&root.join("simulator/src"), &mut files);
    source_files(&root.join("simulator/tests"), &mut files);
    for folder in ["", "docs", "docs/reference"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            files.extend(path.extension().is_some_and(|extension| extension == "md").then_some(path));
        }
    }
    let mut missing = Vec::new();
    for file in files.iter().filter(|file| !file.ends_with("tests/rules/named.rs")) {
        for name in documents_named(&fs::read_to_string(file).expect("UTF-8")) {
            if !is_there(root, file, &name) {
                missing.push(format!("{}: names {name}", file.display()));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "named from the project's root or its own folder, and not there:\n{}",
        missing.join("\n")
    );
}
