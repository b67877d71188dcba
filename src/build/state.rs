//! What a stage has become so far: config, layers, variables.

use crate::oci::{ChainId, Descriptor, DiffId, Digest, History, ImageConfig, Platform, media_type};

use super::fakeroot::Fakeroot;
use super::scope::Scope;

/// The state between two steps of a stage. Cloned when another stage starts from it.
#[derive(Clone, Debug)]
pub struct State {
    /// Everything but `rootfs.diff_ids`, which [`State::image_config`] fills in.
    pub config: ImageConfig,
    /// The layers, bottom first.
    pub layers: Vec<StateLayer>,
    /// ARG and ENV.
    pub scope: Scope,
    /// How many of the layers, from the bottom, come from an image and not from this Dockerfile.
    pub inherited: usize,
    /// How many entries of the history come from an image.
    pub inherited_history: usize,
    /// Whether the layers are all there: a dry run goes on without.
    pub certainty: Certainty,
    /// What was this stage's own CMD: ENTRYPOINT drops an inherited one only.
    pub command: Command,
    /// What fakeroot mode found out about the image.
    pub fakeroot: Fakeroot,
}

/// Whether a state is what a build would make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Certainty {
    /// Yes.
    Known,
    /// Layers are missing that a build would make first.
    Guessed,
}

/// Where a stage's CMD comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// From the base, or nowhere.
    Inherited,
    /// From this Dockerfile.
    Own,
}

/// One layer of a state.
#[derive(Clone, Debug, PartialEq)]
pub struct StateLayer {
    /// Which.
    pub diff_id: DiffId,
    /// How the manifest names it: as it was pulled, or uncompressed if it was made here.
    pub descriptor: Descriptor,
}

impl StateLayer {
    /// A layer made here, of this tar size: uncompressed in the manifest, since nobody asked for its compressed form yet.
    pub fn made((diff_id, size): (DiffId, u64)) -> Self {
        Self { diff_id, descriptor: Descriptor::new(media_type::OCI_LAYER, diff_id.0, size) }
    }
}

/// The search path of images that set none (as docker's and BuildKit's).
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

impl State {
    /// `FROM scratch`.
    pub fn scratch(platform: &Platform) -> Self {
        let mut config = ImageConfig::scratch(platform);
        config.config.set_env("PATH", DEFAULT_PATH);
        config.config.working_dir = "/".into();
        Self::on(config, Vec::new())
    }

    /// On an image.
    pub fn on_image(mut config: ImageConfig, layers: Vec<StateLayer>) -> Self {
        config.created = None;
        config.rootfs.diff_ids.clear();
        if config.config.env("PATH").is_none() {
            config.config.set_env("PATH", DEFAULT_PATH);
        }
        Self::on(config, layers)
    }

    fn on(config: ImageConfig, layers: Vec<StateLayer>) -> Self {
        let scope = Scope::of_image(&config.config.env);
        let (inherited, inherited_history) = (layers.len(), config.history.len());
        Self {
            config,
            layers,
            inherited,
            inherited_history,
            scope,
            certainty: Certainty::Known,
            command: Command::Inherited,
            fakeroot: Fakeroot::default(),
        }
    }

    /// What a stage that starts from this one starts with; ONBUILD triggers don't pass on, arguments do.
    pub fn child(&self) -> Self {
        let mut child = self.clone();
        child.config.config.on_build.clear();
        child.command = Command::Inherited;
        child
    }

    /// Sets variables as ENV does, without an entry in the history (buildah's `--env`).
    pub fn set_variables(&mut self, variables: &[(String, String)]) {
        for (name, value) in variables {
            self.config.config.set_env(name, value);
            self.scope.set_env(name, value);
        }
    }

    /// Adds a history entry. `created` is known for layers only: what changes the config alone gets the time of the image.
    pub fn record(&mut self, created: Option<String>, created_by: String, layer: Option<StateLayer>) {
        let empty_layer = layer.is_none();
        self.layers.extend(layer);
        let author = self.config.author.clone();
        self.config.history.push(History { created, created_by: Some(created_by), empty_layer, author, ..History::default() });
    }

    /// Puts one layer, or none, in the place of all from the one numbered `first`.
    pub fn squash(&mut self, first: usize, layer: Option<StateLayer>) {
        let count = self.layers.len() - first;
        self.layers.truncate(first);
        self.layers.extend(layer.clone());
        // From the youngest entry on, those that had the layers lose them.
        for entry in self.config.history.iter_mut().rev().filter(|entry| !entry.empty_layer).take(count) {
            entry.empty_layer = true;
        }
        if layer.is_some() {
            let comment = Some(format!("{count} layers squashed"));
            self.config.history.push(History { comment, ..History::default() });
        }
    }

    /// What stands for the file system in cache keys: the chain ID. A step whose result did not change costs the steps after it nothing.
    pub fn chain(&self) -> Digest {
        ChainId::of(&self.stack()).map_or_else(|| Digest::of("scratch"), |chain| chain.0)
    }

    /// The stack of layers, bottom first.
    pub fn stack(&self) -> Vec<DiffId> {
        self.layers.iter().map(|layer| layer.diff_id).collect()
    }

    /// The config with its layers, times still open.
    pub fn undated_config(&self) -> ImageConfig {
        let mut config = self.config.clone();
        config.rootfs.diff_ids = self.stack();
        config
    }

    /// The finished config.
    pub fn image_config(&self, created: &str) -> ImageConfig {
        let mut config = self.undated_config();
        // What changes the config alone has the time of the layer before it, or of the first layer made here (BuildKit), so that times follow
        // each other.
        let of_layer = |entry: &History| entry.created.clone().filter(|time| !time.is_empty());
        let mut time = config.history.iter().skip(self.inherited_history).find_map(of_layer).unwrap_or_else(|| created.to_owned());
        for (at, entry) in config.history.iter_mut().enumerate() {
            match of_layer(entry) {
                Some(own) if at >= self.inherited_history => time = own,
                Some(_) => {}
                None => entry.created = Some(time.clone()),
            }
        }
        config.created = Some(created.to_owned());
        config
    }

    /// When the youngest step of this Dockerfile was executed; `None` if all only changed the config.
    pub fn latest_step(&self) -> Option<String> {
        let times = self.config.history.iter().skip(self.inherited_history).filter_map(|entry| entry.created.clone());
        times.max_by_key(|time| time.parse::<jiff::Timestamp>().ok())
    }

    /// The shell of the shell form.
    pub fn shell(&self) -> Vec<String> {
        match self.config.config.shell.as_slice() {
            [] => vec!["/bin/sh".into(), "-c".into()],
            shell => shell.to_vec(),
        }
    }
}
