//! `rootling completion SHELL`.

use super::render;

#[derive(clap::Args)]
pub struct Arguments {
    /// The shell
    #[arg(value_enum)]
    shell: clap_complete::Shell,
}

pub fn execute(arguments: &Arguments, command: &mut clap::Command) {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "rootling", &mut script);
    render::result(String::from_utf8_lossy(&script).trim_end());
}
