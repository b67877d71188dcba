//! `type=cache`: a directory that outlives the build, kept by the store.

use std::path::Path;
use std::time::Duration;

use crate::dockerfile::ast;
use crate::error::{IoContext, Result, quote};
use crate::event::Event;
use crate::oci::{Digest, ImagePath};
use crate::rootfs::meta::{Kind, Meta};
use crate::rootfs::view::View;
use crate::rootfs::writer::{Content, LayerWriter};
use crate::store::{CacheMount, CacheMountRecord, Sharing};

use super::super::engine::Engine;
use super::super::key::Key;
use super::super::plan::Stage;
use super::tree::Tree;

/// A cache as a mount names it.
pub struct Cache<'a> {
    /// What tells it from all others: its name and what its first content is made of.
    pub key: Digest,
    record: CacheMountRecord,
    sharing: Sharing,
    first: First<'a>,
}

/// What a new directory is.
enum First<'a> {
    /// Empty, with this metadata.
    Empty(Meta),
    /// A copy.
    Copy(Tree<'a>),
}

/// A build argument that sets apart the caches of builds which would otherwise share them (Dockerfile reference, "BuildKit built-in build args").
const NAMESPACE: &str = "BUILDKIT_CACHE_MOUNT_NS";

/// Told once when a locked cache has been waited for this long.
const PATIENCE: Duration = Duration::from_secs(1);

impl<'a> Cache<'a> {
    /// Finds out which cache is meant. Caches of one name that differ in owner, mode or first content are different caches (BuildKit).
    pub fn find(engine: &'a Engine<'_>, stage: &Stage<'_>, mount: &ast::Mount, key: &mut Key) -> Result<Self> {
        let target = mount.target.as_deref().unwrap_or_default();
        let id = match mount.id.as_deref().filter(|id| !id.is_empty()) {
            Some(id) => id.to_owned(),
            // As BuildKit: the target as written, a relative one too.
            None => clean(target),
        };
        let namespace = engine.request.arguments.get(NAMESPACE).map_or("", String::as_str);
        let mut own = Key::new(&Digest::of("cache mount"), namespace);
        own.field(&id);
        let first = match &mount.from {
            Some(from) if !from.is_empty() => {
                let (tree, content) = Tree::read(engine, stage, mount)?;
                tree.check_directory("a cache mount")?;
                own.field("copy").field(content.bytes());
                First::Copy(tree)
            }
            _ => {
                let (uid, gid) = super::owner(mount);
                let meta = Meta { uid, gid, ..Meta::new(Kind::Directory, mount.mode.unwrap_or(0o755)) };
                own.field(format!("empty {uid} {gid} {:o} {}", meta.mode, mount.source.as_deref().unwrap_or_default()));
                First::Empty(meta)
            }
        };
        let sharing = match mount.sharing {
            None | Some(ast::Sharing::Shared) => Sharing::Shared,
            Some(ast::Sharing::Private) => Sharing::Private,
            Some(ast::Sharing::Locked) => Sharing::Locked,
        };
        let own = own.finish();
        key.field(own.bytes()).field(format!("{sharing:?}"));
        let name = if namespace.is_empty() { id } else { format!("{namespace}/{id}") };
        let record = CacheMountRecord { id: name, from: mount.from.clone().filter(|from| !from.is_empty()) };
        Ok(Self { key: own, record, sharing, first })
    }

    /// Takes a directory of it for a step; waits for a locked one.
    pub fn take(&self, engine: &Engine<'_>) -> Result<CacheMount> {
        let told = std::cell::Cell::new(false);
        let waiting = |waited: Duration| {
            if waited > PATIENCE && !told.replace(true) {
                engine
                    .sink
                    .event(Event::Note(&format!("waiting for the cache mount {}, which another step has locked", quote(&self.record.id))));
            }
            engine.stop.check()
        };
        engine.store.cache_mount(&self.key, &self.record, self.sharing, &|layer| self.fill(layer), &waiting)
    }

    fn fill(&self, layer: &Path) -> Result<()> {
        match &self.first {
            First::Copy(tree) => tree.copy_to(layer),
            First::Empty(meta) => {
                let mut writer = LayerWriter::create(layer, View::new(Vec::new()))?;
                writer.put(&ImagePath::root(), meta, Content::None)?;
                writer.finish().map(drop)?;
                let root = layer.join("fs");
                let now = std::time::SystemTime::now();
                std::fs::File::open(&root).and_then(|root| root.set_modified(now)).doing("set times of", &root)
            }
        }
    }
}

/// Go's `path.Clean` of a target, as far as it matters for telling names apart.
fn clean(target: &str) -> String {
    let cleaned = ImagePath::clean(target).to_string();
    if target.starts_with('/') { cleaned } else { cleaned.trim_start_matches('/').to_owned() }
}
