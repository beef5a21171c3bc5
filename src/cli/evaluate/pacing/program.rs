//! A policy of one's own: a program that reads one window per line (JSON) and answers each
//! with one line, `{"dialRate": 2.25}` or `{}` to leave the rate.

use std::io::{BufRead, BufReader, Read, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use super::policies::{Pacer, Window};

/// A program that has not answered by then has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Longest line it may answer with, bytes.
const LONGEST_LINE: usize = 4_096;

pub(super) struct Program {
    command: String,
    child: Child,
    input: Option<ChildStdin>,
    answers: Receiver<std::io::Result<String>>,
    campaign_id: String,
}

impl Program {
    /// Runs `command` by the shell; its stderr is ours.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(command: &str) -> anyhow::Result<Self> {
        let mut child = Command::new("sh")
            .args(["-c", command])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("policy program {command:?} cannot be started"))?;
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let input = child.stdin.take();
        let (sender, answers) = sync_channel(1);
        std::thread::spawn(move || read_lines(output, &sender));
        Ok(Self { command: command.to_owned(), child, input, answers, campaign_id: String::new() })
    }
}

fn read_lines(mut output: impl BufRead, to: &std::sync::mpsc::SyncSender<std::io::Result<String>>) {
    loop {
        let mut line = String::new();
        let read = output.by_ref().take(LONGEST_LINE as u64).read_line(&mut line);
        let ended = matches!(read, Ok(0) | Err(_));
        if !matches!(read, Ok(0)) && to.send(read.map(|_| line)).is_err() || ended {
            return;
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rate {
    #[serde(default)]
    dial_rate: Option<f64>,
}

impl Pacer for Program {
    fn begin(&mut self, campaign_id: &str) {
        campaign_id.clone_into(&mut self.campaign_id);
    }

    fn decide(&mut self, window: &Window) -> anyhow::Result<Option<f64>> {
        let command = &self.command;
        let window = Window { campaign_id: self.campaign_id.clone(), ..window.clone() };
        let mut line = serde_json::to_string(&window)?;
        line.push('\n');
        let input = self.input.as_mut().expect("open until it is dropped");
        // In words alone: the error of a closed pipe would be taken for our own output's, and not told.
        input.write_all(line.as_bytes()).and_then(|()| input.flush()).map_err(|error| {
            anyhow!("policy program {command:?} does not read its windows any more: {error}")
        })?;
        let answer = match self.answers.recv_timeout(ANSWER_WITHIN) {
            Ok(read) => read.with_context(|| format!("policy program {command:?} cannot be read"))?,
            Err(RecvTimeoutError::Timeout) => {
                bail!(
                    "policy program {command:?} gave no answer within {ANSWER_WITHIN:?}; does it flush its output?"
                )
            }
            Err(RecvTimeoutError::Disconnected) => bail!("policy program {command:?} has ended"),
        };
        let rate: Rate = serde_json::from_str(&answer)
            .with_context(|| format!("policy program {command:?} answered {:?}", answer.trim_end()))?;
        match rate.dial_rate {
            Some(rate) if !rate.is_finite() || rate < 0.0 => {
                bail!("policy program {command:?} answered the rate {rate}; rates are 0 or more")
            }
            rate => Ok(rate),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.input.take());
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
