//! `trunkline topology`: the dataflow as text, Mermaid or JSON.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;

use clap::ValueEnum;
use serde_json::json;

use crate::role::Role;
use crate::topology::roles;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    Text,
    Mermaid,
    Json,
}

impl Arguments {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let roles: Vec<&Role> = roles().collect();
        let text = match self.format {
            Format::Text => text(&roles),
            Format::Mermaid => mermaid(&roles),
            Format::Json => json(&roles),
        };
        std::io::stdout().write_all(text.as_bytes())?;
        Ok(ExitCode::SUCCESS)
    }
}

fn text(roles: &[&Role]) -> String {
    let mut text = String::new();
    for role in roles {
        let _ = writeln!(text, "{:<16} {}: {}", role.name, role.kind.name(), role.description);
        let sends: Vec<_> = role.sends().collect();
        for (arrow, topics) in [("←", role.reads), ("→", &*sends), ("⟲", role.keeps)] {
            for topic in topics {
                let _ = writeln!(text, "{:<16} {arrow} {}", "", topic.name);
            }
        }
        for outside in role.outside {
            let _ = writeln!(text, "{:<16} ↔ {outside}", "");
        }
    }
    text
}

fn mermaid(roles: &[&Role]) -> String {
    let node = |name: &str| name.replace(['.', '-', ' '], "_");
    let mut text = String::from("flowchart LR\n");
    for role in roles {
        let _ = writeln!(text, "  {}[{}]", node(role.name), role.name);
        for topic in role.reads {
            let _ = writeln!(text, "  {}([{}]) --> {}", node(topic.name), topic.name, node(role.name));
        }
        for topic in role.sends() {
            let _ = writeln!(text, "  {} --> {}([{}])", node(role.name), node(topic.name), topic.name);
        }
        for outside in role.outside {
            let _ = writeln!(text, "  {} <--> {}{{{{{outside}}}}}", node(role.name), node(outside));
        }
    }
    text
}

fn json(roles: &[&Role]) -> String {
    let names = |topics: &[&crate::topics::Topic]| topics.iter().map(|topic| topic.name).collect::<Vec<_>>();
    let roles: Vec<_> = roles
        .iter()
        .map(|role| {
            json!({
                "name": role.name,
                "kind": role.kind.name(),
                "description": role.description,
                "reads": names(role.reads),
                "writes": names(&role.sends().collect::<Vec<_>>()),
                "keeps": names(role.keeps),
                "outside": role.outside,
            })
        })
        .collect();
    serde_json::to_string_pretty(&json!({ "roles": roles })).expect("plain data") + "\n"
}
