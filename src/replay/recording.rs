//! A recording: decisions with all that it takes to take them again, in one file. Lines of JSON: a
//! [`Header`], then changes of settings, then decisions in the order in which they are replayed.

use std::io::{self, BufRead, Read};

use serde::{Deserialize, Serialize};

use super::{Numbers, Recorded};
use crate::model::Timestamp;
use crate::model::settings::Setting;

/// The form of the file.
const FORM: u32 = 1;
/// Longest line in bytes.
const LINE_LIMIT: u64 = 4 * 1_024 * 1_024;

/// The first line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// Of the form of the file.
    recording: u32,
    /// Of the program that wrote it.
    pub program: String,
    pub from: Timestamp,
    pub to: Timestamp,
    /// The numbers of the configurations that the decisions were taken under.
    pub numbers: Vec<Numbers>,
}

impl Header {
    pub fn new(program: &str, from: Timestamp, to: Timestamp, numbers: Vec<Numbers>) -> Self {
        Self { recording: FORM, program: program.to_owned(), from, to, numbers }
    }
}

/// Any line after it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Line {
    Setting(Setting<'static>),
    Decision(Recorded),
}

/// Why a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    #[error("line {line} is not what a recording holds there: {cause}")]
    Malformed { line: u64, cause: String },
    #[error(
        "it is a recording of form {0}, and this program reads form {FORM}: use the program that wrote it"
    )]
    OtherForm(u32),
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
}

/// Reads the header, and then line after line.
///
/// # Errors
/// When there is no header.
pub fn read_lines<R: BufRead>(
    mut from: R,
) -> Result<(Header, impl Iterator<Item = Result<Line, RecordingError>>), RecordingError> {
    let mut number = 0;
    let first = next_line(&mut from, &mut number)?.unwrap_or_default();
    #[derive(Deserialize)]
    struct Form {
        recording: u32,
    }
    let form: Form = parse(&first, number)?;
    if form.recording != FORM {
        return Err(RecordingError::OtherForm(form.recording));
    }
    let header: Header = parse(&first, number)?;
    let mut ended = false;
    let lines = std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let line = next_line(&mut from, &mut number).transpose()?;
        let read = line.and_then(|line| parse(&line, number));
        ended = read.is_err();
        Some(read)
    });
    Ok((header, lines))
}

fn parse<T: serde::de::DeserializeOwned>(text: &str, line: u64) -> Result<T, RecordingError> {
    serde_json::from_str(text).map_err(|cause| RecordingError::Malformed { line, cause: cause.to_string() })
}

fn next_line(from: &mut impl BufRead, number: &mut u64) -> Result<Option<String>, RecordingError> {
    let mut line = String::new();
    *number += 1;
    if from.by_ref().take(LINE_LIMIT).read_line(&mut line)? == 0 {
        return Ok(None);
    }
    if !line.ends_with('\n') && line.len() as u64 == LINE_LIMIT {
        let cause = format!("it is longer than {LINE_LIMIT} bytes");
        return Err(RecordingError::Malformed { line: *number, cause });
    }
    Ok(Some(line))
}
