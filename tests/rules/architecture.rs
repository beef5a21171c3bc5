//! The rooms know only what stands left of them: read from the imports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What those may know that deal with everything outside.
const OUTSIDE: &[&str] = &[
    "model",
    "backoff",
    "clock",
    "topics",
    "role",
    "kafka",
    "runtime",
    "genesys",
    "postgres",
    "metrics",
    "health",
    "telemetry",
];

/// A room and the rooms it may know.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("backoff", &[]),
    ("clock", &["model"]),
    ("health", &[]),
    ("metrics", &[]),
    ("telemetry", &[]),
    ("topics", &["model"]),
    ("role", &["topics"]),
    ("config", &["model", "kafka"]),
    ("pipeline", &["model", "topics", "role"]),
    ("stages", &["model", "topics", "role", "pipeline"]),
    ("kafka", &["model", "backoff", "topics", "role", "metrics", "health"]),
    (
        "runtime",
        &["model", "backoff", "clock", "topics", "pipeline", "kafka", "metrics", "health", "telemetry"],
    ),
    ("genesys", &["model", "backoff", "clock", "metrics", "health"]),
    ("postgres", &["model", "metrics", "health"]),
    ("replay", &["model", "topics", "stages", "routing"]),
    (
        "sources",
        &[
            "model",
            "backoff",
            "clock",
            "topics",
            "role",
            "pipeline",
            "kafka",
            "runtime",
            "genesys",
            "metrics",
            "health",
            "telemetry",
        ],
    ),
    ("sinks", OUTSIDE),
    ("routing", OUTSIDE),
    ("console", &["model", "clock", "topics", "role", "postgres", "metrics", "health", "telemetry"]),
    (
        "topology",
        &[
            "model",
            "backoff",
            "clock",
            "topics",
            "role",
            "pipeline",
            "stages",
            "kafka",
            "runtime",
            "genesys",
            "postgres",
            "sources",
            "sinks",
            "routing",
            "replay",
            "console",
            "config",
            "metrics",
            "health",
            "telemetry",
        ],
    ),
    (
        "cli",
        &[
            "model",
            "backoff",
            "clock",
            "topics",
            "role",
            "pipeline",
            "stages",
            "kafka",
            "runtime",
            "genesys",
            "postgres",
            "sources",
            "sinks",
            "routing",
            "replay",
            "console",
            "config",
            "metrics",
            "health",
            "telemetry",
            "topology",
        ],
    ),
];

fn room_of(path: &Path) -> String {
    let below = path.strip_prefix(source_root()).expect("below src");
    let first = below.components().next().expect("a file").as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

pub(crate) fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

pub(crate) fn source_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            source_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The name a path goes on with, or those in its braces.
fn names_at(path: &str) -> BTreeSet<String> {
    let name = |text: &str| -> String {
        text.chars().take_while(|letter| letter.is_ascii_alphanumeric() || *letter == '_').collect()
    };
    let Some(list) = path.strip_prefix('{') else { return BTreeSet::from([name(path)]) };
    let mut names = BTreeSet::new();
    let mut depth = 0;
    let mut item_starts = true;
    for (index, letter) in list.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => item_starts = true,
            letter if item_starts && letter.is_ascii_alphabetic() => {
                names.insert(name(&list[index..]));
                item_starts = false;
            }
            _ => {}
        }
    }
    names
}

/// Names after `crate::`, one by one or in braces.
fn rooms_known(source: &str) -> BTreeSet<String> {
    source.match_indices("crate::").flat_map(|(at, found)| names_at(&source[at + found.len()..])).collect()
}

