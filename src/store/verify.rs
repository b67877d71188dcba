//! What checking the storage directory needs: all there is, with nothing taken on trust, and ways to put right what is wrong.
//!
//! Not here: reading blobs and comparing layers with them, which takes decompressing (`transfer::verify`).
//!
//! A layer that turned out to be damaged is exchanged in one step where the file system can, else by two renames. Killed in between, the layer is
//! absent, which everybody knows how to mend; what was damaged lies in `tmp/` and goes with the next command. Nobody may use it meanwhile, since
//! whoever has it mounted would see its files go.

use std::path::{Path, PathBuf};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use super::gc::files;
use super::layer::{Draft, LayerFile, pack};
use super::layout::digest_of_name;
use super::lease::{Kind as Lease, Live};
use super::lock::Attempt;
use super::remove::remove_tree;
use super::sync::Origin;
use super::{ImageRecord, Member, Referrer, StepRecord, Store, record, step};
use crate::error::{Error, IoContext, Result};
use crate::oci::{Descriptor, DiffId, Digest, Reference};
use crate::rootfs::view::LayerDir;

/// Everything in the storage directory that has a name; records as far as they can be read.
#[derive(Debug)]
pub struct Inventory {
    /// Files of image records.
    pub images: Vec<(PathBuf, Result<ImageRecord>)>,
    /// Blobs, with their sizes.
    pub blobs: Vec<(Digest, u64)>,
    /// Layers.
    pub layers: Vec<DiffId>,
    /// Trees, by the digest in their names.
    pub trees: Vec<Digest>,
    /// Build steps by key; `None` is a record that can't be read.
    pub steps: Vec<(Digest, Option<StepRecord>)>,
    /// Which blobs hold a layer; `None` is a memory that can't be read.
    pub memories: Vec<(DiffId, Option<Vec<Descriptor>>)>,
    /// What is attached to manifests, by their digests; `None` is a list that can't be read.
    pub referrers: Vec<(Digest, Option<Vec<Referrer>>)>,
    /// What has no name of ours.
    pub strangers: Vec<PathBuf>,
}

/// What a layer's directory proves by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LayerState {
    /// Its tar has the digest that it is named by.
    Proven,
    /// It came from someone's tar; only that can tell. This is the digest of ours.
    Foreign(Digest),
    /// It is not what it was.
    Damaged(String),
    /// It is not there.
    Absent,
}

/// Whether something could be put right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replaced {
    /// It was.
    Done,
    /// Someone uses the damaged thing.
    InUse,
}

impl Store {
    /// Lists everything.
    pub fn inventory(&self) -> Result<Inventory> {
        let mut strangers = Vec::new();
        let mut named = |directory: PathBuf| -> Result<Vec<(Digest, PathBuf)>> {
            let mut found = Vec::new();
            for path in files(&directory)? {
                match digest_of_name(&path) {
                    Some(digest) => found.push((digest, path)),
                    None => strangers.push(path),
                }
            }
            found.sort();
            Ok(found)
        };
        let blobs = named(self.layout().blobs())?.into_iter().map(|(digest, path)| (digest, path.metadata().map_or(0, |stat| stat.len())));
        let blobs = blobs.collect();
        let layers = named(self.layout().layers())?.into_iter().map(|(digest, _)| DiffId(digest)).collect();
        let trees = named(self.layout().trees())?.into_iter().map(|(digest, _)| digest).collect();
        let mut steps = Vec::new();
        for (key, path) in named(self.layout().steps())? {
            steps.push((key, step::load(&path)?));
        }
        let mut memories = Vec::new();
        for (digest, path) in named(self.layout().layer_blobs())? {
            let bytes = record::read(&path)?.unwrap_or_default();
            memories.push((DiffId(digest), serde_json::from_slice(&bytes).ok()));
        }
        let mut referrers = Vec::new();
        // The directory is made when the first is needed.
        if self.layout().referrers().exists() {
            for (subject, _) in named(self.layout().referrers())? {
                referrers.push((subject, self.referrers(&subject).ok()));
            }
        }
        let mut images = self.image_records()?;
        images.sort_by(|(a, _), (b, _)| a.cmp(b));
        strangers.extend(files(&self.layout().images())?.into_iter().filter(|path| path.extension().is_none_or(|end| end != "json")));
        Ok(Inventory { images, blobs, layers, trees, steps, memories, referrers, strangers })
    }

    /// Where a layer is.
    pub fn layer_path(&self, diff_id: &DiffId) -> PathBuf {
        self.layout().layer(diff_id)
    }

    /// Where a tree is.
    pub fn tree_path(&self, chain: &Digest) -> PathBuf {
        self.layout().trees().join(chain.hex())
    }

    /// Where a step's record is.
    pub fn step_path(&self, key: &Digest) -> PathBuf {
        self.layout().step(key)
    }

    /// Where it is remembered which blobs hold a layer.
    pub fn memory_path(&self, diff_id: &DiffId) -> PathBuf {
        self.layout().layer_blobs_of(diff_id)
    }

    /// Where it is listed what is attached to a manifest.
    pub fn referrers_path(&self, subject: &Digest) -> PathBuf {
        self.layout().referrers_of(subject)
    }

