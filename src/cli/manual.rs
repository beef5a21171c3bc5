//! `trunkline man DIR`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The folder they go to, such as /usr/local/share/man/man1; made where it is missing
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

impl Arguments {
    /// Writes `trunkline.1`, and `trunkline-COMMAND.1` for each command and each below it.
    pub(super) fn run(self, program: clap::Command) -> anyhow::Result<ExitCode> {
        let folder = self.folder.display();
        std::fs::create_dir_all(&self.folder).with_context(|| format!("{folder} cannot be made"))?;
        clap_mangen::generate_to(program, &self.folder)
            .with_context(|| format!("manual pages cannot be written to {folder}"))?;
        Ok(ExitCode::SUCCESS)
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn every_command_has_a_page() {
        let folder = tempfile::tempdir().expect("a folder");
        let program = crate::cli::Arguments::command();
        let commands: Vec<_> = program.get_subcommands().map(|it| it.get_name().to_owned()).collect();
        let below = folder.path().join("man1");
        Arguments { folder: below.clone() }.run(program).expect("writes");
        let page = std::fs::read_to_string(below.join("trunkline.1")).expect("a page");
        assert!(page.contains(".TH trunkline 1"), "{page}");
        for command in commands {
            let page = below.join(format!("trunkline-{command}.1"));
            assert!(page.exists(), "{} is missing", page.display());
        }
    }
}