#[test]
fn rooms_know_only_what_stands_left_of_them() {
    let mut files = Vec::new();
    source_files(&source_root(), &mut files);
    let mut broken = Vec::new();
    for path in files {
        let room = room_of(&path);
        if room == "lib" || room == "main" {
            continue;
        }
        let Some((_, may_know)) = ROOMS.iter().find(|(name, _)| *name == room) else {
            broken.push(format!("{}: room `{room}` has no place in the order", path.display()));
            continue;
        };
        for other in rooms_known(&fs::read_to_string(&path).expect("UTF-8 source")) {
            let is_room = ROOMS.iter().any(|(name, _)| *name == other);
            if is_room && other != room && !may_know.contains(&other.as_str()) {
                broken.push(format!("{}: `{room}` must not know `{other}`", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The path of a file's module below `src`, its room first.
fn module_of(file: &Path) -> Vec<String> {
    let below = file.strip_prefix(source_root()).expect("below src").with_extension("");
    let mut path: Vec<String> =
        below.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    path.pop_if(|last| last == "mod");
    path
}

/// What a module at `path` names by way of `super::`, as `room::name`.
fn siblings_known(path: &[String], source: &str) -> BTreeSet<String> {
    let mut known = BTreeSet::new();
    let mut rest = source;
    while let Some(at) = rest.find("super::") {
        rest = &rest[at..];
        let mut up = 0;
        while let Some(after) = rest.strip_prefix("super::") {
            (rest, up) = (after, up + 1);
        }
        let Some(above) = path.len().checked_sub(up) else { continue };
        for name in names_at(rest) {
            let full: Vec<&str> =
                path[..above].iter().map(String::as_str).chain([name.as_str()]).take(2).collect();
            known.insert(full.join("::"));
        }
    }
    known
}

/// What siblings stand on: private to their room, and knowing none of them but each other.
const FOUNDATIONS: &[&str] = &[
    "sinks::actuation",
    "sinks::committed",
    "sinks::positioned",
    "sinks::transacted",
    "sources::readiness",
    "sources::facts",
    "sources::names",
    "sources::ownership",
    "sources::schedule",
    "sources::watch",
];

#[test]
fn one_room_knows_the_client_library_of_the_brokers() {
    let mut files = Vec::new();
    source_files(&source_root(), &mut files);
    let names = |path: &PathBuf| fs::read_to_string(path).expect("UTF-8 source").contains("rdkafka::");
    let (own, others): (Vec<_>, Vec<_>) =
        files.into_iter().filter(names).partition(|path| room_of(path) == "kafka");
    assert!(others.is_empty(), "{others:?}");
    assert!(!own.is_empty(), "the reader of imports no longer sees the library");
}

/// The simulator is a crate: the compiler keeps its walls, this keeps the programs out of it.
#[test]
fn only_commands_know_the_simulator() {
    let mut files = Vec::new();
    source_files(&source_root(), &mut files);
    let knows = |path: &PathBuf| {
        let source = fs::read_to_string(path).expect("UTF-8 source");
        source.contains("use simulator") || source.contains("simulator::")
    };
    let (commands, others): (Vec<_>, Vec<_>) =
        files.into_iter().filter(knows).partition(|path| room_of(path) == "cli");
    assert!(others.is_empty(), "{others:?}");
    assert!(!commands.is_empty(), "the reader of imports no longer sees the simulator");
}

#[test]
fn stages_and_sinks_do_not_know_their_siblings() {
    let mut broken = Vec::new();
    for room in ["stages", "sinks", "sources"] {
        let folder = source_root().join(room);
        let siblings: Vec<String> = fs::read_dir(&folder)
            .expect("a room")
            .map(|entry| {
                let name = entry.expect("an entry").file_name().to_string_lossy().into_owned();
                name.trim_end_matches(".rs").to_owned()
            })
            .filter(|name| name != "mod")
            .collect();
        for sibling in &siblings {
            let mut files = Vec::new();
            let path = folder.join(sibling);
            if path.is_dir() {
                source_files(&path, &mut files)
            } else {
                files.push(path.with_extension("rs"))
            }
            for file in files {
                let source = fs::read_to_string(&file).expect("UTF-8 source");
                let is_foundation = |name: &str| FOUNDATIONS.contains(&format!("{room}::{name}").as_str());
                let known = siblings_known(&module_of(&file), &source);
                for other in siblings.iter().filter(|other| *other != sibling && !is_foundation(other)) {
                    if source.contains(&format!("{room}::{other}"))
                        || known.contains(&format!("{room}::{other}"))
                    {
                        broken.push(format!("{}: `{sibling}` must not know `{other}`", file.display()));
                    }
                }
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// Rooms whose answers depend on what they are given alone.
const PURE: &[&str] = &["model", "topics", "role", "pipeline", "stages", "replay"];

/// Clocks, chance, threads and everything outside.
const IMPURE: &[&str] = &[
    "Instant::now",
    "SystemTime::now",
    "clock::",
    "tokio",
    "rand::",
    "std::env",
    "std::fs",
    "std::net",
    "std::thread",
];

#[test]
fn pure_rooms_have_no_clock_no_chance_and_no_outside() {
    let mut files = Vec::new();
    source_files(&source_root(), &mut files);
    let mut broken = Vec::new();
    for path in files.iter().filter(|path| PURE.contains(&room_of(path).as_str())) {
        let source = fs::read_to_string(path).expect("UTF-8 source");
        // Tests read examples and write files.
        let code = source.split("#[cfg(test)]").next().unwrap_or_default();
        let lines = code.lines().filter(|line| !line.trim_start().starts_with("//"));
        for (line, what) in lines.flat_map(|line| IMPURE.iter().map(move |what| (line, what))) {
            let is_test =
                path.components().any(|part| part.as_os_str().to_string_lossy().starts_with("tests"));
            if line.contains(what) && !is_test {
                broken.push(format!("{}: {what} in {}", path.display(), line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_reader_of_imports_sees_every_form() {
    let source = "use crate::model::Timestamp;\nuse crate::{pipeline::{Stage, Step}, topics, genesys as g};\nfn f() { crate::sinks::x() }";
    let known: Vec<_> = rooms_known(source).into_iter().collect();
    assert_eq!(known, ["genesys", "model", "pipeline", "sinks", "topics"]);
}

#[test]
fn the_reader_of_siblings_sees_every_form() {
    let path = ["sinks", "drift", "line"].map(str::to_owned);
    let source =
        "use super::super::audit;\nuse super::{Point, server};\nuse super::super::{outbox::Row, alerts};";
    let known: Vec<_> = siblings_known(&path, source).into_iter().collect();
    assert_eq!(known, ["sinks::alerts", "sinks::audit", "sinks::drift", "sinks::outbox"]);
    let known: Vec<_> = siblings_known(&path[..2], "use super::audit::Writer;").into_iter().collect();
    assert_eq!(known, ["sinks::audit"]);
}