    /// Reads a whole layer. It is leased only meanwhile, so that it can be replaced.
    pub fn examine_layer(&self, diff_id: &DiffId) -> Result<LayerState> {
        let _held = self.held(Lease::Layer, &diff_id.0)?;
        let directory = self.layout().layer(diff_id);
        if record::open(&directory)?.is_none() {
            return Ok(LayerState::Absent);
        }
        let file = LayerFile::load(&directory.join(super::layer::LAYER_FILE))?;
        let (packed, size) = match pack(&directory) {
            Ok(packed) => packed,
            Err(error) => return Ok(LayerState::Damaged(error.to_string())),
        };
        Ok(match file {
            Some(file) if file.diff_id != *diff_id => LayerState::Damaged(format!("its `layer.json` is that of `{}`", file.diff_id)),
            Some(_) if packed == *diff_id => LayerState::Proven,
            Some(file) if file.origin() == Origin::Unpacked => LayerState::Foreign(packed.0),
            Some(file) if file.size() != size => {
                LayerState::Damaged(format!("its tar has digest `{packed}` and {size} bytes instead of {}", file.size()))
            }
            Some(_) => LayerState::Damaged(format!("its tar has digest `{packed}`")),
            None => LayerState::Damaged("its `layer.json` can't be read".into()),
        })
    }

    /// Digest of the tar that a layer directory makes.
    pub fn packed_digest(&self, directory: &Path) -> Result<Digest> {
        pack(directory).map(|(packed, _)| packed.0)
    }

    /// Opens a layer directory to be compared.
    pub fn open_layer(&self, diff_id: &DiffId) -> Result<LayerDir> {
        LayerDir::open(&self.layout().layer(diff_id))
    }

    /// Puts a layer, unpacked from a tar of this size, in the place of a damaged or absent one.
    pub fn replace_layer(&self, mut draft: Draft, diff_id: &DiffId, size: u64) -> Result<Replaced> {
        let Some(_owned) = self.owned(Lease::Layer, &diff_id.0)? else { return Ok(Replaced::InUse) };
        draft.write_file(*diff_id, size)?;
        // On the disk before it has its name: it is trusted from then on, and the power may fail at once.
        self.made_something();
        self.sync()?;
        let place = self.layout().layer(diff_id);
        match renameat_with(CWD, draft.path(), CWD, &place, RenameFlags::EXCHANGE) {
            Ok(()) => {}
            Err(_) => {
                let damaged = self.unfinished("damaged")?;
                match std::fs::rename(&place, damaged.path()) {
                    Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::io("replace damaged layer", &place, e)),
                    _ => drop(damaged),
                }
                draft.place(&place)?;
            }
        }
        Ok(Replaced::Done)
    }

    /// Takes a damaged layer away.
    pub fn discard_layer(&self, diff_id: &DiffId) -> Result<Replaced> {
        self.discard(Lease::Layer, &diff_id.0, &self.layout().layer(diff_id))
    }

    /// Takes a damaged tree away; it is made again when it is needed.
    pub fn discard_tree(&self, chain: &Digest) -> Result<Replaced> {
        self.discard(Lease::Tree, chain, &self.tree_path(chain))
    }

    fn discard(&self, kind: Lease, digest: &Digest, place: &Path) -> Result<Replaced> {
        let Some(_owned) = self.owned(kind, digest)? else { return Ok(Replaced::InUse) };
        let trash = self.unfinished("trash")?;
        match std::fs::rename(place, trash.path()) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Error::io("remove", place, e)),
            _ => Ok(Replaced::Done),
        }
    }

    /// Removes a record that can't be read, or anything else that is not ours.
    pub fn discard_file(&self, path: &Path) -> Result<()> {
        remove_tree(path).map(drop)
    }

    /// Writes the record of a name again as the documents have it.
    pub fn rewrite_record(&self, record: &ImageRecord) -> Result<ImageRecord> {
        let mut members = record.members().iter().map(|member| self.restated(member)).collect::<Result<Vec<_>>>()?;
        let chosen = members.remove(0);
        self.put_record(ImageRecord::new(record.reference.clone(), chosen, record.index).with(members, record.extras.clone()))
    }

    fn restated(&self, member: &Member) -> Result<Member> {
        self.member(&Descriptor { platform: Some(member.platform.clone()), ..member.manifest.clone() })
    }

    /// Bytes of a layer's tar as far as it says so, for showing progress.
    pub fn layer_weight(&self, diff_id: &DiffId) -> u64 {
        LayerFile::load(&self.layout().layer(diff_id).join(super::layer::LAYER_FILE)).ok().flatten().map_or(0, |file| file.size())
    }

    /// Whether an image has a layer that was packed here, and so did not come from a registry as it is.
    pub fn built_here(&self, image: &ImageRecord) -> bool {
        image.members().iter().flat_map(|member| &member.layers).any(|diff_id| {
            let file = LayerFile::load(&self.layout().layer(diff_id).join(super::layer::LAYER_FILE)).ok().flatten();
            file.is_some_and(|file| file.origin() == Origin::Packed)
        })
    }

    /// Where the record of a name is.
    pub fn record_path(&self, reference: &Reference) -> PathBuf {
        self.layout().image(reference)
    }

    /// Keeps something from being collected for a while.
    fn held(&self, kind: Lease, digest: &Digest) -> Result<Live> {
        let live = Live::open(&self.layout().live());
        live.lease(kind, digest)?;
        Ok(live)
    }

    /// Has something alone for a while; `None` if somebody uses it.
    fn owned(&self, kind: Lease, digest: &Digest) -> Result<Option<Live>> {
        let live = Live::open(&self.layout().live());
        let attempt = live.own(kind, digest)?;
        Ok((attempt != Attempt::Busy).then_some(live))
    }
}

impl Draft {
    fn write_file(&self, diff_id: DiffId, size: u64) -> Result<()> {
        let path = self.path().join(super::layer::LAYER_FILE);
        std::fs::write(&path, LayerFile::unpacked(diff_id, size)).doing("write", &path)
    }
}
