//! `--change`: instructions that change how an existing image is run, without a build.

use std::collections::BTreeMap;

use super::config_step;
use super::plan::locate;
use super::resolve::{Action, Resolver};
use super::state::State;
use crate::dockerfile;
use crate::error::{Error, Result, quote};
use crate::oci::ImageConfig;

/// Applies instructions (CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR and the others that make no layer) to a config, as `docker
/// import --change` does. They leave no history.
pub fn apply_changes(config: &mut ImageConfig, changes: &[String]) -> Result<()> {
    let nothing = BTreeMap::new();
    let mut state = State::on_image(config.clone(), Vec::new());
    for change in changes {
        let file = dockerfile::parse_fragment("--change", change.as_bytes())?;
        for instruction in &file.instructions {
            let resolver = Resolver { file: &file, state: &state, arguments: &nothing, globals: &nothing };
            let done = match resolver.resolve(instruction).map_err(|e| locate(&file, e, instruction))? {
                Action::Config(change) => config_step::apply(&mut state, &change).map(drop),
                Action::Workdir(path) => {
                    state.config.config.working_dir = path;
                    Ok(())
                }
                Action::Run(_) | Action::Copy(_) => Err(Error::input(format!("{} changes files", quote(&instruction.keyword)))
                    .hint("only what changes how the image is run can be given here; build on the image with a Dockerfile")),
            };
            done.map_err(|e| locate(&file, e, instruction))?;
        }
    }
    config.config = state.config.config;
    config.author = state.config.author;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::Platform;

    #[test]
    fn changes() {
        let mut config = ImageConfig::scratch(&Platform::host());
        let changes = ["CMD [\"a\", \"b\"]", "ENV A=1 B=\"$A 2\"", "WORKDIR /x\nWORKDIR y", "USER 5:6", "EXPOSE 80", "LABEL l=m"];
        apply_changes(&mut config, &changes.map(str::to_owned)).unwrap();
        let run = &config.config;
        assert_eq!(
            (run.cmd.as_deref(), run.working_dir.as_str(), run.user.as_str()),
            (Some(&["a".to_owned(), "b".into()][..]), "/x/y", "5:6")
        );
        assert!(run.env.contains(&"A=1".into()) && run.exposed_ports.contains_key("80/tcp") && run.labels["l"] == "m", "{run:?}");
        for (change, expected) in [("RUN true", "changes files"), ("FROM x", "FROM"), ("CMDX y", "CMDX"), ("STOPSIGNAL NOPE", "NOPE")] {
            let error = apply_changes(&mut config, &[change.to_owned()]).unwrap_err();
            assert!(error.to_string().contains(expected), "{change}: {error}");
        }
    }
}
