//! Documents say what the code does. `TRUNKLINE_WRITE_DOCUMENTS=1 cargo test --test
//! rules` writes them anew.

use std::fs;
use std::path::{Path, PathBuf};

use trunkline::cli::documents::{self, Content};
use trunkline::topics::{self, Values};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// The file as it is and as it must be.
fn versions(document: &documents::Document) -> (String, String) {
    let found = fs::read_to_string(root().join(&document.path)).unwrap_or_default();
    let wanted = match &document.content {
        Content::Whole(text) => text.clone(),
        Content::Section { name, text } => {
            let (open, close) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
            let (before, rest) =
                found.split_once(&open).unwrap_or_else(|| panic!("{} lacks {open}", document.path));
            let (_, after) =
                rest.split_once(&close).unwrap_or_else(|| panic!("{} lacks {close}", document.path));
            format!("{before}{open}{text}{close}{after}")
        }
    };
    (found, wanted)
}

#[test]
fn files_made_from_the_code_are_current() {
    let write = std::env::var_os("TRUNKLINE_WRITE_DOCUMENTS").is_some();
    let mut stale = Vec::new();
    for document in documents::all() {
        let (found, wanted) = versions(&document);
        if found == wanted {
            continue;
        }
        if write {
            let path = root().join(&document.path);
            fs::create_dir_all(path.parent().expect("below the root")).expect("a folder");
            fs::write(path, wanted).expect("written");
        } else {
            stale.push(document.path);
        }
    }
    assert!(
        stale.is_empty(),
        "not current: {stale:?}; write them with TRUNKLINE_WRITE_DOCUMENTS=1 cargo test --test rules"
    );
}

fn examples(topic: &str) -> Vec<PathBuf> {
    let folder = root().join("schemas/examples").join(topic);
    let mut found: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
        .map(|entry| entry.expect("an entry").path())
        .collect();
    found.sort();
    found
}

#[test]
fn every_topic_has_two_examples_that_follow_its_schema_and_one_that_does_not_would_be_seen() {
    for topic in topics::ALL {
        let Values::Json(_) = topic.values else { continue };
        let schema = topics::json_schema(topic).expect("has a schema");
        let validator = jsonschema::validator_for(&schema).expect("a valid schema");
        let examples = examples(topic.name);
        assert!(examples.len() >= 2, "{} has {} examples", topic.name, examples.len());
        for path in examples {
            let text = fs::read_to_string(&path).expect("UTF-8");
            let value: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{}: {errors:?}", path.display());
        }
        assert!(!validator.is_valid(&serde_json::json!({})), "{}: an empty object passes", topic.name);
    }
}
